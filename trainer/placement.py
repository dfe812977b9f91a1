"""Which rank holds which part of which table: TorchRec's planner under our constraints, and the summary that people read."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed.comm import get_local_size
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import PlannerError, PlannerErrorType, ShardingOption, Storage
from torchrec.distributed.types import ModuleSharder, ParameterSharding, ShardingPlan

from trainer.capability import allowed_types, check_capability
from trainer.errors import UserError
from trainer.memory import RankMemory, rank_memory
from trainer.optim import OptimizerConfig, SparseOptimizer
from trainer.tables import Kind, Table

COLUMN_MULTIPLE = 4
"""fbgemm wants the width of a column shard to be a multiple of this."""
STATE_PER_WEIGHT: dict[SparseOptimizer, int] = {"adam": 2, "adagrad": 1, "rowwise_adagrad": 0, "sgd": 0}
"""float32 values of optimizer state for each weight; rowwise_adagrad has one for each row instead."""
BATCH_SIZE = 512
"""Rows per rank that the planner reckons with; it only weighs options against each other."""
RESERVED_FRACTION = 0.15
"""Share of each rank's memory that the planner leaves to activations and dense parameters."""


class TablePlan(NamedTuple):
    """Where one table lives and how it is updated."""

    table: str
    """Name in TorchRec's configuration."""
    module: str
    """Dotted name of its collection."""
    kind: Kind
    """pooled or sequence."""
    rows: int
    """Rows of the whole table."""
    dim: int
    """Columns of the whole table."""
    sharding_type: str
    """A name from capability.ShardingKind."""
    compute_kernel: str
    """fused: updated within backward; dense: by a dense optimizer after it."""
    optimizer: SparseOptimizer
    """How it is updated."""
    shards: tuple[tuple[int, int, int], ...]
    """(rank, rows, columns) of each shard."""

    def bytes_on(self, rank: int) -> int:
        """Bytes of float32 weights and optimizer state on `rank`."""
        mine = [(rows, columns) for owner, rows, columns in self.shards if owner == rank]
        return sum(4 * rows * columns + _state_bytes(rows, columns, self.optimizer) for rows, columns in mine)


def _state_bytes(rows: int, columns: int, optimizer: SparseOptimizer) -> int:
    return 4 * rows * (columns * STATE_PER_WEIGHT[optimizer] + (1 if optimizer == "rowwise_adagrad" else 0))


class _BagSharder(EmbeddingBagCollectionSharder):
    """TorchRec's own sharder offers row-wise pooled tables on a GPU only, though they work over gloo too."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return sorted({*super().sharding_types(compute_device_type), "row_wise"})


class _Enumerator(EmbeddingEnumerator):
    """Lists the planner's options in a fixed order and with the memory that their optimizer takes.

    TorchRec's order follows string hashes, and so do plans where two options tie; and it reckons with weights alone, because our
    optimizers reach it as fused parameters.
    """

    def __init__(
        self, topology: Topology, *, constraints: dict[str, ParameterConstraints], optimizers: Mapping[str, SparseOptimizer]
    ) -> None:
        super().__init__(topology=topology, batch_size=BATCH_SIZE, constraints=constraints)
        self._optimizers = optimizers
        self._on_gpu = topology.compute_device == "cuda"

    def enumerate(self, module: nn.Module, sharders: list[ModuleSharder[nn.Module]]) -> list[ShardingOption]:
        options = super().enumerate(module, sharders)
        for option in options:
            in_hbm = self._on_gpu and "uvm" not in option.compute_kernel
            for shard in option.shards:
                rows, columns = shard.size
                state = _state_bytes(rows, columns, self._optimizers[option.name])
                shard.storage += Storage(hbm=state if in_hbm else 0, ddr=0 if in_hbm else state)
        return sorted(options, key=lambda option: (option.fqn, option.sharding_type, option.compute_kernel, option.num_shards))


def make_sharders(optimizer: OptimizerConfig) -> list[ModuleSharder[nn.Module]]:
    """TorchRec's sharders for both kinds of tables, with their fused optimizers."""
    return [
        _BagSharder(fused_params=optimizer.fused_parameters("pooled")),
        EmbeddingCollectionSharder(fused_params=optimizer.fused_parameters("sequence")),
    ]


def make_plan(
    task: nn.Module,
    *,
    tables: Sequence[Table],
    requested: Mapping[str, str | None],
    optimizer: OptimizerConfig,
    device: torch.device,
    process_group: dist.ProcessGroup,
) -> ShardingPlan:
    """Plan every table, on the first rank, whose plan or failure all ranks share.

    Args:
        task: the task before sharding.
        tables: its tables.
        requested: sharding type by table name; None: the planner's choice among those that work.
        optimizer: decides with `device` what works.
        device: cpu or cuda.
        process_group: the ranks to plan for.

    Raises:
        UserError: a requested type can't work, or no plan fits into memory.
    """
    world_size = process_group.size()
    constraints = {
        table.name: _constraint(table, requested[table.name], optimizer=optimizer, device=device, world_size=world_size)
        for table in tables
    }
    local_ranks = get_local_size(world_size)
    memory = rank_memory(device, local_ranks=local_ranks, process_group=process_group)
    topology = Topology(
        world_size=world_size,
        local_world_size=local_ranks,
        compute_device=device.type,
        hbm_cap=memory.gpu,
        ddr_cap=memory.host,
    )
    optimizers = {table.name: optimizer.table_optimizer(table.kind) for table in tables}
    planner = EmbeddingShardingPlanner(
        topology=topology,
        enumerator=_Enumerator(topology, constraints=constraints, optimizers=optimizers),
        storage_reservation=FixedPercentageStorageReservation(percentage=RESERVED_FRACTION),
        constraints=constraints,
        debug=False,
    )
    # not collective_plan(): it leaves the other ranks waiting for ever where planning fails on the first
    outcome: list[ShardingPlan | str] = [""]
    if process_group.rank() == 0:
        try:
            outcome[0] = planner.plan(task, make_sharders(optimizer))
        except PlannerError as error:
            outcome[0] = str(error)
            if error.error_type in (PlannerErrorType.INSUFFICIENT_STORAGE, PlannerErrorType.PARTITION):
                whole = summarise(tables, plan=None, optimizer=optimizer, world_size=1)
                outcome[0] = _too_large(whole, memory=memory, device=device)
    dist.broadcast_object_list(outcome, group=process_group, group_src=0)
    if isinstance(outcome[0], str):
        asked = {name: kind for name, kind in requested.items() if kind is not None} or "the planner's choice"
        raise UserError(f"no sharding plan for {world_size} rank(s) on {device.type} under {asked}: {outcome[0]}")
    return outcome[0]


def check_replicas_fit(plan: Sequence[TablePlan], *, device: torch.device, process_group: dist.ProcessGroup) -> None:
    """UserError where a rank can't hold every table whole; a collective call."""
    memory = rank_memory(device, local_ranks=get_local_size(process_group.size()), process_group=process_group)
    room = (1 - RESERVED_FRACTION) * (memory.gpu if device.type == "cuda" else memory.host)
    if sum(entry.bytes_on(0) for entry in plan) > room:
        raise UserError(f"sharding.kind=replicated on {device.type}: {_too_large(plan, memory=memory, device=device)}")


def _too_large(plan: Sequence[TablePlan], *, memory: RankMemory, device: torch.device) -> str:
    """What does not fit where; `plan` has every table whole on rank 0."""
    sizes = {entry.table: entry.bytes_on(0) / 2**30 for entry in plan}
    largest = max(sizes, key=lambda name: sizes[name])
    host = f"{memory.host / 2**30:,.1f} GiB of host memory"
    room = f"{memory.gpu / 2**30:,.1f} GiB of GPU memory and {host}" if device.type == "cuda" else host
    return (
        f"the tables do not fit into memory: with their optimizer state they take {sum(sizes.values()):,.1f} GiB (the largest,"
        f" {largest}, {sizes[largest]:,.1f} GiB), and each rank has {room}, of which {RESERVED_FRACTION:.0%} is kept for everything"
        " else; use more ranks, row_wise sharding of the largest table, a smaller embeddings.dim or an optimizer with less state"
    )


def summarise(
    tables: Sequence[Table], *, plan: ShardingPlan | None, optimizer: OptimizerConfig, world_size: int
) -> tuple[TablePlan, ...]:
    """One TablePlan per table; `plan` is None where tables are replicated."""
    return tuple(_summarise_table(table, plan=plan, optimizer=optimizer, world_size=world_size) for table in tables)


def _summarise_table(table: Table, *, plan: ShardingPlan | None, optimizer: OptimizerConfig, world_size: int) -> TablePlan:
    rows, dim = table.config.num_embeddings, table.config.embedding_dim
    placed: ParameterSharding | None = None if plan is None else plan.plan[table.module_name][table.name]
    sharding_type, kernel = ("replicated", "dense") if placed is None else (placed.sharding_type, placed.compute_kernel)
    shards = tuple((rank, rows, dim) for rank in range(world_size))
    if placed is not None and placed.sharding_spec is not None:
        shards = tuple((shard.placement.rank(), *shard.shard_sizes) for shard in placed.sharding_spec.shards)
    return TablePlan(
        table=table.name,
        module=table.module_name,
        kind=table.kind,
        rows=rows,
        dim=dim,
        sharding_type=sharding_type,
        compute_kernel=kernel,
        optimizer=optimizer.table_optimizer(table.kind),
        shards=shards,
    )


def _constraint(
    table: Table, requested: str | None, *, optimizer: OptimizerConfig, device: torch.device, world_size: int
) -> ParameterConstraints:
    sparse = optimizer.table_optimizer(table.kind)
    if requested is None:
        types = allowed_types(table.name, device=device.type, kind=table.kind, sparse=sparse)
    else:
        check_capability(table.name, device=device.type, kind=table.kind, sharding_type=requested, sparse=sparse)
        types = [requested]
    if optimizer.embedding_decay > 0:
        if requested not in (None, "data_parallel") or "data_parallel" not in types:
            raise UserError(
                f"optimizer.embedding_decay={optimizer.embedding_decay} with {table.kind} table {table.name}: fused optimizers"
                " would decay only looked-up rows; use sharding.kind=replicated, data_parallel (pooled tables), or 0"
            )
        types = ["data_parallel"]
    dim = table.config.embedding_dim
    widths = [
        width for width in range(COLUMN_MULTIPLE, dim + 1, COLUMN_MULTIPLE) if dim % width == 0 and dim // width <= world_size
    ]
    if not widths and requested is not None and "column" in requested:
        raise UserError(f"table {table.name}: {requested} needs a width that is a multiple of {COLUMN_MULTIPLE}, and it is {dim}")
    if not widths:
        types = [name for name in types if "column" not in name]
    # without a minimum the planner cuts no columns below a width of 128
    return ParameterConstraints(sharding_types=types, min_partition=min(widths, default=None))
