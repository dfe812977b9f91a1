"""Cases of the cross-entropy over the catalogue, loss and gradients."""

# B rows, M items, C vector width

from collections.abc import Iterator

import torch

from benchmarks.kernels.case import Case, Shapes, Tensors, Work
from kernels.dispatch import Backend
from kernels.item_softmax import item_softmax


def cases(shapes: Shapes, device: torch.device) -> Iterator[Case]:
    """`paper`: MovieLens-1M's catalogue at T2Diff's batch size; `large`: 100,000 items, on a CPU for fewer rows."""
    sizes = (512, 3648, 32) if shapes == "paper" else (2048 if device.type == "cuda" else 128, 100_000, 64)
    for dtype in (torch.float32, torch.bfloat16):
        yield _case(*sizes, dtype=dtype, device=device)


def _case(num_rows: int, num_items: int, width: int, *, dtype: torch.dtype, device: torch.device) -> Case:
    user_BC = torch.randn(num_rows, width, device=device, dtype=dtype).requires_grad_()
    item_MC = torch.randn(num_items, width, device=device, dtype=dtype).requires_grad_()
    target_B, weight_B = torch.randint(num_items, (num_rows,), device=device), torch.randn(num_rows, device=device)
    # a GPU wants few, large chunks
    chunk_items = 512 if device.type == "cpu" else 16_384

    def call(backend: Backend) -> Tensors:
        loss_B = item_softmax(user_BC, item_MC, target_B, chunk_items=chunk_items, backend=backend)
        return loss_B.detach(), *torch.autograd.grad(loss_B, (user_BC, item_MC), weight_B)

    num_bytes = sum(vector.numel() * vector.element_size() for vector in (user_BC, item_MC)) * 3 + 4 * 4 * num_rows
    name = str(dtype).removeprefix("torch.")
    return Case(
        label=f"{num_rows} rows × {num_items} items of {width} {name}, forward and backward",
        work=Work(
            num_bytes=num_bytes,
            flops=10 * num_rows * num_items * width,
            precision="tf32" if dtype == torch.float32 else "bfloat16",
        ),
        reference=lambda: call("torch"),
        kernel=lambda: call("triton"),
        tolerance=1e-3 if dtype == torch.float32 else 2e-2,
    )
