"""The generator equals its published definition and is uniform; permutations are permutations."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dataloaders.counter_random import below, fold_key, permutation, random_pairs, random_uint64

# command: splitmix64.c of S. Vigna (public domain) seeded with 1234567, first five outputs
SPLITMIX64_SEED_1234567 = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def test_counters_from_one_are_splitmix64s_stream() -> None:
    assert random_uint64(1234567, np.arange(1, 6)).tolist() == SPLITMIX64_SEED_1234567


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.one_of(st.integers(1, 2**20), st.integers(1, 2**63 - 1)))
def test_below_is_the_high_word_of_the_128_bit_product(numbers: list[int], bound: int) -> None:
    found = below(np.array(numbers, dtype=np.uint64), bound)
    assert found.tolist() == [number * bound >> 64 for number in numbers]


def test_below_is_uniform() -> None:
    found = below(random_pairs(fold_key(7), np.arange(2000), np.arange(10)[:, None]), 37)
    assert found.shape == (10, 2000)
    assert stats.chisquare(np.bincount(found.ravel(), minlength=37)).pvalue > 1e-3


def test_keys_depend_on_every_word_and_their_order() -> None:
    keys = [fold_key(0, 1), fold_key(1, 0), fold_key(0), fold_key(0, 0), fold_key(0, 1, 0), fold_key(-1, 1)]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**64 for key in keys)


def test_permutations_hold_every_number_once_and_look_random() -> None:
    order = permutation(fold_key(5), 10_000)
    assert np.array_equal(np.sort(order), np.arange(10_000))
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05
    assert permutation(fold_key(5), 0).tolist() == []
