"""Cases of DIN's activation unit: all queries for a request, one query per row with gradients, Dice's gate in training."""

# B rows, J history positions, D width of a position, C and E hidden widths, N queries

from collections.abc import Iterator

import torch

from benchmarks.kernels.case import Case, Shapes, Tensors, Work
from kernels.target_attention import AttentionWeights, DiceWeights, dice_gate, target_attention, target_attention_all

DIM, FIRST, SECOND, QUERIES = 32, 64, 16, 64
LONGEST = 50
MLP_FLOPS = 2 * (DIM * FIRST + FIRST * SECOND + SECOND + DIM)
"""Of a position, once the query is folded into the first layer."""


def cases(shapes: Shapes, device: torch.device) -> Iterator[Case]:
    """`paper`: one request, a batch of 2,048 rows; `large`: 256 requests, 16,384 rows."""
    num_requests, num_rows = (1, 2048) if shapes == "paper" else (256, 16_384)
    yield _all_queries(num_requests, device)
    yield _one_query(num_rows, device)
    yield _gate(num_rows * LONGEST // 2, device)


def _weights(device: torch.device) -> AttentionWeights:
    def matrix(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, device=device) / shape[-1] ** 0.5).requires_grad_()

    def dice(width: int) -> DiceWeights:
        return DiceWeights(torch.zeros(width, device=device), torch.ones(width, device=device), matrix(width), 1e-8)

    layer1, layer2 = (matrix(FIRST, 4 * DIM), matrix(FIRST)), (matrix(SECOND, FIRST), matrix(SECOND))
    return AttentionWeights(*layer1, dice(FIRST), *layer2, dice(SECOND), matrix(1, SECOND), matrix(1))


def _all_queries(num_rows: int, device: torch.device) -> Case:
    lengths_B = torch.full((num_rows,), LONGEST, device=device)
    history_JD = torch.randn(num_rows * LONGEST, DIM, device=device)
    query_ND, weights = torch.randn(QUERIES, DIM, device=device), _weights(device)

    @torch.no_grad()
    def call(backend: str) -> Tensors:
        return (target_attention_all(history_JD, lengths_B, query_ND, weights, backend),)

    num_bytes = 4 * (history_JD.numel() + query_ND.numel() + num_rows * QUERIES * DIM) + 8 * num_rows
    return Case(
        label=f"{num_rows} rows of {LONGEST} × {QUERIES} queries",
        work=Work(num_bytes=num_bytes, flops=num_rows * LONGEST * QUERIES * MLP_FLOPS, precision="tf32"),
        reference=lambda: call("torch"),
        kernel=lambda: call("triton"),
        tolerance=1e-4,
    )


def _one_query(num_rows: int, device: torch.device) -> Case:
    torch.manual_seed(0)
    lengths_B = torch.randint(LONGEST + 1, (num_rows,), device=device)
    num_positions = int(lengths_B.sum())
    history_JD = torch.randn(num_positions, DIM, device=device, requires_grad=True)
    query_BD, weights = torch.randn(num_rows, DIM, device=device, requires_grad=True), _weights(device)
    learned = [history_JD, query_BD, *[weight for weight in weights if isinstance(weight, torch.Tensor)]]
    weight_BD = torch.randn(num_rows, DIM, device=device)

    def call(backend: str) -> Tensors:
        pooled_BD = target_attention(history_JD, lengths_B, query_BD, weights, backend)
        return pooled_BD.detach(), *torch.autograd.grad(pooled_BD, learned, weight_BD)

    num_bytes = 4 * (3 * history_JD.numel() + 5 * query_BD.numel())
    return Case(
        label=f"{num_rows} rows, {num_positions} positions, forward and backward",
        work=Work(num_bytes=num_bytes, flops=4 * num_positions * MLP_FLOPS, precision="tf32"),
        reference=lambda: call("torch"),
        kernel=lambda: call("triton"),
        tolerance=1e-3,
    )


def _gate(num_positions: int, device: torch.device) -> Case:
    hidden_XC = torch.randn(num_positions, FIRST, device=device, requires_grad=True)
    normal_XC = torch.randn(num_positions, FIRST, device=device, requires_grad=True)
    alpha_C = torch.rand(FIRST, device=device, requires_grad=True)
    weight_XC = torch.randn(num_positions, FIRST, device=device)

    def call(backend: str) -> Tensors:
        out_XC = dice_gate(hidden_XC, normal_XC, alpha_C, backend)
        return out_XC.detach(), *torch.autograd.grad(out_XC, (hidden_XC, normal_XC, alpha_C), weight_XC)

    return Case(
        label=f"Dice's gate on {num_positions} positions, forward and backward",
        work=Work(num_bytes=8 * 4 * num_positions * FIRST, flops=0, precision="float32"),
        reference=lambda: call("torch"),
        kernel=lambda: call("triton"),
        tolerance=1e-4,
    )
