"""The reverse process step by step, its launches captured as CUDA graphs: what the fused kernel must beat."""

# B rows, L positions, D width, N noise tensors

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from kernels.cuda_graph import captured

Reverse = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(condition [B, L, D], valid [B, L], noise [B, N, L, D]) -> [B, D]."""
Capture = Callable[[Callable[[], torch.Tensor]], Callable[[], torch.Tensor]]


class _Bucket(NamedTuple):
    """A graph and the memory that it reads."""

    condition_BLD: torch.Tensor
    valid_BL: torch.Tensor
    noise_BNLD: torch.Tensor
    replay: Callable[[], torch.Tensor]


class GraphedReverse:
    """A reverse process for batches of any size, by graphs of a few sizes, each captured when it is first needed.

    A batch takes the smallest size that holds it; one that none holds is cut into parts of the largest. Rows that fill up a size
    are computed and thrown away.

    Args:
        reverse: what is captured; its rows must not depend on each other.
        sizes: batch sizes of the graphs.
        capture: makes a replay of a call; without a GPU there is no `captured`.

    Raises:
        ValueError: sizes are not positive, or there are none.

    Example::

        reverse = GraphedReverse(module.sample, sizes=(1, 8, 64, 512))
        predicted_BD = reverse(history_BLD, valid_BL, noise_BNLD)
    """

    def __init__(self, reverse: Reverse, *, sizes: Sequence[int], capture: Capture = captured) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError(f"GraphedReverse(sizes={tuple(sizes)}), expected at least one size, each at least 1")
        self._reverse, self._capture = reverse, capture
        self._sizes = sorted(set(sizes))
        self._buckets: dict[tuple[int, torch.Size], _Bucket] = {}

    def __call__(self, condition_BLD: torch.Tensor, valid_BL: torch.Tensor, noise_BNLD: torch.Tensor) -> torch.Tensor:
        """What `reverse` gives, [B, D]."""
        largest = self._sizes[-1]
        parts = zip(condition_BLD.split(largest), valid_BL.split(largest), noise_BNLD.split(largest), strict=True)
        return torch.cat([self._run(*part) for part in parts])

    def _run(self, condition_BLD: torch.Tensor, valid_BL: torch.Tensor, noise_BNLD: torch.Tensor) -> torch.Tensor:
        num_rows = condition_BLD.shape[0]
        size = next(size for size in self._sizes if size >= num_rows)
        key = (size, noise_BNLD.shape[1:])
        if key not in self._buckets:
            self._buckets[key] = self._captured(size, condition_BLD, valid_BL, noise_BNLD)
        bucket = self._buckets[key]
        bucket.condition_BLD[:num_rows].copy_(condition_BLD)
        bucket.valid_BL[:num_rows].copy_(valid_BL)
        bucket.noise_BNLD[:num_rows].copy_(noise_BNLD)
        return bucket.replay()[:num_rows].clone()

    def _captured(self, size: int, *like: torch.Tensor) -> _Bucket:
        condition_BLD, valid_BL, noise_BNLD = (tensor.new_zeros(size, *tensor.shape[1:]) for tensor in like)
        replay = self._capture(lambda: self._reverse(condition_BLD, valid_BL, noise_BNLD))
        return _Bucket(condition_BLD, valid_BL, noise_BNLD, replay)
