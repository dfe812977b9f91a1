from pathlib import Path

import pytest

from benchmarks.paper.cells import FIT_ABLATION_LABELS, FIT_LABELS, T2DIFF_LABELS, TABLES, Dataset, Paper, PaperTable
from benchmarks.paper.render import TITLES
from benchmarks.paper.rows import config_of
from trainer.recipes import RECIPES
from trainer.recipes.ml1m_matching_baselines import SEQUENCES, TIME_GAPS

BUDGETS = [(table, budget) for table in TABLES.values() for budget in TITLES]


@pytest.mark.parametrize(("table", "budget"), BUDGETS)
def test_no_two_cells_of_a_budget_are_one_run_or_have_one_name(table: PaperTable, budget: str):
    cells = [cell for cell in table.of_budget(budget) if cell.role != "counted"]
    assert len({config_of(cell, seed=0).fingerprint for cell in cells}) == len(cells)
    assert len({cell.label for cell in cells}) == len(cells)


@pytest.mark.parametrize(("table", "budget"), BUDGETS)
def test_cells_that_are_compared_read_the_same_data_or_its_sequences(table: PaperTable, budget: str):
    data = {config_of(cell, seed=0).data for cell in table.of_budget(budget) if cell.role != "counted"}
    assert len(data - {SEQUENCES, TIME_GAPS}) <= 1
    assert not data & {SEQUENCES, TIME_GAPS} or data <= {SEQUENCES, TIME_GAPS, Path("data/ml1m_next_item")}


@pytest.mark.parametrize("table", [TABLES["t2diff", "ml1m"], TABLES["fit", "ml1m"]])
def test_tuned_cells_share_loss_optimizer_and_budget(table: PaperTable):
    runs = [config_of(cell, seed=0) for cell in table.of_budget("tuned") if cell.role != "counted"]
    assert len(runs) > 10
    assert len({(run.loader, run.optimizer, run.loop, run.sharding) for run in runs}) == 1
    assert len({loss for run in runs if (loss := getattr(run.model, "loss", None)) is not None}) <= 1


@pytest.mark.parametrize(("paper", "labels"), [("t2diff", T2DIFF_LABELS), ("fit", FIT_LABELS | FIT_ABLATION_LABELS)])
def test_every_model_that_a_paper_compares_has_a_tuned_row(paper: Paper, labels: dict[str, tuple[str, str]]):
    found = {cell.label for cell in TABLES[paper, "ml1m"].of_budget("tuned") if cell.role != "counted"}
    assert found == {label for label, _ in labels.values()}


@pytest.mark.parametrize("dataset", ["ml1m", "ml1m_stride10", "ml1m_stride50", "ml1m_last"])
def test_every_model_of_fits_table_1_has_a_row_by_the_papers_presets(dataset: Dataset):
    found = {cell.label for cell in TABLES["fit", dataset].of_budget("paper")}
    assert {label for label, _ in FIT_LABELS.values()} <= found


def test_every_tuned_and_every_paper_recipe_of_movielens_that_a_table_names_is_in_it():
    used = {cell.recipe for table in TABLES.values() for cell in table.cells}
    named = {f"{model}_{suffix}" for model in T2DIFF_LABELS for suffix in ("ml1m", "ml1m_paper")}
    named |= {f"{model}_{suffix}" for model in FIT_LABELS for suffix in ("ml1m_adam", "ml1m_paper")}
    assert named & set(RECIPES) <= used


def test_the_papers_lead_over_its_best_baseline_is_what_it_prints():
    printed = {cell.label: cell.paper for cell in TABLES["t2diff", "ml1m"].of_budget("tuned")}
    baselines = [cell for cell in TABLES["t2diff", "ml1m"].of_budget("tuned") if cell.role == "baseline" and cell.paper]
    for metric, improvement in (("recall@2", 0.2339), ("recall@20", 0.0753), ("mrr@2", 0.3239), ("mrr@20", 0.2227)):
        best = max(cell.paper[metric] for cell in baselines)
        assert printed["T2Diff"][metric] / best - 1 == pytest.approx(improvement, abs=2e-3)
