"""The reverse process in one launch: a program runs every step for a few users, their state in registers throughout.

The weights lie in shared memory from before the first step where they fit; else (STREAM) every step reads them again. What the
condition adds to the first layer is the same in every step: a small tile keeps it in registers, a large one in the cache (SCRATCH).
"""

# M rows of a tile: users × R blocks of four positions that end at the newest one (triton_unet.py); L positions; D width of a
# position; C0 C1 C2 channels of the levels; N noise tensors; S steps

import triton
import triton.language as tl

from kernels.diffusion_reverse.triton_noise import normals
from kernels.diffusion_reverse.triton_unet import conv4, rows, unet
from kernels.interpreter import narrow


@triton.jit
def _load4(ptr, offset_M, valid, D: tl.constexpr):
    """Rows of D numbers at an offset of the oldest place, for all four places; 0 at padding."""
    index_MD = offset_M[:, None] * D + tl.arange(0, D)[None, :]
    return (
        tl.load(ptr + index_MD, mask=valid[0][:, None] > 0, other=0.0),
        tl.load(ptr + index_MD + D, mask=valid[1][:, None] > 0, other=0.0),
        tl.load(ptr + index_MD + 2 * D, mask=valid[2][:, None] > 0, other=0.0),
        tl.load(ptr + index_MD + 3 * D, mask=valid[3][:, None] > 0, other=0.0),
    )


@triton.jit
def _noise4(noise_ptr, start_M, seed, row_M, place_M, valid, D: tl.constexpr, KEYED: tl.constexpr):
    """Standard normals for the four places, 0 at padding: those given from start on, or the key's of positions place … + 3."""
    if KEYED:
        return (
            normals(seed, row_M, place_M, D) * valid[0][:, None],
            normals(seed, row_M, place_M + 1, D) * valid[1][:, None],
            normals(seed, row_M, place_M + 2, D) * valid[2][:, None],
            normals(seed, row_M, place_M + 3, D) * valid[3][:, None],
        )
    return _load4(noise_ptr, start_M, valid, D)


@triton.jit
def _validity(valid_ptr, user_M, place_M, inside_M, num_positions):
    """Of the four places of level 0, of the two of level 1, of level 2, and of the positions before and after the block."""
    place_M8 = place_M[:, None] - 1 + tl.arange(0, 8)[None, :]
    inside_M8 = inside_M[:, None] & (place_M8 >= 0) & (place_M8 < num_positions)
    valid_M8 = tl.load(valid_ptr + user_M[:, None] * num_positions + place_M8, mask=inside_M8, other=0).to(tl.float32)
    v0, v1, v2, v3 = _column(valid_M8, 1), _column(valid_M8, 2), _column(valid_M8, 3), _column(valid_M8, 4)
    half0, half1 = tl.maximum(v0, v1), tl.maximum(v2, v3)
    return v0, v1, v2, v3, half0, half1, tl.maximum(half0, half1), _column(valid_M8, 0), _column(valid_M8, 5)


@triton.jit
def _column(x_M8, place: tl.constexpr):
    """One column, by a sum: Triton lays a dot's operands out by the narrowest load that elementwise operations lead back to.

    With the mask's bytes in sight, it would pack four bfloat16 where the hardware takes two, and sort them in every step.
    """
    return tl.sum(tl.where(tl.arange(0, 8)[None, :] == place, x_M8, 0.0), 1)


@triton.jit
def _signalled(first, valid, signal_ptr, C0: tl.constexpr):
    """The first layer's sums with the step's signal, whose three taps reach from valid positions only."""
    channel = tl.arange(0, C0)
    tap0, tap1, tap2 = tl.load(signal_ptr + channel), tl.load(signal_ptr + C0 + channel), tl.load(signal_ptr + 2 * C0 + channel)
    tap0, tap1, tap2 = tap0[None, :], tap1[None, :], tap2[None, :]
    return (
        first[0] + valid[7][:, None] * tap0 + valid[0][:, None] * tap1 + valid[1][:, None] * tap2,
        first[1] + valid[0][:, None] * tap0 + valid[1][:, None] * tap1 + valid[2][:, None] * tap2,
        first[2] + valid[1][:, None] * tap0 + valid[2][:, None] * tap1 + valid[3][:, None] * tap2,
        first[3] + valid[2][:, None] * tap0 + valid[3][:, None] * tap1 + valid[8][:, None] * tap2,
    )


@triton.jit
def _condition_sums(
    condition_ptr,
    start_M,
    moves,
    valid,
    tiles_ptr,
    vectors_ptr,
    D: tl.constexpr,
    C0: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The condition's share of the first layer, bias included: the same in every step."""
    c = _load4(condition_ptr, start_M, valid, D)
    c = (narrow(c[0], OPERAND), narrow(c[1], OPERAND), narrow(c[2], OPERAND), narrow(c[3], OPERAND))
    bias = rows(vectors_ptr, start_M.shape[0], C0)
    return conv4(c, moves, tiles_ptr, (bias, bias, bias, bias), PRECISION)


@triton.jit
def _scratch_index(M: tl.constexpr, C0: tl.constexpr):
    """[M, C0] of the oldest place, the others M·C0 apart."""
    row_M = tl.program_id(0).to(tl.int64) * (4 * M) + tl.arange(0, M)
    return row_M[:, None] * C0 + tl.arange(0, C0)[None, :]


@triton.jit
def _store_scratch(scratch_ptr, sums):
    """Leave a program's four sums in its own part of the scratch memory."""
    M: tl.constexpr = sums[0].shape[0]
    C0: tl.constexpr = sums[0].shape[1]
    index_MO = _scratch_index(M, C0)
    for place in tl.static_range(4):
        tl.store(scratch_ptr + index_MO + place * M * C0, sums[place])
    tl.debug_barrier()  # other threads read them


@triton.jit
def _load_scratch(scratch_ptr, M: tl.constexpr, C0: tl.constexpr):
    """What _store_scratch left."""
    index_MO = _scratch_index(M, C0)
    return (
        tl.load(scratch_ptr + index_MO),
        tl.load(scratch_ptr + index_MO + M * C0),
        tl.load(scratch_ptr + index_MO + 2 * M * C0),
        tl.load(scratch_ptr + index_MO + 3 * M * C0),
    )


@triton.jit
def _moves(M: tl.constexpr, R: tl.constexpr, OPERAND: tl.constexpr):
    """[M, M] each: row r takes row r − 1, row r + 1, of the same user."""
    to, source = tl.arange(0, M)[:, None], tl.arange(0, M)[None, :]
    same_user = (to // R) == (source // R)
    return (same_user & (to == source + 1)).to(tl.float32).to(OPERAND), (same_user & (to == source - 1)).to(tl.float32).to(OPERAND)


@triton.jit
def _stepped(z, denoised, valid, coefficient_ptr):
    """The next step's z, without noise (eq. 16-17)."""
    of_z0, of_z = tl.load(coefficient_ptr), tl.load(coefficient_ptr + 1)
    return (
        of_z0 * denoised[0] * valid[0][:, None] + of_z * z[0],
        of_z0 * denoised[1] * valid[1][:, None] + of_z * z[1],
        of_z0 * denoised[2] * valid[2][:, None] + of_z * z[2],
        of_z0 * denoised[3] * valid[3][:, None] + of_z * z[3],
    )


@triton.jit
def reverse_kernel(
    condition_ptr,
    valid_ptr,
    noise_ptr,
    row_ptr,
    seed,
    tiles_ptr,
    vectors_ptr,
    coefficient_ptr,
    signal_ptr,
    scratch_ptr,
    out_ptr,
    num_rows,
    num_positions,
    num_noise,
    num_steps,
    zero,
    D: tl.constexpr,
    C0: tl.constexpr,
    C1: tl.constexpr,
    C2: tl.constexpr,
    R: tl.constexpr,
    M: tl.constexpr,
    KEYED: tl.constexpr,
    NOISY: tl.constexpr,
    SIGNAL: tl.constexpr,
    STREAM: tl.constexpr,
    SCRATCH: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """z_0 of the newest position of every row, [B, D]; the arguments are those of `launch`, and `zero` is 0."""
    num_blocks = tl.cdiv(num_positions, 4)
    block_M = tl.arange(0, M) % R
    user_M = tl.program_id(0).to(tl.int64) * (M // R) + tl.arange(0, M) // R
    inside_M = (user_M < num_rows) & (block_M < num_blocks)
    place_M = num_positions - 4 * (num_blocks - block_M)  # of the oldest of the block, in the row; negative ones are padding
    valid = _validity(valid_ptr, user_M, place_M, inside_M, num_positions)
    moves = _moves(M, R, OPERAND)
    start_M = user_M * num_positions + place_M
    first = _condition_sums(condition_ptr, start_M, moves, valid, tiles_ptr, vectors_ptr, D, C0, OPERAND, PRECISION)
    if SCRATCH:
        _store_scratch(scratch_ptr, first)
    noise_M = user_M * num_noise * num_positions + place_M
    row_M = user_M
    if KEYED:
        row_M = tl.load(row_ptr + user_M, mask=inside_M, other=0)
    z = _noise4(noise_ptr, noise_M, seed, row_M, place_M, valid, D, KEYED)
    for step in tl.range(0, num_steps):
        if STREAM:
            tl.debug_barrier()  # a load behind it is not moved before the loop
        sums, step_vectors_ptr = first, vectors_ptr
        if SCRATCH:
            # what lies at an address that hangs on the step is read in every step, and takes no registers before
            sums, step_vectors_ptr = _load_scratch(scratch_ptr + step * zero, M, C0), vectors_ptr + step * zero
        if SIGNAL:
            sums = _signalled(sums, valid, signal_ptr + step * 3 * C0, C0)
        denoised = unet(z, sums, moves, valid, tiles_ptr + 3 * D * C0, step_vectors_ptr, C1, C2, OPERAND, PRECISION)
        z = _stepped(z, denoised, valid, coefficient_ptr + 3 * step)
        if NOISY:
            later = tl.minimum(step + 1, num_noise - 1) * num_positions  # the last step's has a coefficient of 0
            noise = _noise4(noise_ptr, noise_M + later, seed, row_M, place_M + later, valid, D, KEYED)
            of_noise = tl.load(coefficient_ptr + 3 * step + 2)
            z = (z[0] + of_noise * noise[0], z[1] + of_noise * noise[1], z[2] + of_noise * noise[2], z[3] + of_noise * noise[3])
    newest_M1 = (inside_M & (block_M == num_blocks - 1))[:, None]
    tl.store(out_ptr + user_M[:, None] * D + tl.arange(0, D)[None, :], z[3], mask=newest_M1)
