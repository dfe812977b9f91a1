"""One evaluation of the U-Net on tensors that stay in registers.

A user's positions are cut into blocks of four that end at the newest one. Place 0 … 3 of every block is a tensor [M, C] of its own,
so level 0 of the U-Net is four tensors, level 1 two and level 2 one. Striding, up-sampling and most of a convolution's shifts then
only choose which tensor is read; what comes from the neighbouring block is moved there by a dot with a constant matrix of zeros and
ones, which is exact. LayerNorm's mean is 0 by the weights' making (packing.py).
"""

# M rows of a tile: users × R blocks of four positions; I input and O output channels of a layer; D width of a position; C0 C1 C2
# channels of the levels. `moves` are the matrices that take a row from the older and from the newer block; `valid` holds float32
# [M], 1 or 0: the four places of level 0, the two of level 1, level 2, the positions before and after the block.

import triton
import triton.language as tl

from kernels.interpreter import IN_INTERPRETER, dot, narrow, row_sums2, row_sums4

NORM_EPSILON = tl.constexpr(1e-5)


@triton.jit
def _tap(x_MI, tile_ptr, sum_MO, PRECISION: tl.constexpr):
    """Sum + x·W of one tile [I, O]."""
    I: tl.constexpr = x_MI.shape[1]  # noqa: E741
    O: tl.constexpr = sum_MO.shape[1]  # noqa: E741
    return dot(x_MI, tl.load(tile_ptr + tl.arange(0, I)[:, None] * O + tl.arange(0, O)[None, :]), sum_MO, PRECISION)


@triton.jit
def _conv(older_MI, here_MI, newer_MI, tile_ptr, sum_MO, PRECISION: tl.constexpr):
    """Sum + a convolution of kernel 3, its three tiles one after another."""
    SIZE: tl.constexpr = here_MI.shape[1] * sum_MO.shape[1]
    sum_MO = _tap(older_MI, tile_ptr, sum_MO, PRECISION)
    sum_MO = _tap(here_MI, tile_ptr + SIZE, sum_MO, PRECISION)
    return _tap(newer_MI, tile_ptr + 2 * SIZE, sum_MO, PRECISION)


@triton.jit
def conv4(x, moves, tile_ptr, sums, PRECISION: tl.constexpr):
    """The convolution at level 0, for the four places of a block."""
    older3 = _moved(moves[0], x[3], PRECISION)
    newer0 = _moved(moves[1], x[0], PRECISION)
    return (
        _conv(older3, x[0], x[1], tile_ptr, sums[0], PRECISION),
        _conv(x[0], x[1], x[2], tile_ptr, sums[1], PRECISION),
        _conv(x[1], x[2], x[3], tile_ptr, sums[2], PRECISION),
        _conv(x[2], x[3], newer0, tile_ptr, sums[3], PRECISION),
    )


@triton.jit
def _moved(move_MM, x_MI, PRECISION: tl.constexpr):
    """Rows of x from the neighbouring block, 0 where there is none."""
    return dot(move_MM, x_MI, tl.zeros(x_MI.shape, tl.float32), PRECISION).to(x_MI.dtype)


@triton.jit
def rows(vector_ptr, M: tl.constexpr, O: tl.constexpr):  # noqa: E741
    """A vector [O] as [M, O]."""
    return tl.load(vector_ptr + tl.arange(0, O))[None, :] + tl.zeros((M, O), tl.float32)


@triton.jit
def _sigmoid(x, OPERAND: tl.constexpr):
    """With one instruction of the GPU where the result is rounded to 8 digits anyway; its error is 2^-12."""
    if not IN_INTERPRETER and tl.bfloat16 == OPERAND:
        half = tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [0.5 * x], tl.float32, is_pure=True, pack=1)
        return 0.5 * half + 0.5
    return tl.sigmoid(x)


@triton.jit
def _activated(x_MO, squares_M, valid_M, vector_ptr, OPERAND: tl.constexpr):
    """LayerNorm of x, whose mean is 0, by the gain and shift behind a bias; SiLU; 0 at padding; as a dot's operand."""
    O: tl.constexpr = x_MO.shape[1]  # noqa: E741
    channel = tl.arange(0, O)
    gain, shift = tl.load(vector_ptr + O + channel), tl.load(vector_ptr + 2 * O + channel)
    scale_M = tl.rsqrt(squares_M / O + NORM_EPSILON)
    normal_MO = x_MO * scale_M[:, None] * gain[None, :] + shift[None, :]
    return narrow(normal_MO * _sigmoid(normal_MO, OPERAND) * valid_M[:, None], OPERAND)


@triton.jit
def _activated2(x, valid0_M, valid1_M, vector_ptr, OPERAND: tl.constexpr):
    """The same for the two places of level 1."""
    squares = row_sums2(x[0] * x[0], x[1] * x[1])
    return (
        _activated(x[0], squares[0], valid0_M, vector_ptr, OPERAND),
        _activated(x[1], squares[1], valid1_M, vector_ptr, OPERAND),
    )


@triton.jit
def _activated4(x, valid, vector_ptr, OPERAND: tl.constexpr):
    """The same for the four places of level 0."""
    squares = row_sums4(x[0] * x[0], x[1] * x[1], x[2] * x[2], x[3] * x[3])
    return (
        _activated(x[0], squares[0], valid[0], vector_ptr, OPERAND),
        _activated(x[1], squares[1], valid[1], vector_ptr, OPERAND),
        _activated(x[2], squares[2], valid[2], vector_ptr, OPERAND),
        _activated(x[3], squares[3], valid[3], vector_ptr, OPERAND),
    )


@triton.jit
def _down(
    x, older3, valid, tile_ptr, vector_ptr, M: tl.constexpr, C1: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr
):
    """Level 1 from the four places of level 0 and the block before's last."""
    bias = rows(vector_ptr, M, C1)
    half0 = _conv(older3, x[0], x[1], tile_ptr, bias, PRECISION)
    half1 = _conv(x[1], x[2], x[3], tile_ptr, bias, PRECISION)
    return _activated2((half0, half1), valid[4], valid[5], vector_ptr, OPERAND)


@triton.jit
def _up_to_1(g, h, older1, moves, valid, tile_ptr, vector_ptr, OPERAND: tl.constexpr, PRECISION: tl.constexpr):
    """Level 1 on the way up, from level 2 and the skip connection.

    Up-sampling repeats g, so that taps which read it twice are summed beforehand: four tiles instead of two convolutions.
    """
    M: tl.constexpr = g.shape[0]
    C1: tl.constexpr = h[0].shape[1]
    TILE: tl.constexpr = g.shape[1] * C1
    skip_ptr = tile_ptr + 4 * TILE
    bias = rows(vector_ptr, M, C1)
    half0 = _tap(g, tile_ptr + TILE, _tap(_moved(moves[0], g, PRECISION), tile_ptr, bias, PRECISION), PRECISION)
    half1 = _tap(g, tile_ptr + 2 * TILE, bias, PRECISION)
    half1 = _tap(_moved(moves[1], g, PRECISION), tile_ptr + 3 * TILE, half1, PRECISION)
    half0 = _conv(older1, h[0], h[1], skip_ptr, half0, PRECISION)
    half1 = _conv(h[0], h[1], _moved(moves[1], h[0], PRECISION), skip_ptr, half1, PRECISION)
    return _activated2((half0, half1), valid[4], valid[5], vector_ptr, OPERAND)


@triton.jit
def _up_to_0(u, x, moves, valid, tile_ptr, vector_ptr, OPERAND: tl.constexpr, PRECISION: tl.constexpr):
    """Level 0 on the way up, from the two places of level 1 and the skip connection, with tiles as in _up_to_1."""
    M: tl.constexpr = u[0].shape[0]
    C0: tl.constexpr = x[0].shape[1]
    TILE: tl.constexpr = u[0].shape[1] * C0
    bias = rows(vector_ptr, M, C0)
    place0 = _tap(_moved(moves[0], u[1], PRECISION), tile_ptr, bias, PRECISION)
    place0 = _tap(u[0], tile_ptr + TILE, place0, PRECISION)
    place1 = _tap(u[1], tile_ptr + 3 * TILE, _tap(u[0], tile_ptr + 2 * TILE, bias, PRECISION), PRECISION)
    place2 = _tap(u[1], tile_ptr + TILE, _tap(u[0], tile_ptr, bias, PRECISION), PRECISION)
    place3 = _tap(u[1], tile_ptr + 2 * TILE, bias, PRECISION)
    place3 = _tap(_moved(moves[1], u[0], PRECISION), tile_ptr + 3 * TILE, place3, PRECISION)
    places = conv4(x, moves, tile_ptr + 4 * TILE, (place0, place1, place2, place3), PRECISION)
    return _activated4(places, valid, vector_ptr, OPERAND)


@triton.jit
def unet(
    z,
    first,
    moves,
    valid,
    tiles_ptr,
    vectors_ptr,
    C1: tl.constexpr,
    C2: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """ẑ0 of the four places, float32 and not yet masked, from z of the four places and the condition's share of the first layer."""
    M: tl.constexpr = z[0].shape[0]
    D: tl.constexpr = z[0].shape[1]
    C0: tl.constexpr = first[0].shape[1]
    down1_ptr = tiles_ptr + 3 * D * C0
    down2_ptr = down1_ptr + 3 * C0 * C1
    up1_ptr = down2_ptr + 3 * C1 * C2
    up2_ptr = up1_ptr + (4 * C2 + 3 * C1) * C1
    last_ptr = up2_ptr + (4 * C1 + 3 * C0) * C0
    z = (narrow(z[0], OPERAND), narrow(z[1], OPERAND), narrow(z[2], OPERAND), narrow(z[3], OPERAND))
    x = _activated4(conv4(z, moves, tiles_ptr, first, PRECISION), valid, vectors_ptr, OPERAND)
    vector1_ptr = vectors_ptr + 3 * C0
    h = _down(x, _moved(moves[0], x[3], PRECISION), valid, down1_ptr, vector1_ptr, M, C1, OPERAND, PRECISION)
    older1 = _moved(moves[0], h[1], PRECISION)
    vector2_ptr = vector1_ptr + 3 * C1
    g = _conv(older1, h[0], h[1], down2_ptr, rows(vector2_ptr, M, C2), PRECISION)
    g = _activated(g, tl.sum(g * g, 1), valid[6], vector2_ptr, OPERAND)
    vector3_ptr = vector2_ptr + 3 * C2
    u = _up_to_1(g, h, older1, moves, valid, up1_ptr, vector3_ptr, OPERAND, PRECISION)
    v = _up_to_0(u, x, moves, valid, up2_ptr, vector3_ptr + 3 * C1, OPERAND, PRECISION)
    bias = rows(vector3_ptr + 3 * C1 + 3 * C0, M, D)
    return conv4(v, moves, last_ptr, (bias, bias, bias, bias), PRECISION)
