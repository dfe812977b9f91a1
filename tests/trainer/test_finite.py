import pytest
import torch
from torch import nn

from trainer.finite import weights_are_finite
from trainer.process_group import distributed


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_bad_value_in_a_weight_or_a_buffer_is_seen(value):
    with distributed("cpu") as ranks:
        module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        assert weights_are_finite(module, ranks=ranks)
        module[1].running_var[1] = value
        assert not weights_are_finite(module, ranks=ranks)
        module[1].running_var[1] = 1.0
        with torch.no_grad():
            module[0].weight[2, 2] = value
        assert not weights_are_finite(module, ranks=ranks)
