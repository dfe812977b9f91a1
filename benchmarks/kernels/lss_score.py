"""Cases of the lightweight similarity scorer: a request's candidates with their best, many requests, training pairs."""

# B requests, N user vectors of a request, K candidates, X pairs, U = V heads, P head width, D scorer width, M items

from collections.abc import Iterator

import torch

from benchmarks.kernels.case import Case, Shapes, Tensors, Work
from kernels.lss_score import LSSWeights, StoredItems, lss_score, score_stored, top_stored

HEADS, WIDTH, DIM, QUERIES, CANDIDATES, BEST = 2, 64, 16, 64, 2000, 100
ITEM_BYTES = {torch.float32: 512, torch.float16: 256, torch.int8: 132}
"""Of a stored item's row: 128 numbers, and int8's scale."""
STORED, STORED_OF_MANY = 100_000, 2_000_000
"""Items of the store: what one request's rows are gathered from, and what no L2 holds, so that each gathered row is a read."""


def cases(shapes: Shapes, device: torch.device) -> Iterator[Case]:
    """`paper`: one request of 2,000 candidates and a batch of 2,048 pairs; `large`: 256 requests, 65,536 pairs."""
    paper = shapes == "paper"
    num_requests, num_pairs = (1, 2048) if paper else (256, 65_536)
    num_items = STORED if paper or device.type == "cpu" else STORED_OF_MANY
    for dtype in (torch.float32, torch.float16, torch.int8):
        yield _stored(num_requests, dtype, device, num_items=num_items, best=paper)
    yield _stored(num_requests, torch.float16, device, num_items=num_items, best=not paper)
    yield _pairs(num_pairs, device)


def _weights(device: torch.device) -> LSSWeights:
    shapes = ((DIM, HEADS), (DIM,), (DIM, HEADS), (DIM,), (DIM, DIM))
    return LSSWeights(*[torch.randn(shape, device=device) / DIM**0.5 for shape in shapes])


def _flops(num_pairs: int) -> int:
    return 2 * num_pairs * (HEADS * HEADS * WIDTH + HEADS * HEADS * DIM + HEADS * DIM * DIM + DIM * DIM)


def _stored(num_requests: int, dtype: torch.dtype, device: torch.device, *, num_items: int, best: bool) -> Case:
    vector_MX, scale_M = torch.randn(num_items, HEADS * WIDTH, device=device) / WIDTH**0.5, None
    if dtype == torch.int8:
        scale_M = vector_MX.abs().amax(1) / 127
        vector_MX = (vector_MX / scale_M[:, None]).round()
    index_M = torch.randint(QUERIES, (num_items,), device=device, dtype=torch.uint8)
    items, weights = StoredItems(vector_MX.to(dtype), scale_M, index_M), _weights(device)
    user_BNUP = torch.randn(num_requests, QUERIES, HEADS, WIDTH, device=device)
    candidate_BK = torch.randint(num_items, (num_requests, CANDIDATES), device=device)

    def call(backend: str) -> Tensors:
        if best:
            return (top_stored(user_BNUP, items, candidate_BK, weights, BEST, backend).score_BK,)
        return (score_stored(user_BNUP, items, candidate_BK, weights, backend),)

    num_scored = num_requests * CANDIDATES
    written = num_requests * BEST * 12 if best else 4 * num_scored
    num_bytes = user_BNUP.numel() * 4 + num_scored * (ITEM_BYTES[dtype] + 1 + 8) + written
    name = str(dtype).removeprefix("torch.")
    return Case(
        label=f"{num_requests} requests × {CANDIDATES} {name} candidates of {num_items}" + (f", best {BEST}" if best else ""),
        work=Work(num_bytes=num_bytes, flops=_flops(num_scored), precision="float32"),
        reference=lambda: call("torch"),
        kernel=lambda: call("triton"),
        tolerance=1e-4,
    )


def _pairs(num_pairs: int, device: torch.device) -> Case:
    user_XUP = torch.randn(num_pairs, HEADS, WIDTH, device=device, requires_grad=True)
    item_XVP = torch.randn(num_pairs, HEADS, WIDTH, device=device, requires_grad=True)
    weights = LSSWeights(*[weight.requires_grad_() for weight in _weights(device)])
    weight_X = torch.randn(num_pairs, device=device)

    def call(backend: str) -> Tensors:
        score_X = lss_score(user_XUP, item_XVP, *weights, backend=backend)
        return score_X.detach(), *torch.autograd.grad(score_X, (user_XUP, item_XVP, *weights), weight_X)

    num_bytes = num_pairs * (6 * HEADS * WIDTH + 3) * 4  # vectors read by forward and backward, gradients written
    return Case(
        label=f"{num_pairs} pairs, forward and backward",
        work=Work(num_bytes=num_bytes, flops=4 * _flops(num_pairs), precision="float32"),
        reference=lambda: call("torch"),
        kernel=lambda: call("triton"),
        tolerance=1e-4,
    )
