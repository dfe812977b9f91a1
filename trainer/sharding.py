"""A task on all ranks: tables placed by TorchRec's planner, everything else replicated, the same initial weights for every plan.

Ranks average their gradients (DDP and TorchRec both divide by the world size), so a task's loss must be world size times this
rank's share of the global mean; then every plan and world size takes the step that one process takes on the whole batch.
"""

import difflib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from rich.table import Table as RichTable
from torch import nn
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.types import ShardingEnv, ShardingPlan

from trainer.capability import SHARDING_TYPES
from trainer.errors import UserError
from trainer.mean_pooling import divide_means_once
from trainer.optim import OptimizerConfig
from trainer.placement import TablePlan, check_replicas_fit, make_plan, make_sharders, summarise
from trainer.sync_norm import convert
from trainer.tables import Table, draw_table, find_tables, spread_table
from trainer.uneven_scatter import allow_uneven_shares


@dataclass(frozen=True, kw_only=True)
class ShardingConfig:
    """Where embedding tables live.

    Raises:
        ValueError: a sharding type is unknown, a name is constrained twice, or replicated tables are given types.

    Example::

        ShardingConfig(types=(("t_item", "row_wise"),), default_type="table_wise")
    """

    kind: Literal["planner", "replicated"] = "planner"
    """planner: TorchRec's planner places each table. replicated: every rank holds every table (one process: no sharding at all),
    and any sparse optimizer works, as a dense one."""
    types: tuple[tuple[str, str], ...] = ()
    """(table or module name, sharding type): what the planner must use there; a table's own entry wins over its module's."""
    default_type: str | None = None
    """Sharding type of every other table; None: the planner chooses among those that work."""

    def __post_init__(self) -> None:
        if self.kind not in ("planner", "replicated"):
            raise ValueError(f"sharding.kind={self.kind!r}, expected planner or replicated")
        chosen = [*self.types, *([("default_type", self.default_type)] if self.default_type is not None else [])]
        for name, sharding_type in chosen:
            if sharding_type not in SHARDING_TYPES:
                raise ValueError(f"sharding: {name!r} has type {sharding_type!r}, expected one of {SHARDING_TYPES}")
        names = [name for name, _ in self.types]
        if len(set(names)) != len(names):
            raise ValueError(f"sharding.types={self.types} constrains a name twice; keep one entry per name")
        if self.kind == "replicated" and chosen:
            raise ValueError(f"sharding.kind=replicated takes no sharding types, but has {chosen}; use kind=planner")


class ShardedTask(NamedTuple):
    """A task that is ready to train."""

    module: nn.Module
    """DistributedModelParallel, or the task itself on its device where one process holds replicated tables."""
    task: nn.Module
    """The task inside, for its methods and attributes; call forward through `module`."""
    plan: tuple[TablePlan, ...]
    """One entry per table."""

    @property
    def num_parameters(self) -> int:
        """Of the whole model: a sharded table counts in full on every rank."""
        tables = {table.parameter_name for table in find_tables(self.task)}
        dense = sum(weight.numel() for name, weight in self.task.named_parameters() if name not in tables)
        return dense + sum(table.rows * table.dim for table in self.plan)


def shard(
    task: nn.Module,
    *,
    config: ShardingConfig,
    optimizer: OptimizerConfig,
    device: torch.device,
    process_group: dist.ProcessGroup,
) -> ShardedTask:
    """Place `task` on the ranks of `process_group`; every rank calls this with an equally built task, which is changed in place.

    Initial weights: dense parameters and buffers are the first rank's. A table that the task holds on a real device is spread from
    the first rank, a block of rows at a time; a table on the meta device is drawn shard by shard from the first rank's
    torch.initial_seed() (see tables.draw_table), so that a rank never holds more of it than its shards and a block. Either way the
    bits are the same for every plan, kind and world size. nn.BatchNorm1d becomes SyncBatchNorm where there is more than one rank.

    With kind=planner each rank's batch must have at least one row (TorchRec's EmbeddingCollection needs it).

    Raises:
        UserError: device, TorchRec and optimizer do not go together, a name in `config.types` is unknown, or no plan fits into
            memory.
    """
    tables = find_tables(task)
    requested = _requested_types(tables, config)
    world_size = process_group.size()
    sources = {table.parameter_name: task.get_parameter(table.parameter_name).detach() for table in tables}
    with _quiet_construction():
        plan = None
        if config.kind == "planner":
            plan = make_plan(
                task, tables=tables, requested=requested, optimizer=optimizer, device=device, process_group=process_group
            )
        summary = summarise(tables, plan=plan, optimizer=optimizer, world_size=world_size)
        if plan is None:
            check_replicas_fit(summary, device=device, process_group=process_group)
        if world_size > 1:
            convert(task, process_group)
        _place_dense(task, tables, device=device, process_group=process_group)
        module = _wrap(task, tables, plan=plan, optimizer=optimizer, device=device, process_group=process_group)
    _place_weights(module, tables, sources=sources, device=device, process_group=process_group)
    inner = module.module if isinstance(module, DistributedModelParallel) else module
    return ShardedTask(module, inner, summary)


def plan_table(plan: Sequence[TablePlan]) -> RichTable:
    """The plan for the console; MiB counts float32 weights and optimizer state, on the fullest rank and over all ranks."""
    shown = RichTable(title="embedding tables")
    for heading in ("table", "module", "rows × dim", "sharding", "kernel", "optimizer", "ranks (shards)", "MiB/rank", "MiB"):
        shown.add_column(heading, justify="right" if heading in ("rows × dim", "MiB/rank", "MiB") else "left")
    for entry in plan:
        ranks = sorted({rank for rank, _, _ in entry.shards})
        sizes = [entry.bytes_on(rank) / 2**20 for rank in ranks]
        placed = f"{','.join(map(str, ranks))} ({len(entry.shards)})"
        size = f"{entry.rows:,} × {entry.dim}"
        how = (entry.sharding_type, entry.compute_kernel, entry.optimizer)
        shown.add_row(entry.table, f"{entry.module} ({entry.kind})", size, *how, placed, f"{max(sizes):.2f}", f"{sum(sizes):.2f}")
    return shown


def _requested_types(tables: Sequence[Table], config: ShardingConfig) -> dict[str, str | None]:
    """Sharding type by table name, None where the planner chooses."""
    names = [table.name for table in tables]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(
            f"tables {repeated} exist in more than one collection; sharding is configured by name, so make names unique"
        )
    known = {*names, *(table.module_name for table in tables)}
    chosen = dict(config.types)
    for name in chosen:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"sharding.types names {name!r}, which is no table or module{hint} (have {sorted(known)})")
    return {table.name: chosen.get(table.name, chosen.get(table.module_name, config.default_type)) for table in tables}


def _wrap(
    task: nn.Module,
    tables: Sequence[Table],
    *,
    plan: ShardingPlan | None,
    optimizer: OptimizerConfig,
    device: torch.device,
    process_group: dist.ProcessGroup,
) -> nn.Module:
    if plan is None:
        for table in tables:
            parent = task.get_submodule(table.parameter_name.rpartition(".")[0])
            parent.weight = nn.Parameter(torch.empty_like(parent.weight, device=device), requires_grad=parent.weight.requires_grad)
        if process_group.size() == 1:
            return task
    environment = ShardingEnv.from_process_group(process_group)
    sharders = make_sharders(optimizer)
    module = DistributedModelParallel(task, env=environment, device=device, plan=plan or ShardingPlan(plan={}), sharders=sharders)
    divide_means_once(module)
    if device.type == "cpu":
        allow_uneven_shares(module)
    return module


def _place_dense(task: nn.Module, tables: Sequence[Table], *, device: torch.device, process_group: dist.ProcessGroup) -> None:
    """Move everything but the tables to `device` and give every rank the first rank's values."""
    collections = tuple(table.module_name for table in tables)
    for name, child in task.named_modules():
        if name in collections or any(name.startswith(f"{collection}.") for collection in collections):
            continue
        for owned in (child._parameters, child._buffers):
            for key, value in owned.items():
                if value is None:
                    continue
                if value.is_meta:
                    raise UserError(
                        f"{name}.{key} is on the meta device; only embedding tables can be drawn by shard: build it on a device"
                    )
                value.data = value.data.to(device)
                if process_group.size() > 1:
                    dist.broadcast(value.data, group=process_group, group_src=0)


def _place_weights(
    module: nn.Module,
    tables: Sequence[Table],
    *,
    sources: Mapping[str, torch.Tensor],
    device: torch.device,
    process_group: dist.ProcessGroup,
) -> None:
    """Write every table's initial weights; see `shard`."""
    # unsigned, and above int64's range in about every second process that sets no seed of its own
    seed = torch.from_numpy(np.array([torch.initial_seed()], dtype=np.uint64).view(np.int64)).to(device)
    if process_group.size() > 1:
        dist.broadcast(seed, group=process_group, group_src=0)
    weights = module.state_dict()
    for table in tables:
        source, weight = sources[table.parameter_name], weights[table.parameter_name]
        if source.is_meta:
            draw_table(weight, table=table, seed=int(seed.item()) % 2**64)
        else:
            spread_table(weight, source=source, process_group=process_group, device=device)


@contextmanager
def _quiet_construction() -> Iterator[None]:
    """Silence what TorchRec 1.8 says at each start about its own insides: nothing in it depends on the user."""

    def is_news(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(("Sharding spec not found for", "Could not determine LOCAL_WORLD_SIZE"))

    root, library = logging.getLogger(), logging.getLogger("torchrec")
    level = library.level
    root.addFilter(is_news)
    library.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torchrec.distributed passes DDP's deprecated broadcast_buffers
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            # torchrec still describes its shards with ShardedTensor
            warnings.filterwarnings("ignore", message="Please use DTensor instead", category=FutureWarning)
            yield
    finally:
        root.removeFilter(is_news)
        library.setLevel(level)
