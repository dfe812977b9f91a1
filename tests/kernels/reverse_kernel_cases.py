"""The kernel of diffusion_reverse at T2Diff's default shape, to compile for sm_90: each way that its launcher has to set it up."""

import triton.language as tl

from tests.kernels.kernel_case import KernelCase

_SIGNATURE = {
    **dict.fromkeys(
        ["condition_ptr", "noise_ptr", "vectors_ptr", "coefficient_ptr", "signal_ptr", "scratch_ptr", "out_ptr"], "*fp32"
    ),
    **dict.fromkeys(["num_rows", "num_positions", "num_noise", "num_steps", "zero"], "i32"),
    "valid_ptr": "*i1",
    "row_ptr": "*i64",
    "seed": "i64",
}


def _case(
    rows: int,
    *,
    dim: int,
    operand: tl.dtype,
    num_warps: int,
    max_spilled_bytes: int,
    max_shared_bytes: int,
    blocks: int = 16,
    keyed: bool = False,
) -> KernelCase:
    narrow = operand == tl.bfloat16
    sizes = {"D": dim, "C0": dim, "C1": 2 * dim, "C2": 2 * dim, "R": blocks, "M": rows}
    flags = {"KEYED": keyed, "NOISY": keyed, "SIGNAL": keyed, "STREAM": not narrow, "SCRATCH": rows > 16}
    return KernelCase(
        kernel="kernels.diffusion_reverse.triton_kernel:reverse_kernel",
        signature=_SIGNATURE | {"tiles_ptr": "*bf16" if narrow else "*fp32"},
        constants=sizes | flags | {"OPERAND": operand, "PRECISION": "tf32x3"},
        num_warps=num_warps,
        num_stages=1,
        max_spilled_bytes=max_spilled_bytes,
        max_shared_bytes=max_shared_bytes,
    )


REVERSE_CASES = {
    "diffusion_reverse, a user": _case(
        16, dim=32, operand=tl.bfloat16, num_warps=8, max_spilled_bytes=64, max_shared_bytes=144 * 1024
    ),
    "diffusion_reverse, four users, keyed noise, steps told": _case(
        64, dim=32, operand=tl.bfloat16, num_warps=4, max_spilled_bytes=6144, max_shared_bytes=160 * 1024, keyed=True
    ),
    "diffusion_reverse, a user of 128 blocks": _case(
        128, dim=32, blocks=128, operand=tl.bfloat16, num_warps=8, max_spilled_bytes=8192, max_shared_bytes=200 * 1024
    ),
    "diffusion_reverse, a user of 32 blocks": _case(
        32, dim=32, blocks=32, operand=tl.bfloat16, num_warps=4, max_spilled_bytes=2048, max_shared_bytes=160 * 1024
    ),
    # half the width: the same code, in a fraction of the time that width 32 takes to compile
    "diffusion_reverse, a user, float32": _case(
        16, dim=16, operand=tl.float32, num_warps=4, max_spilled_bytes=6144, max_shared_bytes=16 * 1024
    ),
}
