from pathlib import Path

import numpy as np
import pytest
import torch

from models.types import ItemVectors
from trainer.errors import UserError
from trainer.export.item_store import read_store, store_in_memory, write_store
from trainer.export.signature import VectorType


def items(num_items: int = 300, num_queries: int = 7) -> ItemVectors:
    """Random vectors of very different lengths, one of them 0."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(num_items, 2, 5, generator=generator) * torch.logspace(-4, 3, num_items)[:, None, None]
    vectors[3] = 0
    return ItemVectors(torch.randint(num_queries, (num_items,), generator=generator), vectors)


def test_float32_items_come_back_bit_by_bit(tmp_path: Path) -> None:
    written = items()
    store = read_store(tmp_path, write_store(tmp_path, written, num_queries=7, vector_dtype="float32"))
    for chosen in (slice(None), [5, 0, 299, 5]):
        for found in (store.gather(chosen), store_in_memory(written, num_queries=7).gather(chosen)):
            assert torch.equal(found.index_B, written.index_B[chosen])
            assert torch.equal(found.item_BHP, written.item_BHP[chosen])
    assert store.gather([]).item_BHP.shape == (0, 2, 5)


def test_float16_items_err_by_half_a_unit_in_the_last_place(tmp_path: Path) -> None:
    written = items()
    found = read_store(tmp_path, write_store(tmp_path, written, num_queries=7, vector_dtype="float16")).gather(slice(None))
    assert torch.equal(found.item_BHP, written.item_BHP.half().float())
    assert not torch.equal(found.item_BHP, written.item_BHP)


def test_int8_items_err_by_half_a_step_of_their_own_scale(tmp_path: Path) -> None:
    written = items()
    store = read_store(tmp_path, write_store(tmp_path, written, num_queries=7, vector_dtype="int8"))
    error = (store.gather(slice(None)).item_BHP - written.item_BHP).abs().amax((1, 2))
    step = written.item_BHP.abs().amax((1, 2)) / 127
    assert bool((error <= 0.5001 * step).all())
    assert bool((error[4:] > 0).all())
    assert torch.equal(store.gather([3]).item_BHP, torch.zeros(1, 2, 5))
    assert store.vectors_MX.min() == -127 or store.vectors_MX.max() == 127


@pytest.mark.parametrize(("num_queries", "dtype", "size"), [(1, None, 0), (2, "uint8", 1), (256, "uint8", 1), (257, "uint16", 2)])
def test_an_index_takes_as_many_bytes_as_the_queries_need(tmp_path: Path, num_queries: int, dtype: str | None, size: int) -> None:
    written = ItemVectors(torch.arange(num_queries), torch.ones(num_queries, 1, 3))
    signature = write_store(tmp_path, written, num_queries=num_queries, vector_dtype="float32")
    assert signature.index_dtype == dtype
    assert signature.bytes_per_item == 12 + size
    assert torch.equal(read_store(tmp_path, signature).gather(slice(None)).index_B, torch.arange(num_queries))


@pytest.mark.parametrize("vectors", ["float32", "float16", "int8"])
def test_the_storage_of_an_item_is_what_the_files_hold(tmp_path: Path, vectors: VectorType) -> None:
    signature = write_store(tmp_path, items(), num_queries=7, vector_dtype=vectors)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 300 * signature.bytes_per_item


def test_files_are_little_endian_rows_in_the_order_of_the_ids(tmp_path: Path) -> None:
    written = items()
    write_store(tmp_path, written, num_queries=7, vector_dtype="float32")
    raw = (tmp_path / "item_vectors.bin").read_bytes()
    assert np.array_equal(np.frombuffer(raw[40 * 17 : 40 * 18], dtype="<f4"), written.item_BHP[17].flatten().numpy())


def test_what_a_store_cannot_hold_is_refused(tmp_path: Path) -> None:
    broken = items()
    broken.item_BHP[8, 1, 2] = float("nan")
    with pytest.raises(UserError, match="1 of 300 items have a vector that is NaN"):
        write_store(tmp_path, broken, num_queries=7, vector_dtype="int8")
    large = items()
    large.item_BHP[9] = 70_000.0
    with pytest.raises(UserError, match=r"--vectors float16: .* 65504"):
        write_store(tmp_path, large, num_queries=7, vector_dtype="float16")
    with pytest.raises(UserError, match="more than 16 bits"):
        write_store(tmp_path, items(), num_queries=2**16 + 1, vector_dtype="float32")
