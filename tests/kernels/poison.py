"""Memory that is not written is NaN, so that what a kernel leaves out cannot look right."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """New tensors without values, from torch.empty and its like, hold NaN (integers their largest number) inside this."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]
