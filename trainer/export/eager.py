"""A run's own modules, asked as a server is asked: the truth that an artefact is compared with."""

# B requests, M items, U user features, J history positions, N meta queries, H heads, P vector width

from collections.abc import Sequence

import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dataloaders.batch import Catalogue
from dataloaders.schema import Feature
from kernels.row_noise import normal_of_rows
from models.types import ItemInputs, ItemVectors
from trainer.export.requests import Request
from trainer.export.run_parts import RunParts

ITEMS_AT_ONCE = 8192


@torch.no_grad()
def eager_users(parts: RunParts, requests: Sequence[Request]) -> torch.Tensor:
    """[B, N, H_u, P] through TorchRec's tables and the model in Python; what a request does not give is no input: empty or 0."""
    schema = parts.schema
    pooled = _keyed(schema.pooled_features, [_given(feature, requests) for feature in schema.pooled_features])
    sequence = _keyed(schema.sequence_features, [_given(feature, requests) for feature in schema.sequence_features])
    users, _ = parts.embeddings(pooled, sequence)
    row_id_B = torch.tensor([request.get("row_id", 0) for request in requests], dtype=torch.int64)
    return parts.users(users, normal_of_rows(row_id_B, parts.noise_size, parts.seed))


@torch.no_grad()
def eager_items(parts: RunParts, catalogue: Catalogue) -> ItemVectors:
    """Index [M] and vectors [M, H_v, P] of the whole catalogue: the offline pass of FIT section 4.3.2."""
    _, items = parts.embeddings(catalogue.pooled, catalogue.sequence)
    chunks = [
        parts.items(ItemInputs(attributes_XA, item_XD))
        for attributes_XA, item_XD in zip(items.attributes_BA.split(ITEMS_AT_ONCE), items.item_BD.split(ITEMS_AT_ONCE), strict=True)
    ]
    return ItemVectors(torch.cat([chunk.index_B for chunk in chunks]), torch.cat([chunk.item_BHP for chunk in chunks]))


def item_tensors(parts: RunParts, catalogue: Catalogue, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Items [start, stop) as ItemTower takes them: values int64 [X] and lengths int64 [I, stop - start]."""
    values, lengths = [], []
    for name in parts.item_names:
        keyed = catalogue.pooled if name in catalogue.pooled.keys() else catalogue.sequence  # noqa: SIM118  (no dict)
        jagged = keyed[name]
        offset = jagged.offsets().long()
        values.append(jagged.values()[int(offset[start]) : int(offset[stop])])
        lengths.append(jagged.lengths()[start:stop].long())
    return torch.cat(values), torch.stack(lengths)


def _given(feature: Feature, requests: Sequence[Request]) -> list[list[int]]:
    """Each request's ids of a feature."""
    if feature.side == "item":  # rows have an item, whichever; the users' vectors don't depend on it
        return [[0]] * len(requests) if feature.min_len else [[]] * len(requests)
    if feature.side == "user":
        given = [request["user"].get(feature.name, []) for request in requests]
        return [ids if isinstance(ids, list) else [ids] for ids in given]
    # histories are aligned: one that is no input still has an id per behaviour
    lengths = [max(map(len, request["history"].values()), default=0) for request in requests]
    return [request["history"].get(feature.name, [0] * length) for request, length in zip(requests, lengths, strict=True)]


def _keyed(features: Sequence[Feature], rows: list[list[list[int]]]) -> KeyedJaggedTensor:
    """The ids of each feature and request."""
    stride = len(rows[0]) if rows else 0
    return KeyedJaggedTensor(
        keys=[feature.name for feature in features],
        values=torch.tensor([number for ids in rows for row in ids for number in row], dtype=torch.int64),
        lengths=torch.tensor([len(row) for ids in rows for row in ids], dtype=torch.int32),
        stride=stride,
    )
