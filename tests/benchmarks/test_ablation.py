import sys
from pathlib import Path

import pytest

from benchmarks import ablation, trained_runs
from benchmarks.ablation import CELLS, METRICS, Cell, fill, is_current, record, render
from benchmarks.result_rows import read_rows, replace_rows
from trainer.cli import parse_run_config
from trainer.errors import UserError

MACHINE = {"cpu": "a cpu", "cores": "2", "gpu": "none", "torch": "2.13.0", "torchrec": "1.8.0", "commit": "abc"}


def results_of(recipe: str, *, overrides: tuple[str, ...], recall: float) -> dict:
    """What results.json of a finished run holds, as far as tables read it."""
    metrics = dict.fromkeys(METRICS, 0.01) | {"recall@20": recall, "recall@20_se": 0.005, "num_rows": 6040.0}
    return {
        "recipe": recipe,
        "dataset": "ml1m/next_item/leave_one_out",
        "protocol": "ranked among all",
        "metrics": {"test": metrics, "validation": metrics},
        "diagnostics": {"leak_check": {"training_form": {"recall@20": 0.9}}} if recipe.startswith("t2diff") else {},
        "num_parameters": 200_000,
        "steps_per_epoch": 10,
        "best_step": 35,
        "steps": 50,
        "train_seconds_per_epoch": 300.0,
        "config_fingerprint": parse_run_config(["--recipe", recipe, *overrides]).fingerprint,
        "data_identity": "d" * 64,
        "provenance": MACHINE,
    }


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...]]]:
    """Runs that were asked for; each is finished at once, with a recall that grows by the order of asking."""
    asked: list[tuple[str, tuple[str, ...]]] = []

    def finished_run(recipe: str, *, overrides: list[str]) -> dict:
        asked.append((recipe, tuple(overrides)))
        return results_of(recipe, overrides=tuple(overrides), recall=0.2 + 0.01 * len(asked))

    monkeypatch.setattr(ablation, "finished_run", finished_run)
    return asked


def test_every_cell_is_a_recipe_with_overrides_that_parse_and_no_two_are_the_same_run():
    for cells in CELLS.values():
        prints = [parse_run_config(["--recipe", cell.recipe, *cell.overrides]).fingerprint for cell in cells]
        assert len(set(prints)) == len(cells)
        assert len({cell.label for cell in cells}) == len(cells)


def test_cells_of_one_table_share_data_optimizer_budget_and_embeddings():
    for group in ("conditions", "schedules", "steps"):
        runs = [parse_run_config(["--recipe", cell.recipe, *cell.overrides]) for cell in CELLS[group]]
        shared = {(run.data, run.embeddings, run.loader, run.optimizer, run.loop, run.sharding) for run in runs}
        assert len(shared) == 1, group


def test_seeds_are_filled_one_after_another_and_tabulated_beside_the_paper(
    trained: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ablation, "RESULTS", tmp_path)
    cells = CELLS["schedules"]
    fill("table", cells, seeds=2, jobs=1)
    assert [overrides[-1] for _, overrides in trained] == ["0", "0", "0", "1", "1", "1"]
    fill("table", cells, seeds=2, jobs=1)
    assert len(trained) == 6  # what is recorded is not asked for again
    rows = read_rows(tmp_path / "table.csv")
    assert all(is_current(row, cells) for row in rows)
    lines = render(cells, rows).splitlines()
    (linear,) = [line for line in lines if line.startswith("| linear")]
    assert "0.2350 ± 0.0212" in linear  # 0.22 and 0.25
    assert lines[lines.index(linear) + 1].startswith("| *the paper* | – | 0.0769 | – | 0.2752 | 0.0595 | 0.0868 | – |")
    assert "0.9000 ± 0.0000" in linear  # the leak check's training form
    assert any(line.startswith("ranked among all. Standard error of one test recall@20: at most 0.0050.") for line in lines)


@pytest.mark.usefixtures("trained")
def test_a_cell_that_fails_costs_no_other_cell_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def record_or_fail(cell: Cell, seed: int) -> dict[str, str]:
        if cell.label == "linear":
            raise ConnectionError("lost")
        return record(cell, seed)

    monkeypatch.setattr(ablation, "RESULTS", tmp_path)
    monkeypatch.setattr(ablation, "record", record_or_fail)
    with pytest.raises(ConnectionError, match="lost"):
        fill("table", CELLS["schedules"], seeds=1, jobs=2)
    assert sorted(row["label"] for row in read_rows(tmp_path / "table.csv")) == ["exponential", "logarithmic"]


def test_a_label_tells_how_its_cell_is_trained_and_served():
    cells = [cell for group in ("conditions", "steps") for cell in CELLS[group]]
    for cell in cells:
        model = parse_run_config(["--recipe", cell.recipe, *cell.overrides]).model
        if model.use_diffusion:
            diffusion = model.diffusion
            assert f"`{diffusion.tower_condition}`" in cell.label
            steps = {"sampled": 2, "high_noise": 1, "onestep": diffusion.schedule.num_steps}[diffusion.tower_condition]
            assert diffusion.num_sample_steps == steps
            assert f"served with {steps}" in cell.label.replace("Algorithm 2 (T = ", "") or "W/O DP" in cell.label
            assert diffusion.use_drift == ("W/O DP" not in cell.label)


@pytest.mark.usefixtures("trained")
def test_a_row_of_another_configuration_is_not_current():
    cell = Cell("Mixed-attention", "mixed_attention_ml1m")
    row = record(cell, 0)
    assert is_current(row, [cell])
    assert row["validation_recall@20_training_form"] == ""
    assert not is_current(row | {"config": "older"}, [cell])
    assert not is_current(row | {"label": "gone"}, [cell])


@pytest.mark.usefixtures("trained")
def test_the_command_renders_every_table_into_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    markers = [f"<!-- results:t2diff_ml1m_{group} -->\n<!-- /results:t2diff_ml1m_{group} -->" for group in CELLS]
    (tmp_path / "README.md").write_text("\n".join(markers))
    monkeypatch.setattr(ablation, "ROOT", tmp_path)
    monkeypatch.setattr(ablation, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["ablation", "t2diff", "--seeds", "1", "--groups", "steps", "--jobs", "2"])
    ablation.main()
    ablation.main()
    text = (tmp_path / "README.md").read_text()
    assert text.count("| T = 200, ") == 1
    assert text.count("No run is recorded yet.") == len(CELLS) - 1
    assert len(read_rows(tmp_path / "t2diff_ml1m_steps.csv")) == 3
    assert "t2diff_ml1m_steps" in capsys.readouterr().out


def test_a_finished_run_is_read_and_an_unfinished_one_is_launched_on_its_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run_dir = tmp_path / parse_run_config(["--recipe", "fit_demo"]).run_dir
    launched: list[list[str]] = []

    def launch(command: list[str], *, check: bool, cwd: Path) -> None:
        launched.append(command)
        assert check
        assert cwd == tmp_path
        run_dir.mkdir(parents=True)
        (run_dir / "results.json").write_text('{"recipe": "fit_demo", "world_size": 2}')

    monkeypatch.setattr(trained_runs, "ROOT", tmp_path)
    monkeypatch.setattr(trained_runs.subprocess, "run", launch)
    for _ in range(2):
        assert trained_runs.finished_run("fit_demo", num_ranks=2) == {"recipe": "fit_demo", "world_size": 2}
    ((*_, launcher, standalone, ranks, _, module, flag, recipe),) = launched
    assert (launcher, standalone, ranks) == ("torch.distributed.run", "--standalone", "--nproc-per-node=2")
    assert (module, flag, recipe) == ("trainer.train", "--recipe", "fit_demo")
    with pytest.raises(UserError, match=r"was trained on 2 rank\(s\), expected 1"):
        trained_runs.finished_run("fit_demo")


def test_spread_leaves_out_runs_without_the_figure():
    assert trained_runs.spread([{"x": "1"}, {"x": ""}, {}], "x", 1) == "1.0"
    assert trained_runs.spread([{"x": ""}], "x", 1) == "–"


@pytest.mark.usefixtures("trained")
def test_rows_are_replaced_by_label_seed_and_configuration(tmp_path: Path):
    cell = CELLS["conditions"][0]
    for _ in range(2):
        replace_rows(tmp_path / "x.csv", [record(cell, 0)], key=ablation.KEY)
    (row,) = read_rows(tmp_path / "x.csv")
    assert float(row["test_recall@20"]) == pytest.approx(0.22)
