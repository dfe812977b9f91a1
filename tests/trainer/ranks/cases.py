"""Sharding plans that must train like one process; each names the optimizer configuration that both sides use."""

from trainer.optim import OptimizerConfig
from trainer.sharding import ShardingConfig


def _plan(pooled: str | None, sequence: str | None) -> ShardingConfig:
    chosen = (("pooled", pooled), ("sequence", sequence))
    return ShardingConfig(types=tuple((name, kind) for name, kind in chosen if kind is not None))


def _optimizer(name: str, **others: object) -> OptimizerConfig:
    return OptimizerConfig(learning_rate=0.01, sparse=name, sparse_learning_rate=0.1, **others)


CASES: dict[str, tuple[ShardingConfig, OptimizerConfig]] = {
    "table_wise+table_wise adagrad": (_plan("table_wise", "table_wise"), _optimizer("adagrad")),
    "row_wise+row_wise adagrad": (_plan("row_wise", "row_wise"), _optimizer("adagrad")),
    "column_wise+column_wise adagrad": (_plan("column_wise", "column_wise"), _optimizer("adagrad")),
    "table_column_wise+row_wise adagrad": (_plan("table_column_wise", "row_wise"), _optimizer("adagrad")),
    "data_parallel+column_wise sgd": (_plan("data_parallel", "column_wise"), _optimizer("sgd")),
    "row_wise+table_wise sgd": (_plan("row_wise", "table_wise"), _optimizer("sgd")),
    "table_wise+row_wise rowwise_adagrad": (_plan("table_wise", "row_wise"), _optimizer("rowwise_adagrad")),
    "row_wise+table_wise rowwise_adagrad": (_plan("row_wise", "table_wise"), _optimizer("rowwise_adagrad")),
    "data_parallel adam + row_wise rowwise_adagrad": (
        _plan("data_parallel", "row_wise"),
        _optimizer("adam", sequence_sparse="rowwise_adagrad", sequence_learning_rate=0.05),
    ),
    "planner's choice rowwise_adagrad": (ShardingConfig(), _optimizer("rowwise_adagrad")),
    "replicated adam": (ShardingConfig(kind="replicated"), _optimizer("adam", embedding_decay=1e-3)),
    "row_wise+row_wise adagrad, clipped and scheduled": (
        _plan("row_wise", "row_wise"),
        _optimizer("adagrad", clip_norm=0.05, weight_decay=1e-3, schedule="cosine", warmup_steps=5, final_fraction=0.1),
    ),
}
