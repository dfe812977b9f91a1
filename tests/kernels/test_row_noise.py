"""Philox4x32-10 is the published one; the normals are normal, and belong to their row alone."""

import pytest
import torch
from scipy import stats

from kernels.row_noise import normal_of_rows, philox_words

# known answers: Random123 1.14, examples/kat_vectors, "philox4x32 10"
KNOWN = [
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0_A4093822,
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "seed", "words"), KNOWN)
def test_words_are_the_published_ones(counter, seed, words):
    found = philox_words(tuple(torch.tensor([word]) for word in counter), seed=seed)
    assert tuple(word.item() for word in found) == words


def test_numbers_are_independent_standard_normals():
    noise = normal_of_rows(torch.arange(500), 400, 3)
    assert noise.dtype == torch.float32
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    assert noise.var().item() == pytest.approx(1, abs=0.02)
    for shift in (1, 2, 3, 4):
        assert abs((noise[:, shift:] * noise[:, :-shift]).mean().item()) < 0.01  # neighbours within a row, words of one counter
        assert abs((noise[shift:] * noise[:-shift]).mean().item()) < 0.01  # neighbouring rows


def test_a_rows_numbers_depend_on_no_other_row_and_not_on_how_many_are_drawn():
    whole = normal_of_rows(torch.tensor([5, 9, 2**40 + 5, -1]), 30, 11)
    for row, row_id in enumerate((5, 9, 2**40 + 5, -1)):
        assert torch.equal(normal_of_rows(torch.tensor([row_id]), 30, 11)[0], whole[row])
    for size in (0, 1, 7, 29):
        assert torch.equal(normal_of_rows(torch.tensor([9]), size, 11)[0], whole[1, :size])
    assert len({tuple(row.tolist()) for row in whole}) == 4


def test_blocks_of_the_computation_do_not_show():
    rows = torch.arange(7)
    whole = normal_of_rows(rows, 50, 1)
    for block in (1, 5, 30):
        assert torch.equal(normal_of_rows(rows, 50, 1, block=block), whole)


def test_scripted_noise_is_the_same_bit_by_bit():
    scripted = torch.jit.script(normal_of_rows)
    rows = torch.tensor([0, 7, -1, 2**40 + 5, 2**62])
    for size, seed in ((0, 1), (3, 0), (50, 2**63 - 1), (401, 20_250_401)):
        assert torch.equal(scripted(rows, size, seed), normal_of_rows(rows, size, seed))
    assert scripted(rows[:0], 8, 0).shape == (0, 8)


def test_another_seed_gives_other_numbers():
    rows = torch.arange(3)
    draws = [normal_of_rows(rows, 4, seed) for seed in (0, 1, 2**32, 2**64 - 1)]
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == 4


def test_no_rows_give_no_numbers():
    assert normal_of_rows(torch.zeros(0, dtype=torch.int64), 8, 0).shape == (0, 8)


@pytest.mark.parametrize(
    ("rows", "size", "seed", "message"),
    [
        (torch.zeros(2, dtype=torch.int32), 4, 0, r"row_id_B is torch.int32 of shape \(2,\), expected int64"),
        (torch.zeros(2, 1, dtype=torch.int64), 4, 0, r"shape \(2, 1\)"),
        (torch.zeros(2, dtype=torch.int64), -1, 0, "size=-1"),
        (torch.zeros(2, dtype=torch.int64), 4, -1, "seed=-1"),
        (torch.zeros(2, dtype=torch.int64), 4, 2**64, "0 <= seed < 2\\^64"),
    ],
)
def test_impossible_arguments_are_refused(rows, size, seed, message):
    with pytest.raises(ValueError, match=message):
        normal_of_rows(rows, size, seed)
