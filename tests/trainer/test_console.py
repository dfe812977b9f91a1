import pytest

from trainer.console import duration, progress_line

VALUES = {"loss": 0.4321, "auc": 0.8765, "learning_rate": 1e-3, "rows_per_second": 12345.6, "data_wait": 0.031}


@pytest.mark.parametrize(("seconds", "text"), [(4.2, "4s"), (185, "3m05s"), (7620, "2h07m"), (float("inf"), "?")])
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


def test_a_progress_line_holds_every_figure_and_the_temperature_only_where_there_is_one():
    line = progress_line(step=50, total_steps=1000, epoch=0.5, values=VALUES, eta_seconds=185)
    for part in ("50/1000", "0.43210", "0.87650", "1.00e-03", "12,346 rows/s", "3%", "3m05s"):
        assert part in line
    assert "τ" not in line
    assert "τ 0.250" in progress_line(step=50, total_steps=1000, epoch=0.5, values=VALUES | {"temperature": 0.25}, eta_seconds=1)


def test_progress_lines_of_a_run_are_aligned():
    first = progress_line(step=50, total_steps=12345, epoch=0.5, values=VALUES, eta_seconds=0)
    later = progress_line(step=12300, total_steps=12345, epoch=19.5, values=VALUES, eta_seconds=0)
    assert first.index("loss") == later.index("loss")
