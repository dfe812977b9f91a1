import pytest

from benchmarks.readme import dataloading_table, kernels_table, replace_section, training_table

MACHINE = {"cpu": "a cpu", "cores": "2", "gpu": "none", "torch": "2.13.0", "torchrec": "1.8.0", "commit": "abc", "date": "2026"}


def test_a_section_is_replaced_between_its_markers_and_nothing_else_changes(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- results:x -->\nold\n<!-- /results:x -->\nafter\n")
    replace_section(path, "x", "new")
    assert path.read_text() == "before\n<!-- results:x -->\nnew\n<!-- /results:x -->\nafter\n"
    with pytest.raises(ValueError, match="expected the markers"):
        replace_section(path, "y", "new")


def test_the_newest_row_of_each_variant_is_shown():
    old = {"variant": "loader", "rows_per_cpu_second": "1", "least": "1", "most": "1", "times_python_rows": "1"} | MACHINE
    rows = [old, old | {"rows_per_cpu_second": "1234567", "times_python_rows": "35.7"}]
    table = dataloading_table([row | {"times_torch_dataloader": "68.5"} for row in rows])
    assert table.count("| loader |") == 1
    assert "1,234,567" in table
    assert "35.7" in table


def test_the_training_table_shows_the_ratio_with_its_spread():
    row = {"recipe": "fit_ml1m", "optimizer": "adam", "plain_samples_per_second": "5000", "trainer_samples_per_second": "5500"}
    table = training_table([row | {"ratio": "1.100", "ratio_least": "1.050", "ratio_most": "1.150"} | MACHINE])
    assert "1.100 (1.050 .. 1.150)" in table
    assert "5,500/s" in table


def test_the_kernels_table_shows_the_newest_time_of_each_variant_on_a_gpu():
    row = {"op": "lss_score", "case": "a case", "device": "cuda", "floor_us": "2.0", "percent_of_floor": "20.0"} | MACHINE
    rows = [
        row | {"variant": "triton_graph", "p50_us": "11.0"},
        row | {"variant": "triton_graph", "p50_us": "10.0"},
        row | {"variant": "cuda_graph", "p50_us": "2879.0"},
        row | {"variant": "compile", "p50_us": ""},  # it failed
        row | {"variant": "eager", "p50_us": "1.0", "device": "cpu"},
    ]
    assert "| lss_score | a case | 10.0 | 2,879.0 | – | – | 2.0 | 20.0 |" in kernels_table(rows)
