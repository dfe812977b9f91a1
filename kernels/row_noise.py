"""Standard normals that belong to a row: the same whatever batch, rank or order the row comes in.

The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011) in int64
arithmetic, which every device has; its words are what Triton's `tl.philox` gives for the same key and counter. Everything scripts
(hence the constants inside functions: TorchScript sees none of a module), so that an exported user tower can draw its own noise.
"""

# B rows, W words, X numbers of a row, Q = ceil(X / 4) counters of a row

import math

import torch


def philox_words(counter: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], seed: int) -> list[torch.Tensor]:
    """Four uniform 32-bit words for each counter.

    Args:
        counter: the counter's words c0 … c3, int64 in [0, 2^32), which broadcast against each other.
        seed: the key, in [0, 2^64): low word k0, high word k1.

    Returns:
        Four int64 tensors in [0, 2^32), of the counter's broadcast shape.
    """
    low = 0xFFFF_FFFF
    c0, c1, c2, c3 = counter
    k0, k1 = seed & low, seed >> 32
    for _ in range(10):
        # the 64-bit products wrap around into the sign; shift and mask give the right words all the same
        product0, product1 = c0 * 0xD251_1F53, c2 * 0xCD9E_8D57
        c0, c2 = ((product1 >> 32) & low) ^ c1 ^ k0, ((product0 >> 32) & low) ^ c3 ^ k1
        c1, c3 = product1 & low, product0 & low
        k0, k1 = (k0 + 0x9E37_79B9) & low, (k1 + 0xBB67_AE85) & low
    return [c0, c1, c2, c3]


def normal_of_rows(row_id_B: torch.Tensor, size: int, seed: int, block: int = 1 << 18) -> torch.Tensor:
    """Standard normals, float32 [B, size], on row_id_B's device; number i of a row is a function of (seed, row id, i) alone.

    Counter of numbers 4q … 4q+3: (q, 0, low and high word of the row id); each pair of words becomes two normals by Box and
    Muller's transform. Two devices agree to float32 rounding.

    Args:
        row_id_B: int64 [B]; equal ids give equal rows.
        size: X.
        seed: in [0, 2^64); scripted, whose integers have 64 bits with a sign, in [0, 2^63).
        block: counters that are computed at once; the default keeps the int64 and float64 temporaries at a few tens of megabytes.

    Raises:
        ValueError: an argument is outside its range (scripted: not checked).

    Example::

        normal_of_rows(torch.tensor([7, 8]), 50 * 32, seed=0).view(2, 50, 32)
    """
    if not torch.jit.is_scripting():
        _check(row_id_B, size, seed)
    num_rows, device = row_id_B.shape[0], row_id_B.device
    output_BX = torch.empty(num_rows, size, device=device)
    num_counters = (size + 3) // 4
    columns = max(1, min(num_counters, block))
    rows = max(1, block // columns)
    for row in range(0, num_rows, rows):
        for column in range(0, num_counters, columns):
            counter_Q = torch.arange(column, min(column + columns, num_counters), device=device)
            block_BX = _normals(row_id_B[row : row + rows], counter_Q, seed)
            target_BX = output_BX[row : row + rows, 4 * column : 4 * column + block_BX.shape[1]]
            target_BX.copy_(block_BX[:, : target_BX.shape[1]])
    return output_BX


def _check(row_id_B: torch.Tensor, size: int, seed: int) -> None:
    if row_id_B.dtype != torch.int64 or row_id_B.dim() != 1:
        raise ValueError(f"row_id_B is {row_id_B.dtype} of shape {tuple(row_id_B.shape)}, expected int64 [B]")
    if size < 0 or not 0 <= seed < 2**64:
        raise ValueError(f"normal_of_rows(size={size}, seed={seed}), expected size >= 0 and 0 <= seed < 2^64")


def _normals(row_id_B: torch.Tensor, counter_Q: torch.Tensor, seed: int) -> torch.Tensor:
    """float64 [B, 4Q]."""
    row_B1 = row_id_B.unsqueeze(1)
    counter_BQ = counter_Q.expand(row_id_B.shape[0], -1)
    zero = torch.zeros_like(counter_Q)
    low = 0xFFFF_FFFF
    words = philox_words((counter_BQ, zero, row_B1 & low, (row_B1 >> 32) & low), seed)
    normals: list[torch.Tensor] = []
    for pair in range(2):
        first_BQ, second_BQ = words[2 * pair], words[2 * pair + 1]
        # float64: a uniform number in (0, 1) keeps all 32 bits, and float32 results don't depend on a library's last bit
        # nothing in place on what `double` returns: for all that torch.jit knows it may be its argument, and a scripted module that
        # seems to write there has no weight that torch.jit.freeze would take for a constant
        radius_BQ = (first_BQ.double() + 0.5).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
        angle_BQ = second_BQ.double() * (2.0 * math.pi * 2.0**-32)
        normals += [radius_BQ * angle_BQ.cos(), radius_BQ * angle_BQ.sin()]
    return torch.stack(normals, dim=2).flatten(1)
