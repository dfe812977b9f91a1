"""Two models, or two forms of one, measured on the same rows: how far apart they are, and how sure that is."""

import math
from typing import NamedTuple

import torch

SIGNIFICANT = 1.96
"""Standard errors: two-sided p < 0.05."""


class Difference(NamedTuple):
    """First minus second."""

    value: float
    standard_error: float
    """Of the value over samples of rows; it knows nothing of how training differs from seed to seed."""

    @property
    def z(self) -> float:
        """Standard errors from 0; 0 where the two do not differ at all."""
        if self.standard_error == 0:
            return math.copysign(math.inf, self.value) if self.value else 0.0
        return self.value / self.standard_error


def mean_difference(first_R: torch.Tensor, second_R: torch.Tensor) -> Difference:
    """Mean of the first minus mean of the second, float64 [R] values of the same rows, with the paired standard error.

    What is hard for both cancels, which makes it far sharper than two errors that know nothing of each other. One row knows no
    error: infinity.
    """
    difference_R = first_R - second_R
    error = float(difference_R.std()) / math.sqrt(len(difference_R)) if len(difference_R) > 1 else math.inf
    return Difference(float(difference_R.mean()), error)
