import pytest
import torch
from torch import nn

from trainer.precision import run_under_autocast


class Refusing(nn.Module):
    def forward(self, _input):
        raise ValueError("no")


def test_forward_and_backward_run_in_bfloat16_and_parameters_stay_float32():
    module = nn.Linear(8, 4)
    run_under_autocast(module, "cpu")
    output = module(torch.randn(3, 8))
    assert output.dtype == torch.bfloat16
    output.sum().backward()
    assert module.weight.dtype == module.weight.grad.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


def test_autocast_is_left_when_forward_fails():
    module = Refusing()
    run_under_autocast(module, "cpu")
    with pytest.raises(ValueError, match="no"):
        module(torch.ones(1))
    assert not torch.is_autocast_enabled("cpu")


def test_the_state_dict_does_not_change():
    module = nn.Linear(8, 4)
    keys = list(module.state_dict())
    run_under_autocast(module, "cpu")
    assert list(module.state_dict()) == keys
