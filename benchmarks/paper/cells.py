"""What the papers' tables hold: every row's recipe, and what the paper prints for it.

A new model is one more cell here. The tuned cells of a table share data, loss, training budget and search space, and differ by the
model. By the papers' presets each has its own budget, and SASRec, GRU4Rec and HSTU learn from sequences; test rows are the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from trainer.recipes import RECIPES

Paper = Literal["t2diff", "fit"]
Dataset = Literal["ml1m", "ml1m_stride10", "ml1m_stride50", "ml1m_last"]
"""ml1m: every row; then as many training rows as `--train-stride 10`, `50` or `--train-rows last` leave (FIT)."""
Budget = Literal["tuned", "paper", "sharded"]
Role = Literal["counted", "baseline", "ablation", "proposed"]

POPULARITY, ITEM_KNN = "popularity", "item_knn"
"""What result rows of baselines that are counted, not trained, have in place of a recipe."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row of a table."""

    label: str
    """Its name there; no two cells of a budget have the same."""
    recipe: str
    """What trains it; of counted baselines what their result rows call them."""
    overrides: tuple[str, ...] = ()
    """`--field value` of the recipe."""
    role: Role = "baseline"
    """Counted and trained baselines, ablations of the proposed model, and the proposed model itself."""
    budget: Budget = "tuned"
    """The part of the table that it stands in; counted baselines stand in each."""
    num_ranks: int = 1
    """Processes that train it."""
    paper: Mapping[str, float] = field(default_factory=dict)
    """What the paper prints, by metric; `parameters` in millions and `ms` of inference per sample."""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table of a paper on one data set."""

    cells: tuple[Cell, ...]
    metrics: tuple[str, ...]
    """Test metrics to show, in order."""
    headline: str
    """The metric that decides: the best baseline is the one with the largest, and leads over it are tested for significance."""
    base: str | None = None
    """Label of the row that relative improvements (FIT eq. 22) refer to; None: the paper shows none."""
    unseen: str | None = None
    """A test metric to show for rankings without the items that a user touched before, too (see unseen.py)."""
    training_rows: str = "all"
    """Which of a user's training rows there are, in words."""
    note: str = ""
    """A sentence below the table."""

    def of_budget(self, budget: Budget) -> tuple[Cell, ...]:
        """The counted baselines and a budget's own cells."""
        return tuple(cell for cell in self.cells if cell.role == "counted" or cell.budget == budget)


def _matching(recall_2: float, recall_20: float, mrr_2: float, mrr_20: float, *, parameters: float, ms: float) -> dict[str, float]:
    """A line of T2Diff's Table 2."""
    metrics = {"recall@2": recall_2, "recall@20": recall_20, "mrr@2": mrr_2, "mrr@20": mrr_20}
    return metrics | {"parameters": parameters, "ms": ms}


T2DIFF_TABLE_2 = {
    "sasrec": _matching(0.05779, 0.15564, 0.04515, 0.05717, parameters=0.126, ms=0.56),
    "caser": _matching(0.05808, 0.15709, 0.04259, 0.05769, parameters=0.182, ms=0.64),
    "gru4rec": _matching(0.06070, 0.16564, 0.04503, 0.05753, parameters=0.119, ms=0.60),
    "bert4rec": _matching(0.06272, 0.20559, 0.04589, 0.06532, parameters=0.126, ms=0.57),
    "dat_plus": _matching(0.05988, 0.25785, 0.04506, 0.07140, parameters=0.127, ms=0.54),
    "contrastvae": _matching(0.06023, 0.15203, 0.04436, 0.05764, parameters=0.126, ms=0.63),
    "stosa": _matching(0.05905, 0.16008, 0.04454, 0.05705, parameters=0.244, ms=0.56),
    "diffurec": _matching(0.06076, 0.14971, 0.04288, 0.05469, parameters=0.146, ms=0.65),
    "mixed_attention": _matching(0.06308, 0.26017, 0.04826, 0.07452, parameters=0.126, ms=0.59),
    "t2diff_no_drift": _matching(0.07233, 0.25198, 0.05683, 0.07996, parameters=0.187, ms=0.68),
    "t2diff": _matching(0.07738, 0.27727, 0.06076, 0.08730, parameters=0.187, ms=0.68),
}
"""Model -> what it reaches there on ML-1M; "Params (MB)" are millions of parameters."""
T2DIFF_LABELS: dict[str, tuple[str, Role]] = {
    "sasrec": ("SASRec", "baseline"),
    "caser": ("Caser", "baseline"),
    "gru4rec": ("GRU4Rec", "baseline"),
    "bert4rec": ("BERT4Rec", "baseline"),
    "regular_two_tower": ("Regular two-tower", "baseline"),
    "dat_plus": ("DAT+", "baseline"),
    "contrastvae": ("ContrastVAE", "baseline"),
    "stosa": ("STOSA", "baseline"),
    "diffurec": ("DiffuRec", "baseline"),
    "hstu": ("HSTU", "baseline"),
    "mixed_attention": ("Mixed-attention", "ablation"),
    "t2diff_no_drift": ("T2Diff without drift (W/O DP)", "ablation"),
    "t2diff": ("T2Diff", "proposed"),
}
THREE_EPOCHS = ("--loop.max-epochs", "3")
"""Half the tuned budget: what T2Diff's variants are compared with each other in."""
ALGORITHMS_1_AND_2 = (
    *THREE_EPOCHS,
    *("--model.diffusion.tower-condition", "onestep"),
    *("--model.diffusion.sampler", "ancestral", "--model.diffusion.num-sample-steps", "50"),
)
"""x̂ from z_r in training, T noisy steps in serving; noise and scale are the defaults, not eq. 17 to the letter."""
FIT_TABLE_1 = {
    "two_tower": {"auc": 0.8695, "logloss": 0.4508},
    "dat": {"auc": 0.8784, "logloss": 0.4363},
    "cold": {"auc": 0.9009, "logloss": 0.4316},
    "inttower": {"auc": 0.9036, "logloss": 0.4142},
    "ranktower": {"auc": 0.9095, "logloss": 0.3986},
    "fit": {"auc": 0.9225, "logloss": 0.3766},
}
"""Model -> what it reaches there on ML-1M."""
FIT_LABELS: dict[str, tuple[str, Role]] = {
    "two_tower": ("Two-Tower", "baseline"),
    "dat": ("DAT", "baseline"),
    "cold": ("COLD", "baseline"),
    "inttower": ("IntTower", "baseline"),
    "ranktower": ("RankTower", "baseline"),
    "fit": ("FIT", "proposed"),
}
FIT_ABLATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fit_no_mqm": ("FIT w/o MQM", ("--model.use-meta-query", "False")),
    "fit_no_lss": ("FIT w/o LSS", ("--model.scorer", "dot")),
    "fit_sum_max": ("FIT w SumMax", ("--model.scorer", "sum_max")),
    "fit_fc": ("FIT w FC", ("--model.scorer", "fc")),
    "fit_hard_query": ("FIT, hard query only", ("--model.meta-query.selection", "hard")),
    "fit_no_temperature": ("FIT, soft query without temperature", ("--model.meta-query.selection", "soft_no_temperature")),
    "fit_no_self_attention": ("FIT w/o self-attention", ("--model.meta-query.query-attention", "none")),
}
"""FIT section 5.4: how its recipe of the paper's preset begins -> label, and what it overrides of the tuned recipe; the paper draws
the results (Figs. 4 and 5) and prints no figures."""
FIT_ABLATION_LABELS: dict[str, tuple[str, Role]] = {model: (label, "ablation") for model, (label, _) in FIT_ABLATIONS.items()}


def _trained(
    labels: dict[str, tuple[str, Role]],
    printed: dict[str, dict[str, float]],
    *,
    suffix: str,
    budget: Budget,
    words: tuple[str, ...] = (),
) -> list[Cell]:
    """A cell for each model that has a recipe `<model>_<suffix>`; not every model has one of each preset."""
    return [
        Cell(label=label, recipe=f"{model}_{suffix}", overrides=words, role=role, budget=budget, paper=printed.get(model, {}))
        for model, (label, role) in labels.items()
        if f"{model}_{suffix}" in RECIPES
    ]


def _fit_ablations_tuned() -> list[Cell]:
    return [Cell(label=label, recipe="fit_ml1m_adam", overrides=words, role="ablation") for label, words in FIT_ABLATIONS.values()]


FEWER_ROWS: dict[Dataset, tuple[str, tuple[str, ...]]] = {
    dataset: (rows, ("--data", f"data/{dataset}", "--loop.max-epochs", epochs, "--loop.patience", patience))
    for dataset, rows, epochs, patience in (
        ("ml1m_stride10", "every tenth", "30", "6"),
        ("ml1m_stride50", "every fiftieth", "60", "6"),
        ("ml1m_last", "one, of four users in five", "200", "30"),
    )
}
"""Data with fewer training rows -> which of a user's rows there are, and the paper's preset with epochs to spare; the last has 5
steps an epoch, and models that start slowly learn nothing in 6 of them."""


def _fit_with_fewer_rows(dataset: Dataset) -> PaperTable:
    """FIT's Table 1, and where a run takes minutes its ablations, on data with fewer training rows."""
    training_rows, words = FEWER_ROWS[dataset]
    ablations = FIT_ABLATION_LABELS if dataset != "ml1m_stride10" else {}
    return PaperTable(
        cells=(
            Cell(label="Popularity (training counts)", recipe=POPULARITY, role="counted"),
            *_trained(FIT_LABELS, FIT_TABLE_1, suffix="ml1m_paper", budget="paper", words=words),
            *_trained(ablations, {}, suffix="ml1m_paper", budget="paper", words=words),
        ),
        metrics=("auc", "logloss", "popularity_auc"),
        headline="auc",
        base="Two-Tower",
        training_rows=training_rows,
    )


INPUTS_AND_TARGETS = (
    "T2Diff, its ablations and HSTU read how long ago each behaviour was (in 42 % of the test rows the newest one is of the "
    "target's own second), Caser and DAT+ the user's id, all other models the items alone. Histories are the newest 50 behaviours, "
    "Caser's the newest five. Rows of STOSA's and DAT+'s tables hold two vectors of that width. By their papers' presets SASRec, "
    "GRU4Rec and HSTU predict every behaviour of a sequence in place of a row's target; Algorithms 1 and 2 have the tuned preset's "
    "optimizer and three epochs."
)
"""What differs between the rows of T2Diff's Table 2."""
TABLES: dict[tuple[Paper, Dataset], PaperTable] = {
    ("t2diff", "ml1m"): PaperTable(
        cells=(
            Cell(label="Popularity", recipe=POPULARITY, role="counted"),
            Cell(label="Item-kNN", recipe=ITEM_KNN, role="counted"),
            *_trained(T2DIFF_LABELS, T2DIFF_TABLE_2, suffix="ml1m", budget="tuned"),
            *_trained(T2DIFF_LABELS, T2DIFF_TABLE_2, suffix="ml1m_paper", budget="paper"),
            Cell(
                label="T2Diff, Algorithms 1 and 2",
                recipe="t2diff_ml1m",
                overrides=ALGORITHMS_1_AND_2,
                role="proposed",
                budget="paper",
                paper=T2DIFF_TABLE_2["t2diff"],
            ),
        ),
        metrics=("recall@2", "recall@10", "recall@20", "mrr@2", "mrr@20", "ndcg@10"),
        headline="recall@20",
        unseen="hr@10",
        note=INPUTS_AND_TARGETS,
    ),
    ("fit", "ml1m"): PaperTable(
        cells=(
            Cell(label="Popularity (training counts)", recipe=POPULARITY, role="counted"),
            *_trained(FIT_LABELS, FIT_TABLE_1, suffix="ml1m_adam", budget="tuned"),
            *_fit_ablations_tuned(),
            *_trained(FIT_LABELS, FIT_TABLE_1, suffix="ml1m_paper", budget="paper"),
            *_trained(FIT_ABLATION_LABELS, {}, suffix="ml1m_paper", budget="paper"),
            Cell(label="Two-Tower", recipe="two_tower_ml1m", budget="sharded", num_ranks=2),
            Cell(label="FIT", recipe="fit_ml1m", role="proposed", budget="sharded", num_ranks=2),
        ),
        metrics=("auc", "logloss", "popularity_auc"),
        headline="auc",
        base="Two-Tower",
        note="Of all models' own settings one was searched: IntTower's weight of its contrastive loss, on every fiftieth row.",
    ),
}
for _dataset in FEWER_ROWS:
    TABLES["fit", _dataset] = _fit_with_fewer_rows(_dataset)

FIGURES_DATA: Dataset = "ml1m_stride50"
"""What FIT's figures of ablations and sweeps are drawn from: runs take minutes, and models differ by more than their seeds do."""
