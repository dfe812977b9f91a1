"""The cross-entropy over the catalogue in Triton: scores exist a tile at a time, in backward once more for each gradient."""

# B rows, M items of the catalogue, C vector width, S shares of the catalogue

import triton
import triton.language as tl

from kernels.interpreter import dot, narrow


@triton.jit
def load_rows(pointer, row_X, num_rows, C: tl.constexpr, BLOCK_C: tl.constexpr):
    """[X, C] in float32, 0 outside."""
    c = tl.arange(0, BLOCK_C)
    mask_XC = (row_X < num_rows)[:, None] & (c < C)[None, :]
    return tl.load(pointer + row_X[:, None] * C + c[None, :], mask=mask_XC, other=0.0).to(tl.float32)


@triton.jit
def tile_scores(user_BC, item_MC, log_q, column_M, num_items, PRECISION: tl.constexpr):
    """u·v − log q, [B, M]; -inf outside the catalogue."""
    zero_BM = tl.zeros([user_BC.shape[0], item_MC.shape[0]], tl.float32)
    score_BM = dot(user_BC, tl.trans(item_MC), zero_BM, PRECISION)
    if log_q is not None:
        score_BM -= tl.load(log_q + column_M, mask=column_M < num_items, other=0.0).to(tl.float32)[None, :]
    return tl.where((column_M < num_items)[None, :], score_BM, float("-inf"))


@triton.jit
def forward_kernel(
    user, item, target, log_q, part, positive, num_rows, num_items, share,
    C: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program per tile of rows and share of the catalogue: its log-sum-exp to `part` [S, B], targets' scores to `positive`."""
    row_B = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    first = tl.program_id(1).to(tl.int64) * share
    stop = tl.minimum(first + share, num_items)
    mask_B = row_B < num_rows
    user_BC = load_rows(user, row_B, num_rows, C, BLOCK_C)
    target_B = tl.load(target + row_B, mask=mask_B, other=-1)
    positive_B = tl.zeros([BLOCK_B], tl.float32)
    largest_B = tl.full([BLOCK_B], float("-inf"), tl.float32)
    sum_B = tl.zeros([BLOCK_B], tl.float32)
    for start in range(first, stop, BLOCK_M):
        column_M = start + tl.arange(0, BLOCK_M)
        item_MC = load_rows(item, column_M, stop, C, BLOCK_C)
        score_BM = tile_scores(user_BC, item_MC, log_q, column_M, stop, PRECISION)
        positive_B += tl.sum(tl.where(column_M[None, :] == target_B[:, None], score_BM, 0.0), 1)
        larger_B = tl.maximum(largest_B, tl.max(score_BM, 1))
        sum_B = sum_B * tl.exp(largest_B - larger_B) + tl.sum(tl.exp(score_BM - larger_B[:, None]), 1)
        largest_B = larger_B
    tl.store(part + tl.program_id(1).to(tl.int64) * num_rows + row_B, largest_B + tl.log(sum_B), mask=mask_B)
    tl.store(positive + row_B, positive_B, mask=mask_B & (target_B >= first) & (target_B < stop))


@triton.jit
def tile_error(user_BC, item_MC, log_q, column_M, num_items, target_B, logsumexp_B, PRECISION: tl.constexpr):
    """Softmax minus 1 at the target, [B, M]; 0 outside the catalogue."""
    score_BM = tile_scores(user_BC, item_MC, log_q, column_M, num_items, PRECISION)
    softmax_BM = tl.exp(score_BM - logsumexp_B[:, None])
    return softmax_BM - tl.where(column_M[None, :] == target_B[:, None], 1.0, 0.0)


@triton.jit
def user_kernel(
    user, item, target, log_q, logsumexp, grad, part, num_rows, num_items, share,
    C: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program per tile of rows and share of the catalogue: that share's part of the users' gradient, `part` [S, B, C]."""
    row_B = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    first = tl.program_id(1).to(tl.int64) * share
    stop = tl.minimum(first + share, num_items)
    mask_B = row_B < num_rows
    user_BC = load_rows(user, row_B, num_rows, C, BLOCK_C)
    target_B = tl.load(target + row_B, mask=mask_B, other=-1)
    logsumexp_B = tl.load(logsumexp + row_B, mask=mask_B, other=0.0)
    grad_BC = tl.zeros([BLOCK_B, BLOCK_C], tl.float32)
    for start in range(first, stop, BLOCK_M):
        column_M = start + tl.arange(0, BLOCK_M)
        item_MC = load_rows(item, column_M, stop, C, BLOCK_C)
        error_BM = tile_error(user_BC, item_MC, log_q, column_M, stop, target_B, logsumexp_B, PRECISION)
        # where the last tile ends beyond the share, its columns' vectors are 0
        grad_BC = dot(error_BM, item_MC, grad_BC, PRECISION)
    grad_BC = grad_BC * tl.load(grad + row_B, mask=mask_B, other=0.0)[:, None]
    c = tl.arange(0, BLOCK_C)
    place_BC = (tl.program_id(1).to(tl.int64) * num_rows + row_B)[:, None] * C + c[None, :]
    tl.store(part + place_BC, grad_BC, mask=mask_B[:, None] & (c < C)[None, :])


@triton.jit
def item_kernel(
    user, item, target, log_q, logsumexp, grad, grad_item, num_rows, num_items,
    C: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program per tile of items, over all rows: `grad_item` [M, C]."""
    column_M = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    item_MC = load_rows(item, column_M, num_items, C, BLOCK_C)
    grad_MC = tl.zeros([BLOCK_M, BLOCK_C], tl.float32)
    for start in range(0, num_rows, BLOCK_B):
        row_B = start + tl.arange(0, BLOCK_B).to(tl.int64)
        user_BC = load_rows(user, row_B, num_rows, C, BLOCK_C)
        target_B = tl.load(target + row_B, mask=row_B < num_rows, other=-1)
        logsumexp_B = tl.load(logsumexp + row_B, mask=row_B < num_rows, other=0.0)
        grad_B = tl.load(grad + row_B, mask=row_B < num_rows, other=0.0)
        error_BM = tile_error(user_BC, item_MC, log_q, column_M, num_items, target_B, logsumexp_B, PRECISION)
        # the incoming gradient scales rows of width C rather than rows of scores
        grad_MC = dot(tl.trans(error_BM), grad_B[:, None] * user_BC, grad_MC, PRECISION)
    c = tl.arange(0, BLOCK_C)
    mask_MC = (column_M < num_items)[:, None] & (c < C)[None, :]
    tl.store(grad_item + column_M[:, None] * C + c[None, :], narrow(grad_MC, grad_item.dtype.element_ty), mask=mask_MC)
