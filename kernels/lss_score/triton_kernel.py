"""The lightweight similarity scorer in Triton: dense pairs, forward and backward."""

# X pairs, R pairs of a tile, U user heads, V item heads, P head width, D scorer width, Y tiles, i row and j column of S''

import triton
import triton.language as tl

from kernels.interpreter import narrow


@triton.jit
def load_heads(
    pointer, offset_R, mask_R, HEADS: tl.constexpr, P: tl.constexpr, BLOCK_P: tl.constexpr, CACHE: tl.constexpr
):  # fmt: skip
    """The heads of each pair's row as a tuple of float32 [R, P]; a row starts at `offset_R` and holds HEADS·P numbers."""
    p = tl.arange(0, BLOCK_P)
    mask_RP = mask_R[:, None] & (p < P)[None, :]
    heads = ()
    for head in tl.static_range(HEADS):
        head_RP = tl.load(pointer + offset_R[:, None] + (head * P + p)[None, :], mask=mask_RP, other=0.0, cache_modifier=CACHE)
        heads = heads + (head_RP.to(tl.float32),)  # noqa: RUF005 - Triton has no unpacking of tuples
    return heads


@triton.jit
def relu(x):
    """As torch's: a NaN stays one."""
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def similarities(users, items, U: tl.constexpr, V: tl.constexpr):
    """Eq. 13: S as a tuple of U·V vectors [R]."""
    similarity = ()
    for u in tl.static_range(U):
        for v in tl.static_range(V):
            similarity = similarity + (tl.sum(users[u] * items[v], 1),)  # noqa: RUF005
    return similarity


@triton.jit
def joined(parts, SIZE: tl.constexpr, PIECES: tl.constexpr):
    """SIZE vectors of the tile, of those of its PIECES, one piece after another: place PIECES·r + t of one is r of piece t's."""
    tl.static_assert(PIECES == 1 or PIECES == 2 or PIECES == 4)
    vectors = ()
    for j in tl.static_range(SIZE):
        vector_R = parts[j]
        if PIECES == 2:
            vector_R = tl.reshape(tl.join(parts[j], parts[SIZE + j]), [2 * parts[j].shape[0]])
        elif PIECES == 4:
            even, odd = tl.join(parts[j], parts[2 * SIZE + j]), tl.join(parts[SIZE + j], parts[3 * SIZE + j])
            vector_R = tl.reshape(tl.join(even, odd), [4 * parts[j].shape[0]])
        vectors = vectors + (vector_R,)  # noqa: RUF005
    return vectors


@triton.jit
def row_layer(similarity, weight1, bias1, U: tl.constexpr, V: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Eq. 14: S' as a tuple of U matrices [D, R]."""
    d = tl.arange(0, BLOCK_D)
    bias_D = tl.load(bias1 + d, mask=d < D, other=0.0).to(tl.float32)
    rows = ()
    for u in tl.static_range(U):
        row_DR = tl.zeros([BLOCK_D, similarity[0].shape[0]], tl.float32) + bias_D[:, None]
        for v in tl.static_range(V):
            weight_D = tl.load(weight1 + d * V + v, mask=d < D, other=0.0).to(tl.float32)
            row_DR += similarity[u * V + v][None, :] * weight_D[:, None]
        rows = rows + (relu(row_DR),)  # noqa: RUF005
    return rows


@triton.jit
def column_before_relu(rows, weight2, bias2, i, U: tl.constexpr):
    """Row i of eq. 15's matrix before its ReLU, [R, D]: W2[i, :] on every column of S'."""
    column_RD = tl.zeros_like(rows[0]) + tl.load(bias2 + i).to(tl.float32)
    for u in tl.static_range(U):
        column_RD += tl.load(weight2 + i * U + u).to(tl.float32) * rows[u]
    return column_RD


@triton.jit
def column_weights(weight2, bias2, weight3, first, U: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_I: tl.constexpr):
    """b2 [I], w [I, D] and the U columns of W2, each [I], at BLOCK_I rows of S''."""
    d = tl.arange(0, BLOCK_D)
    i = first + tl.arange(0, BLOCK_I)
    mask_ID = (i < D)[:, None] & (d < D)[None, :]
    weight_ID = tl.load(weight3 + i[:, None] * D + d[None, :], mask=mask_ID, other=0.0).to(tl.float32)
    weights = (tl.load(bias2 + i, mask=i < D, other=0.0).to(tl.float32), weight_ID)
    for u in tl.static_range(U):
        weights = weights + (tl.load(weight2 + i * U + u, mask=i < D, other=0.0).to(tl.float32),)  # noqa: RUF005
    return weights


@triton.jit
def project(rows, early, weight2, bias2, weight3, U: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_I: tl.constexpr):
    """Eq. 15-16: S' to one logit per pair, [R]. S'' exists BLOCK_I of its rows at a time; `early`: all weights, if D of them."""
    total_DR = tl.zeros_like(rows[0])
    for first in tl.static_range(0, D, BLOCK_I):
        weights = early
        if BLOCK_I < D:
            weights = column_weights(weight2, bias2, weight3, first, U, D, BLOCK_D, BLOCK_I)
        column_IDR = tl.zeros([BLOCK_I, BLOCK_D, rows[0].shape[1]], tl.float32) + weights[0][:, None, None]
        for u in tl.static_range(U):
            column_IDR += weights[2 + u][:, None, None] * rows[u][None, :, :]
        total_DR += tl.sum(relu(column_IDR) * weights[1][:, :, None], 0)
    return tl.sum(total_DR, 0)


@triton.jit
def logits(
    parts, weight1, bias1, weight2, bias2, weight3,
    U: tl.constexpr, V: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_I: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    """Eq. 14-16: S of the PIECES of a tile, one piece's vectors after another's, to one logit per pair, [R]."""
    early = ()
    if BLOCK_I >= D:  # before S changes threads, so that the wait is the vectors'
        early = column_weights(weight2, bias2, weight3, 0, U, D, BLOCK_D, BLOCK_I)
    rows = row_layer(joined(parts, U * V, PIECES), weight1, bias1, U, V, D, BLOCK_D)
    return project(rows, early, weight2, bias2, weight3, U, D, BLOCK_D, BLOCK_I)


@triton.jit
def forward_kernel(
    user, item, weight1, bias1, weight2, bias2, weight3, out, num_pairs,
    U: tl.constexpr, V: tl.constexpr, P: tl.constexpr, D: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_I: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    """One program per tile of pairs; `user` [X, U, P] and `item` [X, V, P] to `out` [X].

    Heads are loaded for PIECES of the tile, one after another, because those of all its pairs would not fit the registers.
    """
    first = tl.program_id(0).to(tl.int64) * BLOCK_R
    parts = ()
    for t in tl.static_range(PIECES):
        pair_R = first + PIECES * tl.arange(0, BLOCK_R // PIECES) + t
        users = load_heads(user, pair_R * (U * P), pair_R < num_pairs, U, P, BLOCK_P, "")
        items = load_heads(item, pair_R * (V * P), pair_R < num_pairs, V, P, BLOCK_P, "")
        parts = parts + similarities(users, items, U, V)
    score_R = logits(parts, weight1, bias1, weight2, bias2, weight3, U, V, D, BLOCK_D, BLOCK_I, PIECES)
    pair_R = first + tl.arange(0, BLOCK_R)
    tl.store(out + pair_R, narrow(score_R, out.dtype.element_ty), mask=pair_R < num_pairs)


@triton.jit
def backward_projection(
    rows, grad_R, weight2, bias2, weight3, part2, part_bias2, part3, U: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Eq. 15-16 backwards: gradient of S' as a tuple of U matrices [R, D]; stores the tile's share of the weights' gradients."""
    d = tl.arange(0, BLOCK_D)
    grads = ()
    for _u in tl.static_range(U):
        grads = grads + (tl.zeros_like(rows[0]),)  # noqa: RUF005
    for i in range(D):
        column_RD = column_before_relu(rows, weight2, bias2, i, U)
        tl.store(part3 + i * D + d, tl.sum(grad_R[:, None] * relu(column_RD), 0), mask=d < D)
        weight_D = tl.load(weight3 + i * D + d, mask=d < D, other=0.0).to(tl.float32)
        grad_RD = tl.where(column_RD > 0, grad_R[:, None] * weight_D[None, :], 0.0)
        tl.store(part_bias2 + i, tl.sum(grad_RD))
        summed = ()
        for u in tl.static_range(U):
            tl.store(part2 + i * U + u, tl.sum(grad_RD * rows[u]))
            summed = summed + (grads[u] + tl.load(weight2 + i * U + u).to(tl.float32) * grad_RD,)  # noqa: RUF005
        grads = summed
    return grads


@triton.jit
def backward_rows(
    rows, similarity, grads, weight1, part1, part_bias1, U: tl.constexpr, V: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Eq. 14 backwards: gradient of S as a tuple of U·V vectors [R]; stores the tile's share of the weights' gradients."""
    d = tl.arange(0, BLOCK_D)
    bias_D = tl.zeros([BLOCK_D], tl.float32)
    closed = ()
    for u in tl.static_range(U):
        grad_RD = tl.where(rows[u] > 0, grads[u], 0.0)
        bias_D += tl.sum(grad_RD, 0)
        closed = closed + (grad_RD,)  # noqa: RUF005
    tl.store(part_bias1 + d, bias_D, mask=d < D)
    for v in tl.static_range(V):
        weight_D = tl.zeros([BLOCK_D], tl.float32)
        for u in tl.static_range(U):
            weight_D += tl.sum(closed[u] * similarity[u * V + v][:, None], 0)
        tl.store(part1 + d * V + v, weight_D, mask=d < D)
    grad_similarity = ()
    for u in tl.static_range(U):
        for v in tl.static_range(V):
            weight_D = tl.load(weight1 + d * V + v, mask=d < D, other=0.0).to(tl.float32)
            grad_similarity = grad_similarity + (tl.sum(closed[u] * weight_D[None, :], 1),)  # noqa: RUF005
    return grad_similarity


@triton.jit
def backward_kernel(
    user, item, weight1, bias1, weight2, bias2, weight3, grad, grad_user, grad_item,
    part1, part_bias1, part2, part_bias2, part3, num_pairs,
    U: tl.constexpr, V: tl.constexpr, P: tl.constexpr, D: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One program per tile: S and S' again, then gradients of the tile's vectors and its share of each weight's, `part…` [Y, …]."""
    tile = tl.program_id(0).to(tl.int64)
    pair_R = tile * BLOCK_R + tl.arange(0, BLOCK_R)
    p = tl.arange(0, BLOCK_P)
    mask_R = pair_R < num_pairs
    users = load_heads(user, pair_R * (U * P), mask_R, U, P, BLOCK_P, "")
    items = load_heads(item, pair_R * (V * P), mask_R, V, P, BLOCK_P, "")
    similarity = similarities(users, items, U, V)
    turned = row_layer(similarity, weight1, bias1, U, V, D, BLOCK_D)
    rows = ()
    for u in tl.static_range(U):
        rows = rows + (tl.trans(turned[u]),)  # noqa: RUF005
    grad_R = tl.load(grad + pair_R, mask=mask_R, other=0.0).to(tl.float32)
    grads = backward_projection(
        rows, grad_R, weight2, bias2, weight3,
        part2 + tile * (D * U), part_bias2 + tile * D, part3 + tile * (D * D), U, D, BLOCK_D,
    )  # fmt: skip
    grads = backward_rows(rows, similarity, grads, weight1, part1 + tile * (D * V), part_bias1 + tile * D, U, V, D, BLOCK_D)
    mask_RP = mask_R[:, None] & (p < P)[None, :]
    for u in tl.static_range(U):
        grad_RP = tl.zeros_like(users[0])
        for v in tl.static_range(V):
            grad_RP += grads[u * V + v][:, None] * items[v]
        tl.store(
            grad_user + (pair_R * (U * P) + u * P)[:, None] + p[None, :], narrow(grad_RP, grad_user.dtype.element_ty), mask=mask_RP
        )
    for v in tl.static_range(V):
        grad_RP = tl.zeros_like(items[0])
        for u in tl.static_range(U):
            grad_RP += grads[u * V + v][:, None] * users[u]
        tl.store(
            grad_item + (pair_R * (V * P) + v * P)[:, None] + p[None, :], narrow(grad_RP, grad_item.dtype.element_ty), mask=mask_RP
        )
