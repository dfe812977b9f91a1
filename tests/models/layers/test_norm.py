import copy

import pytest
import torch
from torch import nn

from models.layers.norm import BatchNorm, Dice


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_equals_torch_in_training_and_evaluation(affine):
    ours, theirs = BatchNorm(4, affine=affine), nn.BatchNorm1d(4, affine=affine)
    for seed in range(3):
        rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(seed)) + seed
        torch.testing.assert_close(ours(rows), theirs(rows))
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours.eval()(rows), theirs.eval()(rows))
    assert ours.num_batches_tracked == 3


@pytest.mark.parametrize("num_rows", [0, 1])
def test_too_few_rows_are_normalised_by_running_statistics_and_leave_them_alone(num_rows):
    norm = BatchNorm(3)
    norm(torch.randn(10, 3) * 2 + 1)
    before = copy.deepcopy(norm.state_dict())
    rows = torch.randn(num_rows, 3, requires_grad=True)
    trained = norm(rows)
    trained.sum().backward()
    assert rows.grad.shape == rows.shape
    for name, tensor in norm.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    torch.testing.assert_close(trained, norm.eval()(rows))


def test_dice_is_the_papers_formula():
    torch.manual_seed(0)
    dice = Dice(3)
    dice.alpha_C.data.uniform_(0, 1)
    rows = torch.randn(50, 3) * 3 - 1
    gate = torch.sigmoid((rows - rows.mean(0)) / torch.sqrt(rows.var(0, correction=0) + 1e-8))
    torch.testing.assert_close(dice(rows), gate * rows + (1 - gate) * dice.alpha_C * rows)
    gate = torch.sigmoid((rows - dice.norm.running_mean) / torch.sqrt(dice.norm.running_var + 1e-8))
    torch.testing.assert_close(dice.eval()(rows), gate * rows + (1 - gate) * dice.alpha_C * rows)


def test_dice_with_slope_one_is_the_identity():
    dice = Dice(3)
    nn.init.ones_(dice.alpha_C)
    rows = torch.randn(20, 3)
    torch.testing.assert_close(dice(rows), rows)


def test_dice_off_the_meta_device_starts_with_unit_variance():
    dice = Dice(3, device=torch.device("meta")).to_empty(device="cpu")
    dice.reset_parameters()
    assert dice.norm.running_var.tolist() == [1.0] * 3
    assert dice.norm.running_mean.tolist() == dice.alpha_C.tolist() == [0.0] * 3
