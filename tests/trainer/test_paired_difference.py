import math

import pytest
import torch

from trainer.paired_difference import Difference, mean_difference


def test_what_both_find_hard_cancels():
    first = torch.tensor([1.0, 0.0] * 50, dtype=torch.float64)
    second = first.clone()
    second[:10] = 0
    difference = mean_difference(first, second)
    assert difference.value == pytest.approx(0.05)
    unpaired = math.sqrt(first.var().item() / 100 + second.var().item() / 100)
    assert 0 < difference.standard_error < 0.5 * unpaired
    assert difference.z == pytest.approx(0.05 / difference.standard_error)


@pytest.mark.parametrize(("value", "z"), [(0.0, 0.0), (0.1, math.inf), (-0.1, -math.inf)])
def test_without_any_spread_a_difference_is_none_or_beyond_doubt(value: float, z: float):
    assert Difference(value, 0.0).z == z
