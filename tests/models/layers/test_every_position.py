import pytest
import torch

from models.layers.every_position import at_every_position


@pytest.mark.parametrize("lengths", [[0, 3, 0, 2, 1, 0], [1, 1], [0, 0], [4], [], [2, 0]])
def test_every_behaviour_but_a_rows_first_is_found_by_the_output_before_it(lengths):
    output_JC = torch.randn(sum(lengths), 3)
    user_BC = torch.randn(len(lengths), 3)
    out = at_every_position(user_BC, output_JC, torch.tensor(lengths, dtype=torch.int64))
    starts = [sum(lengths[:row]) for row in range(len(lengths))]
    places = [start + step for start, length in zip(starts, lengths, strict=True) for step in range(1, length)]
    assert out.cloze_place_X.tolist() == places
    assert torch.equal(out.cloze_XC, output_JC[torch.tensor(places, dtype=torch.int64) - 1])
    assert torch.equal(out.cloze_weight_X, torch.ones(len(places)))
    assert torch.equal(out.user_BC, user_BC)
    assert torch.equal(out.auxiliary_B, torch.zeros(len(lengths)))


def test_it_scripts():
    given = (torch.randn(3, 2), torch.randn(5, 2), torch.tensor([2, 0, 3]))
    for actual, expected in zip(torch.jit.script(at_every_position)(*given), at_every_position(*given), strict=True):
        assert torch.equal(actual, expected)
