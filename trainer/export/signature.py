"""What an artefact's towers take and give: the part of the manifest that a server reads before it calls them."""

from dataclasses import dataclass
from typing import Literal

Task = Literal["pre_ranking", "matching"]
TableForm = Literal["inside", "quantised", "outside"]
VectorType = Literal["float32", "float16", "int8"]
IndexType = Literal["uint8", "uint16"]
StoreContent = Literal["vectors", "inputs"]
Layout = Literal["plain", "triton"]
PackageDevice = Literal["cpu", "cuda"]
ModuleForm = Literal["torchscript", "aoti"]


@dataclass(frozen=True, kw_only=True)
class InputFeature:
    """A feature that a request must give."""

    name: str
    """As in schema.json."""
    vocab_size: int
    """Ids are in [0, vocab_size)."""
    max_len: int
    """Most ids of a row."""
    min_len: int
    """Fewest ids of a row."""
    is_list: bool
    """Whether a request gives a list, or one number."""
    table: str | None
    """Embedding table, for tables outside; None: the model takes the ids themselves."""


@dataclass(frozen=True, kw_only=True)
class UserSignature:
    """Input and output of the user tower."""

    features: tuple[InputFeature, ...]
    """Of the user, in the order of user_lengths' rows."""
    history: tuple[InputFeature, ...]
    """Of the history, in the order of history_values' rows; all of a row have one length."""
    noise_size: int
    """X: standard normal numbers that a row takes; 0 for a model without noise."""
    seed: int
    """Of the noise where the tower draws it itself."""
    num_queries: int
    """N: vectors of a user; 1 without meta queries."""
    heads: int
    """H_u."""
    width: int
    """P of the user's vectors."""


@dataclass(frozen=True, kw_only=True)
class ItemSignature:
    """Input of the item tower, for items that are added later."""

    features: tuple[InputFeature, ...]
    """In the order of item_lengths' rows."""


@dataclass(frozen=True, kw_only=True)
class StoreSignature:
    """The item store's files."""

    num_items: int
    """M: row i describes item id i."""
    num_queries: int
    """N: indices are in [0, N)."""
    heads: int
    """H_v."""
    width: int
    """P of the item's vectors."""
    vector_dtype: VectorType
    """Of item_vectors.bin [M, H_v·P]; int8 comes with item_scales.bin."""
    index_dtype: IndexType | None
    """Of item_index.bin [M]; None: every index is 0 and there is no such file."""
    holds: StoreContent = "vectors"
    """`vectors` of the item tower; `inputs`, looked up, of a model without towers, whose whole network is the scorer."""
    max_score_error: float = 0.0
    """Largest |score − score of the float model| over the golden requests: what quantised tables and vectors cost."""

    @property
    def bytes_per_item(self) -> float:
        """Storage of one item."""
        vector = {"float32": 4, "float16": 2, "int8": 1}[self.vector_dtype] * self.heads * self.width
        scale = 4 if self.vector_dtype == "int8" else 0
        return vector + scale + {"uint8": 1, "uint16": 2, None: 0}[self.index_dtype]
