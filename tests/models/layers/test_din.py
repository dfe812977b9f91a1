import pytest
import torch

from kernels.target_attention import dice_gate
from models.layers.din import DinUnit, mean_pool
from tests.models.synthetic import random_statistics


def concatenated(unit, history_JD, lengths_B, query_BD):
    """Eq. 19 through the unit's own modules on the concatenated input."""
    query_JD = query_BD.repeat_interleave(lengths_B, dim=0)
    hidden = torch.cat([history_JD, query_JD, history_JD - query_JD, history_JD * query_JD], dim=1)
    hidden = unit.dice1(hidden @ unit.weight1_C4D.t() + unit.bias1_C)
    weight_J1 = unit.linear3(unit.dice2(unit.linear2(hidden)))
    return torch.stack([part.sum(0) for part in (weight_J1 * history_JD).split(lengths_B.tolist())])


@pytest.mark.parametrize("training", [True, False])
def test_unit_equals_its_modules_on_the_concatenated_input(training):
    torch.manual_seed(0)
    unit = random_statistics(DinUnit(6)).train(training)
    history_JD, lengths_B, query_BD = torch.randn(9, 6), torch.tensor([4, 0, 5]), torch.randn(3, 6)
    torch.testing.assert_close(
        unit(history_JD, lengths_B, query_BD), concatenated(unit, history_JD, lengths_B, query_BD), atol=1e-5, rtol=1e-5
    )


def test_evaluation_uses_the_statistics_that_training_left():
    torch.manual_seed(0)
    unit = DinUnit(4)
    history_JD, lengths_B, query_BD = torch.randn(30, 4), torch.tensor([10, 20]), torch.randn(2, 4)
    for _ in range(200):
        trained = unit(history_JD, lengths_B, query_BD)
    # running variances are unbiased, batch variances are not: n = 30
    torch.testing.assert_close(unit.eval()(history_JD, lengths_B, query_BD), trained, atol=0.02, rtol=0.05)


def test_first_layer_keeps_the_standard_layout():
    unit = DinUnit(5, hidden_dims=(7, 3))
    assert unit.weight1_C4D.shape == (7, 20)
    assert {name for name, _ in unit.named_buffers() if "running" in name} == {
        "dice1.norm.running_mean",
        "dice1.norm.running_var",
        "dice2.norm.running_mean",
        "dice2.norm.running_var",
    }


def test_mean_pool_averages_each_history_and_gives_zero_for_none():
    history_JD = torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 5.0]])
    assert mean_pool(history_JD, torch.tensor([2, 0, 1])).tolist() == [[2.0, 4.0], [0.0, 0.0], [5.0, 5.0]]
    assert mean_pool(history_JD[:0], torch.tensor([0])).tolist() == [[0.0, 0.0]]


def test_mismatched_gate_shapes_are_refused():
    with pytest.raises(ValueError, match=r"expected \[X, C\], \[X, C\] and \[C\]"):
        dice_gate(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2))
