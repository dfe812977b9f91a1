"""From a run's parts to the modules of an artefact."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from trainer.export.lookups import PooledLookup, SequenceLookup, StackedTable, stack_tables
from trainer.export.run_parts import RunParts
from trainer.export.signature import TableForm
from trainer.export.towers import ItemTower, UserTower, VectorItemTower, VectorUserTower


class Towers(NamedTuple):
    """The modules of an artefact, in eval mode."""

    user_tower: nn.Module
    item_tower: nn.Module
    scorer: nn.Module


def assemble(parts: RunParts, *, tables: TableForm, check_inputs: bool = True) -> Towers:
    """Towers with the run's tables inside, with 8-bit tables inside, or over looked-up vectors.

    Args:
        parts: of the run.
        tables: where its tables go.
        check_inputs: whether the user tower refuses ids and histories that its model does not know.
    """
    user: nn.Module = _vector_user_tower(parts, check_lengths=check_inputs)
    item: nn.Module = _vector_item_tower(parts)
    if tables != "outside":
        form = {"quantised": tables == "quantised", "check_ids": check_inputs}
        histories = [history for history, _ in parts.columns.pairs]
        context = [name for name in parts.columns.context if name in parts.history_names]
        user = UserTower(
            user,
            pooled=PooledLookup(_stacked(parts, parts.user_names), **form),
            sequence=SequenceLookup(_stacked(parts, histories), **form),
            pair_row_H=_places(histories, parts.history_names),
            context_row_F=_places(context, parts.history_names),
        )
        item = ItemTower(item, pooled=PooledLookup(_stacked(parts, parts.item_names), **form))
    return Towers(*(module.eval().requires_grad_(False) for module in (user, item, parts.scorer)))


def _vector_user_tower(parts: RunParts, *, check_lengths: bool) -> VectorUserTower:
    context = [name for name in parts.columns.context if name in parts.history_names]
    return VectorUserTower(
        parts.users,
        profile_column_U=_places(parts.columns.user, parts.user_names),
        context_column_F=_places(parts.columns.context, context),
        dim=parts.dim,
        max_history=parts.dims.history_len,
        check_lengths=check_lengths,
    )


def _vector_item_tower(parts: RunParts) -> VectorItemTower:
    return VectorItemTower(
        parts.items,
        attribute_column_I=_places(parts.columns.item, parts.item_names),
        pair_column_H=_places([item for _, item in parts.columns.pairs], parts.item_names),
        dim=parts.dim,
    )


def _stacked(parts: RunParts, names: Sequence[str]) -> StackedTable:
    return stack_tables([parts.schema.feature(name) for name in names], parts.weights, dim=parts.dim)


def _places(names: Sequence[str], among: Sequence[str]) -> torch.Tensor:
    """int64: place of each name, the number of names for one that is not there."""
    places = {name: place for place, name in enumerate(among)}
    return torch.tensor([places.get(name, len(among)) for name in names], dtype=torch.int64)
