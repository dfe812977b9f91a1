import pytest
import torch

from trainer.export.lookups import PooledLookup, SequenceLookup, StackedTable, rounded_to_bytes, stack_tables
from trainer.export.signature import InputFeature

WEIGHTS = {"t_a": torch.randn(10, 4, generator=torch.Generator().manual_seed(0)), "t_b": torch.linspace(-2, 3, 12).reshape(3, 4)}


def feature(name: str, table: str) -> InputFeature:
    return InputFeature(name=name, vocab_size=len(WEIGHTS[table]), max_len=9, min_len=0, is_list=True, table=table)


def stacked() -> StackedTable:
    """Three features, the first and the last of which share a table."""
    return stack_tables([feature("x", "t_a"), feature("y", "t_b"), feature("z", "t_a")], WEIGHTS, dim=4)


BAGS = [[[1, 2, 2], [], [9]], [[0], [2, 1], [0, 0]], [[], [3], [4, 5]]]
"""Feature, row, ids."""
VALUES = torch.tensor([number for rows in BAGS for bag in rows for number in bag])
LENGTHS = torch.tensor([[len(bag) for bag in rows] for rows in BAGS])


def expected_means(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    tables = (weights["t_a"], weights["t_b"], weights["t_a"])
    rows = [[table[bag].mean(0) if bag else torch.zeros(4) for bag in bags] for table, bags in zip(tables, BAGS, strict=True)]
    return torch.stack([torch.stack(row) for row in rows]).transpose(0, 1)


def test_shared_tables_are_stacked_once() -> None:
    assert stacked().weight_RD.shape == (13, 4)
    assert stacked().first_row_U.tolist() == [0, 10, 0]


@pytest.mark.parametrize("quantised", [False, True])
def test_pooled_vectors_are_the_means_of_the_bags_and_0_for_empty_ones(quantised: bool) -> None:
    lookup = PooledLookup(stacked(), quantised=quantised, check_ids=True)
    weights = {name: rounded_to_bytes(weight) for name, weight in WEIGHTS.items()} if quantised else WEIGHTS
    for module in (lookup, torch.jit.script(lookup)):
        torch.testing.assert_close(module(VALUES, LENGTHS), expected_means(weights), atol=1e-6, rtol=0)


@pytest.mark.parametrize("quantised", [False, True])
def test_sequences_are_the_features_rows_side_by_side(quantised: bool) -> None:
    lookup = SequenceLookup(stacked(), quantised=quantised, check_ids=True)
    weights = {name: rounded_to_bytes(weight) for name, weight in WEIGHTS.items()} if quantised else WEIGHTS
    ids = torch.tensor([[1, 9], [2, 0], [3, 3]])
    expected = torch.cat([weights["t_a"][ids[0]], weights["t_b"][ids[1]], weights["t_a"][ids[2]]], dim=1)
    for module in (lookup, torch.jit.script(lookup)):
        torch.testing.assert_close(module(ids), expected, atol=1e-6, rtol=0)
        assert module(ids[:, :0]).shape == (0, 12)


def test_8_bits_err_by_half_a_step_between_a_rows_least_and_largest_number() -> None:
    for weight in WEIGHTS.values():
        step = (weight.amax(1) - weight.amin(1)) / 255
        error = (rounded_to_bytes(weight) - weight).abs().amax(1)
        assert bool((error <= 0.51 * step).all())
        assert bool((error > 0).any())


@pytest.mark.parametrize(("place", "value"), [(0, 10), (0, -1), (4, 3), (8, 12)])
def test_an_id_of_the_next_features_rows_is_refused(place: int, value: int) -> None:
    values = VALUES.clone()
    values[place] = value
    with pytest.raises(ValueError, match="outside its feature's vocabulary"):
        PooledLookup(stacked(), quantised=False, check_ids=True)(values, LENGTHS)


def test_a_history_id_of_the_next_features_rows_is_refused() -> None:
    lookup = SequenceLookup(stacked(), quantised=False, check_ids=True)
    for row, value in ((0, 10), (1, 3), (2, -1)):
        ids = torch.zeros(3, 2, dtype=torch.int64)
        ids[row, 1] = value
        with pytest.raises(ValueError, match="an id of a history is outside"):
            lookup(ids)


def test_no_features_are_no_columns() -> None:
    empty = stack_tables([], WEIGHTS, dim=4)
    none = torch.zeros(0, dtype=torch.int64)
    pooled = PooledLookup(empty, quantised=False, check_ids=True)
    assert torch.jit.script(pooled)(none, torch.zeros(0, 5, dtype=torch.int64)).shape == (5, 0, 4)
    assert SequenceLookup(empty, quantised=True, check_ids=True)(none.reshape(0, 0)).shape == (0, 0)
