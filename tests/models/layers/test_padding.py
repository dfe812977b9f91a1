import pytest
import torch

from models.layers.padding import left_aligned, right_aligned, valid_places

LENGTHS = [[0, 3, 0, 5, 1], [5, 5], [0, 0, 0], [4], []]


def by_loop(value_JX, lengths, max_len):
    rows = value_JX.split(lengths)
    padded = [torch.cat([value_JX.new_zeros(max_len - len(row), value_JX.shape[1]), row]) for row in rows]
    return torch.stack(padded) if padded else value_JX.new_zeros(0, max_len, value_JX.shape[1])


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("width", [0, 1, 3])
def test_rows_fill_their_last_places_and_zeros_the_first(lengths, width):
    for value_JX in (torch.randn(sum(lengths), width), torch.randint(1, 9, (sum(lengths), width))):
        padded_BLX = right_aligned(value_JX, torch.tensor(lengths, dtype=torch.int64), 5)
        assert padded_BLX.dtype == value_JX.dtype
        assert torch.equal(padded_BLX, by_loop(value_JX, lengths, 5))


@pytest.mark.parametrize("lengths", LENGTHS)
def test_left_aligned_rows_fill_their_first_places(lengths):
    value_JX = torch.randn(sum(lengths), 2)
    padded_BLX = left_aligned(value_JX, torch.tensor(lengths, dtype=torch.int64), 5)
    assert padded_BLX.shape == (len(lengths), 5, 2)
    for row_LX, row in zip(padded_BLX, value_JX.split(lengths), strict=True):
        assert torch.equal(row_LX, torch.cat([row, torch.zeros(5 - len(row), 2)]))


@pytest.mark.parametrize("lengths", LENGTHS)
def test_valid_places_are_those_that_hold_a_value(lengths):
    lengths_B = torch.tensor(lengths, dtype=torch.int64)
    padded_BLX = right_aligned(torch.ones(sum(lengths), 1), lengths_B, 5)
    assert torch.equal(valid_places(lengths_B, 5), padded_BLX.squeeze(2) == 1)


def test_each_value_gets_its_places_gradient():
    lengths_B = torch.tensor([2, 0, 3])
    value_JX = torch.randn(5, 2, requires_grad=True)
    weight_BLX = torch.randn(3, 4, 2)
    (right_aligned(value_JX, lengths_B, 4) * weight_BLX).sum().backward()
    assert torch.equal(value_JX.grad, torch.cat([weight_BLX[0, 2:], weight_BLX[2, 1:]]))
