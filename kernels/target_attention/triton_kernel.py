"""DIN's activation unit on jagged histories in Triton (FIT eq. 19), Dice with fixed statistics: forward and backward.

A query folds into the first layer: W·[e, q, e−q, e∘q] + b = ((W1+W3) + W4·diag(q))·e + ((W2−W3)·q + b), so a row's positions need
one product of width D, and the gradients of q and W4 come from that of the folded matrix.
"""

# B rows, L positions of a tile, D width of a position, C and E hidden widths, N queries, Y programs

import triton
import triton.language as tl

from kernels.interpreter import dot, narrow
from kernels.target_attention.triton_dice import dice, dice_backward, load_dice


@triton.jit
def load_matrix(pointer, row_X, column_Y, num_rows, num_columns):
    """[X, Y] of a [num_rows, num_columns] matrix in float32, 0 outside."""
    mask_XY = (row_X < num_rows)[:, None] & (column_Y < num_columns)[None, :]
    return tl.load(pointer + row_X[:, None] * num_columns + column_Y[None, :], mask=mask_XY, other=0.0).to(tl.float32)


@triton.jit
def load_vector(pointer, index_X, size):
    """[X] in float32, 0 outside."""
    return tl.load(pointer + index_X, mask=index_X < size, other=0.0).to(tl.float32)


@triton.jit
def hidden_layers(event_LD, folded_DC, base_C, dice1, weight2_CE, bias2_E, PRECISION: tl.constexpr):
    """Both layers before their activations and the first one's activation: [L, C], [L, C], [L, E]."""
    zero_LC = tl.zeros([event_LD.shape[0], folded_DC.shape[1]], tl.float32)
    hidden1_LC = dot(event_LD, folded_DC, zero_LC + base_C[None, :], PRECISION)
    active1_LC = dice(hidden1_LC, dice1)
    zero_LE = tl.zeros([event_LD.shape[0], weight2_CE.shape[1]], tl.float32)
    hidden2_LE = dot(active1_LC, weight2_CE, zero_LE + bias2_E[None, :], PRECISION)
    return hidden1_LC, active1_LC, hidden2_LE


@triton.jit
def forward_kernel(
    history, offset, query, base, history_weight, product_weight, mean1, var1, alpha1, weight2, bias2, mean2, var2, alpha2,
    weight3, bias3, out, num_rows, num_queries, eps1, eps2,
    D: tl.constexpr, C: tl.constexpr, E: tl.constexpr, ROWS: tl.constexpr, EVERY: tl.constexpr, BLOCK_L: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_E: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program per ROWS rows, with their own query each or (EVERY) with query program_id(1); `out` [B, D] or [B, N, D]."""
    first = tl.program_id(0).to(tl.int64) * ROWS
    d, c, e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_E)
    history_DC = tl.trans(load_matrix(history_weight, c, d, C, D))
    product_DC = tl.trans(load_matrix(product_weight, c, d, C, D))
    weight2_CE = tl.trans(load_matrix(weight2, e, c, E, C))
    dice1 = load_dice(mean1, var1, alpha1, c, C, eps1)
    dice2 = load_dice(mean2, var2, alpha2, e, E, eps2)
    bias2_E, weight3_E, bias3_0 = load_vector(bias2, e, E), load_vector(weight3, e, E), tl.load(bias3).to(tl.float32)
    for row in range(first, tl.minimum(first + ROWS, num_rows)):
        number = tl.program_id(1).to(tl.int64) if EVERY else row
        query_D = load_vector(query + number * D, d, D)
        base_C = load_vector(base + number * C, c, C)
        folded_DC = history_DC + product_DC * query_D[:, None]
        stop = tl.load(offset + row + 1)
        pooled_D = tl.zeros([BLOCK_D], tl.float32)
        for start in range(tl.load(offset + row), stop, BLOCK_L):
            position_L = start + tl.arange(0, BLOCK_L)
            event_LD = load_matrix(history, position_L, d, stop, D)
            _, _, hidden2_LE = hidden_layers(event_LD, folded_DC, base_C, dice1, weight2_CE, bias2_E, PRECISION)
            weight_L = tl.sum(dice(hidden2_LE, dice2) * weight3_E[None, :], 1) + bias3_0
            weight_L = tl.where(position_L < stop, weight_L, 0.0)
            pooled_D += tl.sum(weight_L[:, None] * event_LD, 0)
        place = row * num_queries + number if EVERY else row
        tl.store(out + place * D + d, narrow(pooled_D, out.dtype.element_ty), mask=d < D)


@triton.jit
def backward_tile(
    event_LD, mask_L, grad_D, folded_DC, base_C, dice1, weight2_CE, bias2_E, dice2, weight3_E, bias3_0, sums,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of a tile's positions, [L, D], and `sums` with the tile's share added: see backward_kernel."""
    folded_CD, base_sum_C, alpha1_C, weight2_EC, bias2_sum_E, alpha2_E, weight3_sum_E, bias3_sum = sums
    hidden1_LC, active1_LC, hidden2_LE = hidden_layers(event_LD, folded_DC, base_C, dice1, weight2_CE, bias2_E, PRECISION)
    active2_LE = dice(hidden2_LE, dice2)
    weight_L = tl.where(mask_L, tl.sum(active2_LE * weight3_E[None, :], 1) + bias3_0, 0.0)
    grad_weight_L = tl.where(mask_L, tl.sum(event_LD * grad_D[None, :], 1), 0.0)
    grad2_LE, slope2_LE = dice_backward(hidden2_LE, grad_weight_L[:, None] * weight3_E[None, :], dice2)
    zero_LC = tl.zeros_like(hidden1_LC)
    grad1_LC, slope1_LC = dice_backward(hidden1_LC, dot(grad2_LE, tl.trans(weight2_CE), zero_LC, PRECISION), dice1)
    grad_LD = dot(grad1_LC, tl.trans(folded_DC), weight_L[:, None] * grad_D[None, :], PRECISION)
    sums = (
        dot(tl.trans(grad1_LC), event_LD, folded_CD, PRECISION),
        base_sum_C + tl.sum(grad1_LC, 0),
        alpha1_C + tl.sum(slope1_LC, 0),
        dot(tl.trans(grad2_LE), active1_LC, weight2_EC, PRECISION),
        bias2_sum_E + tl.sum(grad2_LE, 0),
        alpha2_E + tl.sum(slope2_LE, 0),
        weight3_sum_E + tl.sum(grad_weight_L[:, None] * active2_LE, 0),
        bias3_sum + tl.sum(grad_weight_L, 0),
    )
    return grad_LD, sums


@triton.jit
def backward_kernel(
    history, offset, query, base, history_weight, product_weight, mean1, var1, alpha1, weight2, bias2, mean2, var2, alpha2,
    weight3, bias3, grad, grad_history, grad_query, grad_base,
    part_history, part_product, part_alpha1, part_weight2, part_bias2, part_alpha2, part_weight3, part_bias3,
    num_rows, eps1, eps2,
    D: tl.constexpr, C: tl.constexpr, E: tl.constexpr, ROWS: tl.constexpr, BLOCK_L: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_E: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program per ROWS rows: gradients of their positions, queries and bases, its share of each weight's, `part…` [Y, …]."""
    program = tl.program_id(0).to(tl.int64)
    d, c, e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_E)
    weight2_CE = tl.trans(load_matrix(weight2, e, c, E, C))
    dice1 = load_dice(mean1, var1, alpha1, c, C, eps1)
    dice2 = load_dice(mean2, var2, alpha2, e, E, eps2)
    bias2_E, weight3_E, bias3_0 = load_vector(bias2, e, E), load_vector(weight3, e, E), tl.load(bias3).to(tl.float32)
    history_sum_CD, product_sum_CD = tl.zeros([BLOCK_C, BLOCK_D], tl.float32), tl.zeros([BLOCK_C, BLOCK_D], tl.float32)
    alpha1_C, alpha2_E = tl.zeros([BLOCK_C], tl.float32), tl.zeros([BLOCK_E], tl.float32)
    weight2_EC, bias2_sum_E = tl.zeros([BLOCK_E, BLOCK_C], tl.float32), tl.zeros([BLOCK_E], tl.float32)
    weight3_sum_E, bias3_sum = tl.zeros([BLOCK_E], tl.float32), 0.0
    for row in range(program * ROWS, tl.minimum((program + 1) * ROWS, num_rows)):
        query_D, base_C = load_vector(query + row * D, d, D), load_vector(base + row * C, c, C)
        grad_D = load_vector(grad + row * D, d, D)
        # loaded for every row, since registers are scarcer than the cache's bandwidth
        product_CD = load_matrix(product_weight, c, d, C, D)
        folded_DC = tl.trans(load_matrix(history_weight, c, d, C, D) + product_CD * query_D[None, :])
        folded_sum_CD, base_sum_C = tl.zeros([BLOCK_C, BLOCK_D], tl.float32), tl.zeros([BLOCK_C], tl.float32)
        stop = tl.load(offset + row + 1)
        for start in range(tl.load(offset + row), stop, BLOCK_L):
            position_L = start + tl.arange(0, BLOCK_L)
            event_LD = load_matrix(history, position_L, d, stop, D)
            sums = (folded_sum_CD, base_sum_C, alpha1_C, weight2_EC, bias2_sum_E, alpha2_E, weight3_sum_E, bias3_sum)
            grad_LD, sums = backward_tile(
                event_LD, position_L < stop, grad_D, folded_DC, base_C, dice1, weight2_CE, bias2_E, dice2, weight3_E, bias3_0, sums,
                PRECISION,
            )  # fmt: skip
            folded_sum_CD, base_sum_C, alpha1_C, weight2_EC, bias2_sum_E, alpha2_E, weight3_sum_E, bias3_sum = sums
            store_matrix(grad_history, position_L, d, stop, D, grad_LD)
        history_sum_CD += folded_sum_CD
        product_sum_CD += folded_sum_CD * query_D[None, :]
        store_vector(grad_query + row * D, d, D, tl.sum(folded_sum_CD * load_matrix(product_weight, c, d, C, D), 0))
        store_vector(grad_base + row * C, c, C, base_sum_C)
    store_matrix(part_history + program * (C * D), c, d, C, D, history_sum_CD)
    store_matrix(part_product + program * (C * D), c, d, C, D, product_sum_CD)
    store_vector(part_alpha1 + program * C, c, C, alpha1_C)
    store_matrix(part_weight2 + program * (E * C), e, c, E, C, weight2_EC)
    store_vector(part_bias2 + program * E, e, E, bias2_sum_E)
    store_vector(part_alpha2 + program * E, e, E, alpha2_E)
    store_vector(part_weight3 + program * E, e, E, weight3_sum_E)
    tl.store(part_bias3 + program, bias3_sum)


@triton.jit
def store_matrix(pointer, row_X, column_Y, num_rows, num_columns, value_XY):
    """Write what lies inside a [num_rows, num_columns] matrix."""
    mask_XY = (row_X < num_rows)[:, None] & (column_Y < num_columns)[None, :]
    tl.store(pointer + row_X[:, None] * num_columns + column_Y[None, :], narrow(value_XY, pointer.dtype.element_ty), mask=mask_XY)


@triton.jit
def store_vector(pointer, index_X, size, value_X):
    """Write what lies inside a vector."""
    tl.store(pointer + index_X, narrow(value_X, pointer.dtype.element_ty), mask=index_X < size)
