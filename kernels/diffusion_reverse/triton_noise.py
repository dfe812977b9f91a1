"""The keyed noise of kernels.row_noise inside a kernel: the same words, normals equal up to float32 rounding."""

# M rows, W counters of a position (four numbers each), D = 4W numbers of a position

import triton
import triton.language as tl

from kernels.interpreter import IN_INTERPRETER

TWO_TO_MINUS_32 = tl.constexpr(2.0**-32)
TWO_PI = tl.constexpr(6.283185307179586)


@triton.jit
def _log_of_uniform(word):
    """ln((word + 1/2)·2^-32) without cancellation near 1, where it is taken of the distance to 1."""
    near_one = word >= 0x80000000
    distance = (tl.where(near_one, 0xFFFFFFFF - word, word).to(tl.float32) + 0.5) * TWO_TO_MINUS_32
    complement = 1.0 - distance
    lost = 1.0 - complement
    # ln(1 − d) of the rounded 1 − d, scaled back to d (Kahan)
    log1p = tl.where(lost == 0.0, -distance, tl.log(complement) * (distance / tl.where(lost == 0.0, 1.0, lost)))
    return tl.where(near_one, log1p, tl.log(distance))


@triton.jit
def _cos_sin(angle):
    """Of an angle of at most π either way, whose error the GPU's own instructions keep below 2^-20; libdevice's would spill."""
    if IN_INTERPRETER:
        both = tl.cos(angle), tl.sin(angle)
    else:
        both = (
            tl.inline_asm_elementwise("cos.approx.f32 $0, $1;", "=f,f", [angle], tl.float32, is_pure=True, pack=1),
            tl.inline_asm_elementwise("sin.approx.f32 $0, $1;", "=f,f", [angle], tl.float32, is_pure=True, pack=1),
        )
    return both


@triton.jit
def _box_muller(first, second):
    """Two independent standard normals from two words."""
    radius = tl.sqrt(-2.0 * _log_of_uniform(first))
    angle = second.to(tl.int32, bitcast=True).to(tl.float32) * (TWO_PI * TWO_TO_MINUS_32)  # less a turn for the upper half
    cos, sin = _cos_sin(angle)
    return radius * cos, radius * sin


@triton.jit
def normals(seed, row_M, place_M, D: tl.constexpr):
    """Standard normals, float32 [M, D]: numbers D·place … D·place + D − 1 of each row.

    Args:
        seed: int64, the key.
        row_M: int64 [M], row ids.
        place_M: int [M], at least 0.
        D: a multiple of 4.
    """
    M: tl.constexpr = row_M.shape[0]
    W: tl.constexpr = D // 4
    zero_MW = tl.zeros((M, W), tl.uint32)
    counter_MW = (place_M.to(tl.uint32) * W)[:, None] + tl.arange(0, W).to(tl.uint32)[None, :]
    low_MW = (row_M & 0xFFFFFFFF).to(tl.uint32)[:, None] + zero_MW
    high_MW = ((row_M >> 32) & 0xFFFFFFFF).to(tl.uint32)[:, None] + zero_MW
    word0, word1, word2, word3 = tl.philox(seed, counter_MW, zero_MW, low_MW, high_MW)
    normal0, normal1 = _box_muller(word0, word1)
    normal2, normal3 = _box_muller(word2, word3)
    return tl.reshape(tl.join(tl.join(normal0, normal2), tl.join(normal1, normal3)), (M, D))
