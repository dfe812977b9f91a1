"""Which implementation of an operator runs: its reference in plain torch, or its Triton kernel.

Scripted code never asks: TorchScript cannot carry Triton, so every public function takes its reference where
`torch.jit.is_scripting()`.
"""

from typing import Literal, get_args

import torch

from kernels.interpreter import INTERPRETED

Backend = Literal["auto", "torch", "triton"]


def uses_triton(backend: str, tensor: torch.Tensor, *, unsupported: str | None = None) -> bool:
    """Whether the Triton kernel runs.

    Args:
        backend: a Backend (scripted signatures know no Literal): `auto` takes the kernel on a GPU where it can, `torch` never,
            `triton` always.
        tensor: an input; its device decides.
        unsupported: why the kernel cannot take these inputs; None where it can.

    Raises:
        ValueError: backend is no backend, or `triton` and the kernel cannot run.
    """
    if backend == "torch":
        return False
    if backend == "auto":
        return tensor.is_cuda and unsupported is None
    if backend != "triton":
        raise ValueError(f"backend={backend!r}, expected one of {get_args(Backend)}")
    if not (tensor.is_cuda or INTERPRETED):
        raise ValueError(
            f"backend='triton' with tensors on {tensor.device}: kernels run on a CUDA device, or, slowly, on a CPU in Triton's "
            "interpreter (start with TRITON_INTERPRET=1); choose backend='torch' or 'auto'"
        )
    if unsupported is not None:
        raise ValueError(f"backend='triton', but {unsupported}; choose backend='torch' or 'auto'")
    return True


def unsupported_type(*tensors: torch.Tensor) -> str | None:
    """Why kernels that compute in float32 cannot take these tensors: one that float32 cannot hold; None where they can."""
    for tensor in tensors:
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            return f"the kernel computes in float32 and an input is {tensor.dtype}"
    return None


def unsupported_gradient(*tensors: torch.Tensor) -> str | None:
    """Why a kernel without a gradient cannot take these tensors; None where none of them wants one."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "the kernel has no gradient and an input wants one (use torch.no_grad())"
    return None
