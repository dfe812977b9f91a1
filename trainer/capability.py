"""What TorchRec can shard: device × kind of table × sharding type × sparse optimizer, or the sentence that says why not.

The CPU rows were each run at two gloo ranks against the unsharded model; tests/trainer/test_sharding.py repeats the ones that work.
The CUDA rows follow TorchRec's and fbgemm's documentation.
"""

from typing import Literal, NamedTuple, get_args

from trainer.errors import UserError
from trainer.optim import SparseOptimizer
from trainer.tables import Kind

ShardingKind = Literal[
    "data_parallel", "table_wise", "row_wise", "column_wise", "table_row_wise", "table_column_wise", "grid_shard", "replicated"
]
SHARDING_TYPES: tuple[str, ...] = tuple(name for name in get_args(ShardingKind) if name != "replicated")
ANY = "*"
OK = ""


class Rule(NamedTuple):
    """One line of the table; `*` matches anything, the first line that matches decides."""

    device: str
    kind: str
    sharding_type: str
    sparse: str
    verdict: str
    """OK, or why not and what to use instead."""


_SPLIT_COLUMNS = (
    "RowWiseAdagrad keeps one number per row, and every column shard would keep its own, so the result depends on the plan;"
    " use table_wise or row_wise, or optimizer.sparse=adagrad"
)
_NO_CPU_ADAM = (
    "fbgemm has no fused Adam on a CPU; use sharding.kind=replicated, data_parallel (pooled tables only), or adagrad,"
    " rowwise_adagrad or sgd (optimizer.sequence_sparse sets it for sequence tables alone)"
)

CAPABILITY: tuple[Rule, ...] = (
    # replicated tables are plain modules under DDP: any dense optimizer works
    Rule(ANY, ANY, "replicated", ANY, OK),
    Rule(
        ANY,
        "sequence",
        "data_parallel",
        ANY,
        "TorchRec's EmbeddingCollection fails in data_parallel; use table_wise or row_wise, or sharding.kind=replicated",
    ),
    Rule(
        ANY,
        "sequence",
        "table_column_wise",
        ANY,
        "TorchRec's EmbeddingCollection has no table_column_wise; use column_wise, table_wise or row_wise",
    ),
    Rule(ANY, "sequence", "table_row_wise", ANY, "TorchRec's EmbeddingCollection has no table_row_wise; use row_wise"),
    Rule(ANY, "sequence", "grid_shard", ANY, "TorchRec's EmbeddingCollection has no grid_shard; use row_wise or column_wise"),
    Rule("cpu", "pooled", "table_row_wise", ANY, "gloo can't return its gradients to ranks with unequal batches; use row_wise"),
    Rule(
        ANY,
        "pooled",
        "grid_shard",
        ANY,
        "TorchRec averages a list within each part of the rows, which gives wrong numbers; use row_wise, column_wise or table_wise",
    ),
    Rule(ANY, "pooled", "data_parallel", ANY, OK),
    Rule("cpu", ANY, ANY, "adam", _NO_CPU_ADAM),
    Rule(ANY, ANY, "column_wise", "rowwise_adagrad", _SPLIT_COLUMNS),
    Rule(ANY, ANY, "table_column_wise", "rowwise_adagrad", _SPLIT_COLUMNS),
    Rule("cpu", ANY, "table_wise", ANY, OK),
    # pooled: TorchRec's own sharder does not offer it on a CPU, placement.py's does; unequal batches need uneven_scatter.py
    Rule("cpu", ANY, "row_wise", ANY, OK),
    Rule("cpu", ANY, "column_wise", ANY, OK),
    Rule("cpu", "pooled", "table_column_wise", ANY, OK),
    Rule("cuda", ANY, "table_wise", ANY, OK),
    Rule("cuda", ANY, "row_wise", ANY, OK),
    Rule("cuda", ANY, "column_wise", ANY, OK),
    Rule("cuda", "pooled", "table_column_wise", ANY, OK),
    Rule("cuda", "pooled", "table_row_wise", ANY, OK),
)


def verdict(*, device: str, kind: Kind, sharding_type: str, sparse: SparseOptimizer) -> str:
    """Why this combination can't be used and what to use instead; empty where it can."""
    asked = (device, kind, sharding_type, sparse)
    for rule in CAPABILITY:
        if all(pattern in (ANY, value) for pattern, value in zip(rule[:4], asked, strict=True)):
            return rule.verdict
    return f"nobody has tried this on {device}; use table_wise or row_wise"


def check_capability(table: str, *, device: str, kind: Kind, sharding_type: str, sparse: SparseOptimizer) -> None:
    """UserError, naming the table, where the combination can't be used; call it before anything is built."""
    reason = verdict(device=device, kind=kind, sharding_type=sharding_type, sparse=sparse)
    if reason:
        raise UserError(f"{kind} table {table}: sharding {sharding_type} with optimizer {sparse} on {device}: {reason}")


def allowed_types(table: str, *, device: str, kind: Kind, sparse: SparseOptimizer) -> list[str]:
    """Sharding types that the planner may choose from for a table; UserError lists the reasons where there are none.

    data_parallel is left to an explicit request wherever another type works: its optimizer state is a dense optimizer's, so a
    planner that switched to it on another number of ranks would leave a run unable to load its own checkpoints.
    """
    verdicts = {name: verdict(device=device, kind=kind, sharding_type=name, sparse=sparse) for name in SHARDING_TYPES}
    allowed = [name for name, reason in verdicts.items() if not reason]
    if not allowed:
        reasons = "\n  ".join(f"{name}: {reason}" for name, reason in verdicts.items())
        raise UserError(f"{kind} table {table}: no sharding type works with optimizer {sparse} on {device}\n  {reasons}")
    return [name for name in allowed if name != "data_parallel"] or allowed
