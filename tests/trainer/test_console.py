import pytest

from trainer.console import MOST_COLUMNS, as_text, duration, evaluation_line, metrics_table, progress_line

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


def test_a_progress_line_of_a_matching_run_tells_the_further_losses_and_no_auc():
    values = {name: VALUES[name] for name in VALUES if name != "auc"} | {"auxiliary": 0.75}
    line = progress_line(step=50, total_steps=1000, epoch=0.5, values=values, eta_seconds=1)
    assert "loss 0.43210  auxiliary 0.75000" in line
    assert "auc" not in line


def test_an_evaluation_line_tells_what_its_task_measures():
    ranking = {"recall@20": 0.25, "recall@20_se": 0.01, "ndcg@10": 0.125, "loss": 7.5, "num_rows": 6040.0}
    binary = {"auc": 0.875, "auc_se": 0.005, "logloss": 0.5, "num_rows": 6040.0}
    lines = [evaluation_line("test", step=9, values=values, note="best so far") for values in (ranking, binary)]
    assert "recall@20 0.25000 ± 0.01000  ndcg@10 0.12500  loss 7.50000" in lines[0]
    assert "auc 0.87500 ± 0.00500  logloss 0.50000" in lines[1]
    assert all("step 9" in line and line.endswith("rows 6,040  best so far") for line in lines)


def _cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


def test_few_metrics_stand_beside_each_other_and_a_missing_one_is_left_blank():
    table = as_text(metrics_table("two", {"a": {"auc": 0.5, "rows": 12345.0}, "b": {"auc": 0.25}}))
    assert _cells(table) == [["a", "0.5", "12,345"], ["b", "0.25", ""]]


def test_many_metrics_stand_below_each_other():
    many = {f"recall@{k}": k / 100 for k in range(MOST_COLUMNS + 1)}
    table = as_text(metrics_table("many", {"validation": many, "test": {"recall@3": 0.5}}))
    assert len(_cells(table)) == len(many)
    assert _cells(table)[3] == ["recall@3", "0.03", "0.5"]
    assert _cells(table)[4] == ["recall@4", "0.04", ""]


def test_progress_lines_of_a_run_are_aligned():
    first = progress_line(step=50, total_steps=12345, epoch=0.5, values=VALUES, eta_seconds=0)
    later = progress_line(step=12300, total_steps=12345, epoch=19.5, values=VALUES, eta_seconds=0)
    assert first.index("loss") == later.index("loss")
