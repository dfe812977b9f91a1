import pytest

from benchmarks.paper.cells import FIGURES_DATA, FIT_ABLATIONS, TABLES, Cell, PaperTable
from benchmarks.paper.rows import column_training_form, config_of
from benchmarks.paper.sweeps import SWEEPS, render_sweep
from benchmarks.paper.times import Times
from tests.benchmarks.paper.recorded import cell, run, timed
from trainer.cli import parse_run_config

OF_T2DIFF = SWEEPS["t2diff", "ml1m"]
EVERY = [(paper, sweep, table) for (paper, _), tables in SWEEPS.items() for sweep, table in tables.items()]


@pytest.mark.parametrize(("paper", "sweep", "table"), EVERY)
def test_no_two_cells_of_a_sweep_are_one_run_or_have_one_name(paper: str, sweep: str, table: PaperTable):
    assert len({config_of(cell, seed=0).fingerprint for cell in table.cells}) == len(table.cells), (paper, sweep)
    assert len({cell.label for cell in table.cells}) == len(table.cells)


@pytest.mark.parametrize(("paper", "sweep", "table"), [one for one in EVERY if one[1] != "windows"])
def test_cells_of_a_sweep_share_data_optimizer_budget_and_embeddings(paper: str, sweep: str, table: PaperTable):
    runs = [config_of(cell, seed=0) for cell in table.cells]
    shared = {(run.data, run.embeddings, run.loader, run.optimizer, run.loop, run.sharding) for run in runs}
    assert len(shared) == 1, (paper, sweep)


def test_fits_sweeps_contain_the_papers_own_setting():
    paper = cell(TABLES["fit", FIGURES_DATA], "FIT", "paper")
    for sweep in SWEEPS["fit", FIGURES_DATA].values():
        assert config_of(paper, seed=0).fingerprint in [config_of(cell, seed=0).fingerprint for cell in sweep.cells]


def test_an_ablation_is_the_same_change_in_both_presets():
    for model, (_, words) in FIT_ABLATIONS.items():
        tuned = parse_run_config(["--recipe", "fit_ml1m_adam"]).model
        changed = parse_run_config(["--recipe", "fit_ml1m_adam", *words]).model
        paper = parse_run_config(["--recipe", f"{model}_ml1m_paper"]).model
        full = parse_run_config(["--recipe", "fit_ml1m_paper"]).model
        differing = [name for name in vars(full) if getattr(paper, name) != getattr(full, name)]
        assert differing
        assert differing == [name for name in vars(tuned) if getattr(changed, name) != getattr(tuned, name)], model
        assert parse_run_config(["--recipe", "fit_ml1m_paper", *words]).model == paper


def test_a_label_tells_how_its_cell_is_trained_and_served():
    for one in (one for sweep in ("conditions", "steps") for one in OF_T2DIFF[sweep].cells):
        model = config_of(one, seed=0).model
        if model.use_diffusion:
            diffusion = model.diffusion
            assert f"`{diffusion.tower_condition}`" in one.label
            steps = {"sampled": 2, "high_noise": 1, "onestep": diffusion.schedule.num_steps}[diffusion.tower_condition]
            assert diffusion.num_sample_steps == steps
            assert f"served with {steps}" in one.label.replace("Algorithm 2 (T = ", "") or "W/O DP" in one.label
            assert diffusion.use_drift == ("W/O DP" not in one.label)


def test_t2diffs_variants_are_compared_in_three_epochs_those_of_windows_until_they_converge():
    epochs = {name: {config_of(one, seed=0).loop.max_epochs for one in sweep.cells} for name, sweep in OF_T2DIFF.items()}
    assert epochs == {"conditions": {3}, "schedules": {3}, "steps": {3}, "windows": {40, 100}}


def test_a_sweep_is_tabulated_beside_the_paper():
    table = OF_T2DIFF["schedules"]
    linear: Cell = next(one for one in table.cells if one.label == "linear")
    own = {"validation_recall@20": "0.3", column_training_form("recall@20"): "0.9"}
    rows = [run(table, linear, seed, value) | own for seed, value in ((0, 0.22), (1, 0.25))]
    older = rows[0] | {"config": "older", "test_recall@20": "0.9"}
    lines = render_sweep(table, [*rows, older], Times([timed(linear, 60, 1)])).splitlines()
    (shown,) = [line for line in lines if line.startswith("| linear")]
    assert "0.2350 ± 0.0212" in shown
    assert "| 0.9000 ± 0.0000 | 1,000 | 4 ± 0 | 2.0 ± 0.0 | 60 | 2 |" in shown  # the leak check's training form
    assert lines[lines.index(shown) + 1].startswith("| *the paper* | – | 0.0769 | – | 0.2752 | 0.0595 | 0.0868 | – |")
    assert any(line.startswith("ranked among all. Standard error of one test recall@20: at most 0.0050.") for line in lines)
    assert render_sweep(table, []) == "No run is recorded yet."
