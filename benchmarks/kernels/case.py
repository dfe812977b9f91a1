"""What `python -m benchmarks.kernels.run` is told of an operator and its cases."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

Shapes = Literal["paper", "large"]
"""`paper`: what the papers serve; `large`: what a large platform would."""
Precision = Literal["float32", "tf32", "float16", "bfloat16"]
Tensors = tuple[torch.Tensor, ...]
Call = Callable[[], Tensors]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a case cannot do without, counted from its shapes."""

    num_bytes: int
    """Read from and written to the device's memory: each input and each output once."""
    flops: int
    """Of the matrix products, two for each multiplication and addition."""
    precision: Precision
    """Of the matrix products' operands."""
    num_programs: int | None = None
    """Most multiprocessors that can share the work; None where there are always enough."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operator at one shape, its inputs ready on the device; each call computes the same tensors (or their gradients)."""

    label: str
    """The shape in words, unique within the operator."""
    work: Work
    reference: Call
    """Plain PyTorch."""
    kernel: Call
    """The Triton kernel."""
    tolerance: float
    """Largest error of the kernel that passes, over the largest magnitude of the same tensor of the reference."""
    compiled: Call | None = None
    """What is timed as torch.compile; None compiles `reference` whole."""
    graph: Call | None = None
    """What is timed as a CUDA graph; None captures `reference`."""


@dataclass(frozen=True, kw_only=True)
class Op:
    """An operator and its cases."""

    summary: str
    """One line for --list."""
    cases: Callable[[Shapes, torch.device], Iterator[Case]]
    """Builds one case after the other, so that their inputs need not fit together."""
