"""The item store: what is kept of every item, as flat little-endian files that a server maps into memory."""

# M items, K candidates, N meta queries, H heads, P vector width

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from models.types import ItemVectors
from trainer.durable_file import write_durably
from trainer.errors import UserError
from trainer.export.signature import IndexType, StoreSignature, VectorType

VECTORS, SCALES, INDEX, QUERIES = "item_vectors.bin", "item_scales.bin", "item_index.bin", "query_group.bin"
_NUMPY = {"float32": "<f4", "float16": "<f2", "int8": "i1", "uint8": "u1", "uint16": "<u2"}
FLOAT16_MAX = 65504.0


class ItemStore(NamedTuple):
    """The items, mapped from the files."""

    signature: StoreSignature
    vectors_MX: np.ndarray
    """[M, H·P] of the store's type."""
    scales_M: np.ndarray | None
    """float32 [M]; int8 only."""
    index_M: np.ndarray | None
    """Query index; None: 0 for every item."""

    def gather(self, items: list[int] | slice) -> ItemVectors:
        """Index int64 [K] and float32 vectors [K, H, P] of these items."""
        vectors = torch.from_numpy(self.vectors_MX[items].astype(np.float32))
        if self.scales_M is not None:
            vectors = vectors * torch.from_numpy(self.scales_M[items].copy()).unsqueeze(1)
        num_items = vectors.shape[0]
        if self.index_M is None:
            index_K = torch.zeros(num_items, dtype=torch.int64)
        else:
            index_K = torch.from_numpy(self.index_M[items].astype(np.int64))
        return ItemVectors(index_K, vectors.reshape(num_items, self.signature.heads, self.signature.width))


def write_store(folder: Path, items: ItemVectors, *, num_queries: int, vector_dtype: VectorType) -> StoreSignature:
    """Write the files of all items, item i in row i.

    Raises:
        UserError: a vector is not finite or too large for float16, or there are more queries than 16 bits can tell apart.
    """
    num_items, heads, width = items.item_BHP.shape
    vectors_MX = items.item_BHP.detach().float().cpu().reshape(num_items, heads * width).numpy()
    _check_vectors(vectors_MX, vector_dtype)
    if vector_dtype == "int8":
        vectors_MX, scale_M = _rounded(vectors_MX)
        write_durably(folder / SCALES, scale_M.astype("<f4").tobytes())
    write_durably(folder / VECTORS, np.ascontiguousarray(vectors_MX.astype(_NUMPY[vector_dtype])).tobytes())
    index_dtype = _index_dtype(num_queries)
    if index_dtype is not None:
        write_durably(folder / INDEX, items.index_B.cpu().numpy().astype(_NUMPY[index_dtype]).tobytes())
    return StoreSignature(
        num_items=num_items,
        num_queries=num_queries,
        heads=heads,
        width=width,
        vector_dtype=vector_dtype,
        index_dtype=index_dtype,
    )


def store_in_memory(items: ItemVectors, *, num_queries: int) -> ItemStore:
    """The store of exact vectors, without files."""
    num_items, heads, width = items.item_BHP.shape
    signature = StoreSignature(
        num_items=num_items,
        num_queries=num_queries,
        heads=heads,
        width=width,
        vector_dtype="float32",
        index_dtype=_index_dtype(num_queries),
    )
    return ItemStore(signature, items.item_BHP.flatten(1).numpy(), None, items.index_B.numpy())


def read_store(folder: Path, signature: StoreSignature) -> ItemStore:
    """Map the files that `write_store` wrote; `manifest.verify` has checked them."""
    num_items, width = signature.num_items, signature.heads * signature.width
    index = signature.index_dtype
    return ItemStore(
        signature,
        np.memmap(folder / VECTORS, dtype=_NUMPY[signature.vector_dtype], mode="r", shape=(num_items, width)),
        np.memmap(folder / SCALES, dtype="<f4", mode="r", shape=(num_items,)) if signature.vector_dtype == "int8" else None,
        np.memmap(folder / INDEX, dtype=_NUMPY[index], mode="r", shape=(num_items,)) if index is not None else None,
    )


def _check_vectors(vectors_MX: np.ndarray, vector_dtype: VectorType) -> None:
    wrong = int((~np.isfinite(vectors_MX)).any(axis=1).sum())
    if wrong:
        raise UserError(f"{wrong} of {len(vectors_MX)} items have a vector that is NaN or infinite; choose another run")
    if vector_dtype == "float16" and len(vectors_MX) and float(np.abs(vectors_MX).max()) > FLOAT16_MAX:
        raise UserError(f"--vectors float16: an item's vector has a number above {FLOAT16_MAX}; use float32 or int8")


def _rounded(vectors_MX: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 rows and the scale of each: the largest number of a row becomes ±127; a row of zeros has scale 0."""
    scale_M = np.abs(vectors_MX).max(axis=1, initial=0.0).astype(np.float32) / np.float32(127)
    divisor_M = np.where(scale_M > 0, scale_M, 1.0).astype(np.float32)
    return np.rint(vectors_MX / divisor_M[:, None]).clip(-127, 127).astype(np.int8), scale_M


def _index_dtype(num_queries: int) -> IndexType | None:
    if num_queries == 1:
        return None
    if num_queries > 2**16:
        raise UserError(f"{num_queries} meta queries need more than 16 bits an item; the store holds at most {2**16}")
    return "uint8" if num_queries <= 2**8 else "uint16"
