"""From ids to vectors: the schema's tables as one EmbeddingBagCollection and one EmbeddingCollection."""

# B rows, J history positions of the batch, D width of a position, U and A widths of the pooled user and item features,
# X rows of a block of a table

import hashlib
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_configs import EmbeddingConfig as TableConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dataloaders.schema import Feature, Schema
from models.types import InputDims, ItemInputs, UserInputs


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """Width and start of every embedding table.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    dim: int = 16
    """Embedding dimension of each feature (FIT section 5.1.4)."""
    init_std: float = 0.01
    """Standard deviation of the normal distribution that weights start from."""
    features: tuple[str, ...] | None = None
    """Names of the features to use, a history together with the item feature of its space; None is all."""

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ValueError(f"EmbeddingConfig.dim={self.dim}, expected at least 1")
        if self.init_std <= 0:
            raise ValueError(f"EmbeddingConfig.init_std={self.init_std}, expected more than 0")


INIT_BLOCK_ROWS = 65_536
"""Rows of a table that are drawn from one generator; part of what a seed means: another value, other weights of longer tables."""


@dataclass(frozen=True, kw_only=True)
class TableInit:
    """N(0, std²) for a table's weights, as a function of seed, table and block of rows alone; TorchRec's `init_fn`.

    A table starts the same whatever else the model has and wherever it lives. Each block of INIT_BLOCK_ROWS rows has a generator of
    its own, so that whoever holds a part of a table draws that part alone and finds the same bits.

    Example::

        TableInit(table="t_item", std=0.01).draw_block(0, seed=7, shape=(3_884, 16))
    """

    table: str
    """Name of the table: tables of one shape start differently."""
    std: float
    """Standard deviation of the weights."""

    @torch.no_grad()
    def __call__(self, weight: torch.Tensor) -> None:
        """Fill the whole table `weight` [rows, D] by torch.initial_seed(), block by block; a meta tensor is left alone."""
        if weight.is_meta:
            return
        for block, rows_XD in enumerate(weight.split(INIT_BLOCK_ROWS)):
            rows_XD.copy_(self.draw_block(block, seed=torch.initial_seed(), shape=tuple(weight.shape)))

    def draw_block(self, block: int, *, seed: int, shape: tuple[int, ...]) -> torch.Tensor:
        """Rows block·INIT_BLOCK_ROWS … of a table of `shape` [rows, D], on the CPU; the last block may be shorter."""
        rows = min(INIT_BLOCK_ROWS, shape[0] - block * INIT_BLOCK_ROWS)
        key = seed + zlib.crc32(self.table.encode())
        if block > 0:
            # the first block's key is a plain sum; neighbouring sums are other seeds' tables, so the others are hashed
            key = int.from_bytes(hashlib.sha256(f"{seed}/{self.table}/{block}".encode()).digest()[:8], "big")
        generator = torch.Generator().manual_seed(key % 2**63)
        return torch.normal(0.0, self.std, (rows, *shape[1:]), generator=generator)


class InputColumns(NamedTuple):
    """Which features make up the tensors of UserInputs and ItemInputs, in the order of their columns."""

    user: tuple[str, ...]
    """Of profile_BU."""
    item: tuple[str, ...]
    """Of attributes_BA."""
    pairs: tuple[tuple[str, str], ...]
    """(history, item feature) of history_JD and item_BD."""
    context: tuple[str, ...]
    """Of context_JF."""


class FeatureEmbeddings(nn.Module):
    """Every table of the model and the lookups of a batch.

    `pooled` is an EmbeddingBagCollection over the schema's pooled features (mean of a list's ids), `sequence` an
    EmbeddingCollection over histories and the item features that share a space with one; features of one space share the table
    ``t_<space>``. Either is None when it has no features. Both take the batch's KeyedJaggedTensor as it is (TorchRec picks the
    keys), so they can be sharded and pipelined.

    A history and the item feature of its space are partners (FIT eq. 4): their vectors are compared with each other, and position D
    is the concatenation over the pairs in the order of the histories. The ids of a history without a partner (time lag) are the
    context of its behaviours: they reach the model as they are.

    Args:
        schema: the data's columns.
        config: width and start of the tables, and the features to use.
        device: where the tables live; meta is allowed.

    Raises:
        ValueError: an unknown or repeated feature, one of a pair without the other, or a space that would need a pooled and a
            sequence table (sharding would untie them).

    Example::

        embeddings = FeatureEmbeddings(schema, config=EmbeddingConfig())
        users, items = embeddings(batch.pooled, batch.sequence)
    """

    def __init__(
        self,
        schema: Schema,
        *,
        config: EmbeddingConfig,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        pairs = _pairs(schema)
        chosen = _chosen(schema, pairs, config.features)
        paired = {name for pair in pairs for name in pair}
        pooled = [feature for feature in schema.pooled_features if feature.name in chosen]
        sequence = [feature for feature in schema.sequence_features if feature.name in chosen & paired]
        shared = sorted({feature.space for feature in pooled} & {feature.space for feature in sequence})
        if shared:
            raise ValueError(
                f"schema {schema.name!r}: id spaces {shared} are used by pooled and by sequence features "
                f"({[f.name for f in (*pooled, *sequence) if f.space in shared]}); that would be two tables which sharding unties: "
                "give the pooled features a space of their own, or leave them out"
            )
        self._user_names = [feature.name for feature in pooled if feature.side == "user"]
        self._item_names = [feature.name for feature in pooled if feature.side == "item"]
        self._pairs = [(history, item) for history, item in pairs if history in chosen]
        context = [f for f in schema.side("history") if f.name in chosen - paired] if self._pairs else []
        self._context_names = [feature.name for feature in context]
        device = device or torch.device("cpu")
        # what follows, the dense layers, starts the same wherever the tables live
        with torch.random.fork_rng(devices=[]):
            self.pooled = EmbeddingBagCollection(tables=_pooled_tables(pooled, config), device=device) if pooled else None
            self.sequence = EmbeddingCollection(tables=_sequence_tables(sequence, config), device=device) if sequence else None
        _advance_generator([*pooled, *sequence], config)
        self.dims = InputDims(
            profile=config.dim * len(self._user_names),
            attributes=config.dim * len(self._item_names),
            position=config.dim * len(self._pairs),
            history_len=max((f.max_len for f in sequence if f.side == "history"), default=0),
            context=tuple((feature.name, feature.vocab_size) for feature in context),
            profile_fields=tuple((name, config.dim) for name in self._user_names),
            attribute_fields=tuple((name, config.dim) for name in self._item_names),
            position_fields=tuple((name, config.dim) for _, name in self._pairs),
        )

    def forward(self, pooled: KeyedJaggedTensor, sequence: KeyedJaggedTensor) -> tuple[UserInputs, ItemInputs]:
        """Look up a batch's ids; both arguments go straight from the batch into TorchRec's modules (the pipeline relies on it).

        Args:
            pooled: keys at least the pooled features.
            sequence: keys at least the histories and their partners.

        Returns:
            What the two towers see.
        """
        vectors = self.pooled(pooled) if self.pooled is not None else {}
        if self.sequence is not None:
            jagged = self.sequence(sequence)
            history_JD = _concat([jagged[history].values() for history, _ in self._pairs])
            item_BD = _concat([jagged[item].values() for _, item in self._pairs])
            lengths_B = jagged[self._pairs[0][0]].lengths().long()
        else:
            lengths_B = pooled.lengths().new_zeros(pooled.stride(), dtype=torch.int64)
            item_BD = lengths_B.new_zeros((pooled.stride(), 0), dtype=torch.float32)
            history_JD = item_BD[:0]
        no_feature_B0 = item_BD[:, :0]
        profile_BU = _concat([vectors[name] for name in self._user_names]) if self._user_names else no_feature_B0
        attributes_BA = _concat([vectors[name] for name in self._item_names]) if self._item_names else no_feature_B0
        users = UserInputs(profile_BU, history_JD, lengths_B, self._context(sequence, history_JD))
        return users, ItemInputs(attributes_BA, item_BD)

    @property
    def columns(self) -> InputColumns:
        """The features behind each tensor that `forward` returns."""
        return InputColumns(tuple(self._user_names), tuple(self._item_names), tuple(self._pairs), tuple(self._context_names))

    def history_of(self, item: str) -> str:
        """The history that the item feature `item` is compared with; ValueError where there is none."""
        for history, partner in self._pairs:
            if partner == item:
                return history
        raise ValueError(f"item feature {item!r} shares its id space with no history; matching models compare the two")

    def _context(self, sequence: KeyedJaggedTensor, history_JD: torch.Tensor) -> torch.Tensor:
        """int64 [J, F]."""
        if not self._context_names:
            return history_JD[:, :0].long()
        return torch.stack([sequence[name].values() for name in self._context_names], dim=1)


def _concat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=1)


def _pairs(schema: Schema) -> list[tuple[str, str]]:
    """(history, item) feature names that share a space, in the order of the histories."""
    pairs = []
    for history in schema.side("history"):
        partners = [f.name for f in schema.side("item") if f.space == history.space and not f.is_list]
        if len(partners) > 1:
            raise ValueError(
                f"schema {schema.name!r}: history {history.name!r} has several item features in its space {history.space!r}: "
                f"{partners}; expected one, the attribute of the target that the history's ids are compared with"
            )
        pairs += [(history.name, partner) for partner in partners]
    return pairs


def _chosen(schema: Schema, pairs: list[tuple[str, str]], features: tuple[str, ...] | None) -> frozenset[str]:
    """Names of the features to look up, checked."""
    known = [f.name for f in schema.features]
    chosen = known if features is None else list(features)
    unknown = sorted(set(chosen) - set(known))
    if unknown or len(set(chosen)) < len(chosen) or not chosen:
        raise ValueError(f"features={features}, expected distinct names out of {known}")
    lonely = [name for pair in pairs for name in pair if len(set(pair) & set(chosen)) == 1 and name in chosen]
    if features is not None and not {name for pair in pairs for name in pair} & set(chosen):
        lonely += [feature.name for feature in schema.side("history") if feature.name in chosen]
    if lonely:
        raise ValueError(
            f"schema {schema.name!r}: {sorted(lonely)} would be looked up without a partner; a history and the item feature "
            f"of its space come together: {pairs}"
        )
    return frozenset(chosen)


def _by_space(features: list[Feature]) -> dict[str, list[Feature]]:
    spaces: dict[str, list[Feature]] = {}
    for feature in features:
        spaces.setdefault(feature.space, []).append(feature)
    return spaces


def _advance_generator(features: list[Feature], config: EmbeddingConfig) -> None:
    """Draw from the default generator what nn.Embedding and nn.EmbeddingBag draw on the CPU before TableInit overwrites it.

    Part of what a seed means for the dense layers, as in runs whose tables were built on the CPU; longer tables count as one block.
    """
    for group in _by_space(features).values():
        torch.empty(min(group[0].vocab_size, INIT_BLOCK_ROWS), config.dim).normal_()


def _pooled_tables(features: list[Feature], config: EmbeddingConfig) -> list[EmbeddingBagConfig]:
    return [
        EmbeddingBagConfig(
            name=group[0].table,
            num_embeddings=group[0].vocab_size,
            embedding_dim=config.dim,
            feature_names=[feature.name for feature in group],
            pooling=PoolingType.MEAN,
            init_fn=TableInit(table=group[0].table, std=config.init_std),
        )
        for group in _by_space(features).values()
    ]


def _sequence_tables(features: list[Feature], config: EmbeddingConfig) -> list[TableConfig]:
    return [
        TableConfig(
            name=group[0].table,
            num_embeddings=group[0].vocab_size,
            embedding_dim=config.dim,
            feature_names=[feature.name for feature in group],
            init_fn=TableInit(table=group[0].table, std=config.init_std),
        )
        for group in _by_space(features).values()
    ]
