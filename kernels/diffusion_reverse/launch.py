"""The kernel as PyTorch operators, which torch.export and AOTInductor can carry, and how its tiles are chosen."""

# B rows, L positions, D width, N noise tensors, S steps, O channels of level 0, M rows of a tile

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch.library import triton_op

from kernels.diffusion_reverse.triton_kernel import reverse_kernel
from kernels.interpreter import run_kernel

NUM_WARPS = {torch.bfloat16: {16: 8, 32: 4, 64: 4, 128: 8}, torch.float32: {16: 4, 32: 4, 64: 4}}
"""Operands' type -> rows of a tile -> warps of its program."""
SMALL_TILE, LARGE_TILE, MAX_TILE = 16, 64, 128
"""Rows of the tile for a user at a time, of that for four, and of the largest, which the longest histories alone need."""
LARGE_TILE_TIME = 3.6
"""What a program of the large tile takes, the small tile's time being 1 (both measured on an H100, for 13 blocks of a user)."""
BLOCK = 4
"""Positions of a block."""
MAX_POSITIONS = {torch.bfloat16: BLOCK * MAX_TILE, torch.float32: BLOCK * MAX_TILE // 2}
"""Operands' type -> positions of a history: its blocks fill a tile, of which the largest in float32 would take 254 KB of shared
memory, more than an H100 has."""
SHARED_BYTES = 160 * 1024
"""Of weights that may lie in the 227 KB of shared memory of an H100's program; the rest is for what its warps exchange."""


@triton_op("crosstower::diffusion_reverse", mutates_args=())
def reverse_from_noise(
    condition_BLD: torch.Tensor,
    valid_BL: torch.Tensor,
    noise_BNLD: torch.Tensor,
    tiles: torch.Tensor,
    vectors: torch.Tensor,
    coefficient_S3: torch.Tensor,
    signal_S3O: torch.Tensor | None,
    widths: Sequence[int],
) -> torch.Tensor:
    """z_0 [B, D] from given noise; tiles, vectors and widths are those of PackedWeights, signals those of signal_taps."""
    process = (tiles, vectors, coefficient_S3, signal_S3O, widths)
    return _launched(condition_BLD, valid_BL, noise_BNLD, None, 0, noise_BNLD.shape[1], *process)


@triton_op("crosstower::diffusion_reverse_keyed", mutates_args=())
def reverse_from_key(
    condition_BLD: torch.Tensor,
    valid_BL: torch.Tensor,
    row_id_B: torch.Tensor,
    seed: int,
    num_noise: int,
    tiles: torch.Tensor,
    vectors: torch.Tensor,
    coefficient_S3: torch.Tensor,
    signal_S3O: torch.Tensor | None,
    widths: Sequence[int],
) -> torch.Tensor:
    """The same from the noise of kernels.row_noise, which is made where it is used."""
    process = (tiles, vectors, coefficient_S3, signal_S3O, widths)
    return _launched(condition_BLD, valid_BL, None, row_id_B, seed, num_noise, *process)


def _launched(
    condition_BLD: torch.Tensor,
    valid_BL: torch.Tensor,
    noise_BNLD: torch.Tensor | None,
    row_id_B: torch.Tensor | None,
    seed: int,
    num_noise: int,
    tiles: torch.Tensor,
    vectors: torch.Tensor,
    coefficient_S3: torch.Tensor,
    signal_S3O: torch.Tensor | None,
    widths: Sequence[int],
) -> torch.Tensor:
    constants = {
        **_constants(condition_BLD, tiles, widths),
        "KEYED": row_id_B is not None,
        "NOISY": num_noise > 1,
        "SIGNAL": signal_S3O is not None,
    }
    num_programs, scratch = _programs(condition_BLD, constants)
    out_BD = torch.empty_like(condition_BLD[:, 0])
    weights, sizes = (tiles, vectors, coefficient_S3, signal_S3O), (*condition_BLD.shape[:2], num_noise, coefficient_S3.shape[0], 0)
    inputs = (condition_BLD, valid_BL, noise_BNLD, row_id_B, seed)
    run_kernel(reverse_kernel, (num_programs,), *inputs, *weights, scratch, out_BD, *sizes, **constants)
    return out_BD


def _programs(condition_BLD: torch.Tensor, constants: dict[str, Any]) -> tuple[Any, torch.Tensor]:
    """Number of programs (symbolic where the number of rows is), and their scratch memory."""
    users = constants["M"] // constants["R"]
    num_programs = (condition_BLD.shape[0] + users - 1) // users
    size = num_programs * BLOCK * constants["M"] * constants["C0"] if constants["SCRATCH"] else 0
    return num_programs, condition_BLD.new_empty(size)


def _constants(condition_BLD: torch.Tensor, tiles: torch.Tensor, widths: Sequence[int]) -> dict[str, Any]:
    """Compile-time arguments and options that follow from the inputs."""
    num_rows, num_positions = condition_BLD.shape[:2]
    blocks = triton.next_power_of_2(-(-num_positions // BLOCK))
    num_units = torch.cuda.get_device_properties(condition_BLD.device).multi_processor_count if condition_BLD.is_cuda else 1
    narrow = tiles.dtype == torch.bfloat16
    # a float32 operand takes twice the registers: no more rows than needed
    tile = tile_rows(num_rows if narrow else 1, blocks=blocks, num_units=num_units)
    dim, width0, width1, width2 = widths
    return {
        "D": dim,
        "C0": width0,
        "C1": width1,
        "C2": width2,
        "R": blocks,
        "M": tile,
        "STREAM": tiles.numel() * tiles.element_size() > SHARED_BYTES,
        "SCRATCH": tile > SMALL_TILE,
        "OPERAND": tl.bfloat16 if narrow else tl.float32,
        "PRECISION": "tf32x3",
        "num_warps": NUM_WARPS[tiles.dtype][tile],
        "num_stages": 1,
    }


def tile_rows(num_rows: int, *, blocks: int, num_units: int) -> int:
    """M: the small tile or the large one, whichever is done first with one program at a time on each multiprocessor.

    Where a user's blocks fill more than the small tile, a tile is a user while that gives each multiprocessor at most one. Twice
    the small tile is no choice for shorter histories: Triton would lay its four warps along two warps' worth of rows.

    Args:
        num_rows: B; where it is symbolic (torch.export), the tile is the large one.
        blocks: of a user, a power of 2.
        num_units: multiprocessors of the device.
    """

    def time_of(tile: int, of_a_program: float) -> float:
        return -(-num_rows // (tile // blocks * num_units)) * of_a_program

    tile = LARGE_TILE
    if isinstance(num_rows, int):
        if blocks <= SMALL_TILE and time_of(SMALL_TILE, 1.0) <= time_of(LARGE_TILE, LARGE_TILE_TIME):
            tile = SMALL_TILE
        elif blocks > SMALL_TILE and num_rows <= num_units:
            tile = blocks
    return max(tile, blocks)
