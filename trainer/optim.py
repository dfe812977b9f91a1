"""Optimizers: fused ones inside the sharded tables, dense ones for everything else; learning rate as a function of the step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import nn
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.clipping import GradientClipping, GradientClippingOptimizer
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from trainer.tables import Kind, find_tables

SparseOptimizer = Literal["adam", "adagrad", "rowwise_adagrad", "sgd"]

Factory = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

FUSED_TYPES: dict[SparseOptimizer, EmbOptimType] = {
    "adam": EmbOptimType.ADAM,
    "adagrad": EmbOptimType.EXACT_ADAGRAD,
    "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    "sgd": EmbOptimType.EXACT_SGD,
}


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How parameters are updated; the defaults are the papers' Adam with a constant learning rate.

    Raises:
        ValueError: a number is out of its range or a name is unknown.

    Example::

        OptimizerConfig(sparse="rowwise_adagrad", sparse_learning_rate=0.05, schedule="cosine", warmup_steps=100)
    """

    dense: Literal["adam"] = "adam"
    """Optimizer of everything that is not an embedding table."""
    learning_rate: float = 1e-3
    """Learning rate of the dense parameters, before the schedule."""
    eps: float = 1e-8
    """Added to the denominator, for Adam and both Adagrads, dense and sparse."""
    weight_decay: float = 0.0
    """L2 penalty on the dense parameters, added to the gradient."""
    sparse: SparseOptimizer = "adam"
    """Optimizer of the embedding tables; `sharding` says which ones a device and a sharding type support."""
    sparse_learning_rate: float = 1e-3
    """Learning rate of the tables, before the schedule."""
    sequence_sparse: SparseOptimizer | None = None
    """Another optimizer for the sequence tables (EmbeddingCollection): a sharded CPU run can use Adam for replicated pooled tables,
    but not for these. None: the same as `sparse`."""
    sequence_learning_rate: float | None = None
    """Learning rate of the sequence tables; None: `sparse_learning_rate`."""
    embedding_decay: float = 0.0
    """L2 penalty on whole tables, each step; only where they are replicated (kind=replicated or data_parallel)."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rates fall from the end of the warm-up to the last step."""
    warmup_steps: int = 0
    """Optimizer steps over which the learning rates rise linearly to their full value."""
    final_fraction: float = 0.0
    """Fraction of the learning rate that linear and cosine schedules end at."""
    clip_norm: float | None = None
    """Largest global L2 norm of the dense gradients; None: no clipping. Tables are never clipped, so that plans stay equivalent."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "eps", "sparse_learning_rate", "sequence_learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"optimizer.{name}={value}, expected a positive finite number")
        for name in ("weight_decay", "embedding_decay", "warmup_steps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"optimizer.{name}={getattr(self, name)}, expected a finite number of at least 0")
        if not 0 <= self.final_fraction <= 1:
            raise ValueError(f"optimizer.final_fraction={self.final_fraction}, expected a number in [0, 1]")
        for name, value, allowed in (
            ("dense", self.dense, ("adam",)),
            ("sparse", self.sparse, get_args(SparseOptimizer)),
            ("sequence_sparse", self.sequence_sparse, (None, *get_args(SparseOptimizer))),
            ("schedule", self.schedule, ("constant", "linear", "cosine")),
        ):
            if value not in allowed:
                raise ValueError(f"optimizer.{name}={value!r}, expected one of {allowed}")

    def table_optimizer(self, kind: Kind) -> SparseOptimizer:
        """Name of the optimizer that tables of this kind use."""
        return self.sequence_sparse if kind == "sequence" and self.sequence_sparse is not None else self.sparse

    def table_learning_rate(self, kind: Kind) -> float:
        """Learning rate, before the schedule, of tables of this kind."""
        own = self.sequence_learning_rate
        return own if kind == "sequence" and own is not None else self.sparse_learning_rate

    def fused_parameters(self, kind: Kind) -> dict[str, object]:
        """Keyword arguments for fbgemm's kernel that updates tables of this kind within backward; a fresh dict each time."""
        name = self.table_optimizer(kind)
        values: dict[str, object] = {"optimizer": FUSED_TYPES[name], "learning_rate": self.table_learning_rate(kind)}
        return values if name == "sgd" else values | {"eps": self.eps}


def build_optimizer(module: nn.Module, config: OptimizerConfig) -> CombinedOptimizer:
    """One optimizer over the fused tables, the replicated tables and the dense parameters of a `shard`ed task.

    Keys of its state are parameter names, as in `module.state_dict()`; all state exists already, so that checkpoints load into it.
    """
    table_kinds = {table.parameter_name: table.kind for table in find_tables(module)}
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    unfused = dict(in_backward_optimizer_filter(trained.items(), include=False))
    parts: list[tuple[str, KeyedOptimizer]] = []
    if isinstance(module, DistributedModelParallel) and module.fused_optimizer.params:
        parts.append(("", module.fused_optimizer))
    for kind in ("pooled", "sequence"):
        tables = {name: parameter for name, parameter in unfused.items() if table_kinds.get(name) == kind}
        if tables:
            parts.append(("", _dense_part(tables, _table_factory(kind, config))))
    dense = {name: parameter for name, parameter in unfused.items() if name not in table_kinds}
    if dense:
        part: KeyedOptimizer = _dense_part(dense, _adam_factory(config.learning_rate, config.eps, config.weight_decay))
        if config.clip_norm is not None:
            # gradients are averaged over ranks before this runs, so that every rank finds the same, global norm
            part = GradientClippingOptimizer(part, clipping=GradientClipping.NORM, max_gradient=config.clip_norm)
        parts.append(("", part))
    optimizer = CombinedOptimizer(parts)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def learning_rate_factor(step: int, *, total_steps: int, config: OptimizerConfig) -> float:
    """Fraction of the configured learning rates that optimizer step `step` (from 0) uses; a pure function.

    From `total_steps` on it stays at the schedule's end.

    Raises:
        ValueError: the warm-up is longer than the run and the schedule falls, or `step` is negative.
    """
    if step < 0:
        raise ValueError(f"step={step}, expected at least 0")
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    if total_steps <= config.warmup_steps:
        raise ValueError(
            f"optimizer.warmup_steps={config.warmup_steps} leaves a {config.schedule} schedule no step of {total_steps}"
        )
    progress = min(1.0, (step - config.warmup_steps) / (total_steps - config.warmup_steps))
    remaining = 1.0 - progress if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.final_fraction + (1.0 - config.final_fraction) * remaining


def set_learning_rate(optimizer: CombinedOptimizer, factor: float) -> None:
    """Set every learning rate, fused and dense, to `factor` times its configured value; call it before forward."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    for _, part in optimizer.optimizers:
        if isinstance(part, CombinedOptimizer):
            # the fused part: its step() only hands the rate to the kernel, which updates the tables within backward
            part.step()


def _dense_part(parameters: dict[str, nn.Parameter], factory: Factory) -> KeyedOptimizer:
    part = KeyedOptimizerWrapper(parameters, factory)
    rates = [group["lr"] for group in part.param_groups]
    # torchrec's init_state takes a step: at rate 0, and with the state set back, it changes nothing
    for group in part.param_groups:
        group["lr"] = 0.0
    part.init_state()
    part.zero_grad()
    for group, rate in zip(part.param_groups, rates, strict=True):
        group["lr"] = rate
    for state in part.state.values():
        for value in state.values():
            if torch.is_tensor(value):
                value.zero_()
    return part


def _adam_factory(rate: float, eps: float, decay: float) -> Factory:
    return lambda parameters: torch.optim.Adam(parameters, lr=rate, eps=eps, weight_decay=decay, fused=True)


def _table_factory(kind: Kind, config: OptimizerConfig) -> Factory:
    """The dense equivalent of a fused optimizer, for tables that every rank holds whole."""
    rate, eps, decay = config.table_learning_rate(kind), config.eps, config.embedding_decay
    factories: dict[SparseOptimizer, Factory] = {
        "adam": _adam_factory(rate, eps, decay),
        "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=rate, eps=eps, weight_decay=decay),
        "rowwise_adagrad": lambda parameters: RowWiseAdagrad(parameters, lr=rate, eps=eps, weight_decay=decay),
        "sgd": lambda parameters: torch.optim.SGD(parameters, lr=rate, weight_decay=decay),
    }
    return factories[config.table_optimizer(kind)]
