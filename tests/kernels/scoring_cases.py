"""The kernels of lss_score, target_attention and item_softmax at FIT's and T2Diff's default shapes, to compile for sm_90."""

from tests.kernels.kernel_case import KernelCase


def _of(kernel: str, floats: str, *, others: dict[str, str], constants: dict[str, object], **bounds: int) -> KernelCase:
    """A case whose arguments `floats` point to float32."""
    signature = dict.fromkeys(floats.split(), "*fp32") | others
    return KernelCase(kernel=kernel, signature=signature, constants=constants, **bounds)


_LSS = "kernels.lss_score.triton_kernel"
_STORED = "kernels.lss_score.triton_serving"
_SCORER = "weight1 bias1 weight2 bias2 weight3"
_SCORER_SIZES = {"U": 2, "V": 2, "P": 64, "D": 16, "BLOCK_P": 64, "BLOCK_D": 16}
_STORED_SIZES = {
    "num_candidates": "i32",
    "num_items": "i32",
    "num_queries": "i32",
    "num_tiles": "i32",
    "index": "*u8",
    "candidate": "*i64",
}
_SMALL_TILE, _LARGE_TILE = {"BLOCK_R": 16, "BLOCK_I": 16, "PIECES": 1}, {"BLOCK_R": 128, "BLOCK_I": 1, "PIECES": 4}
_TOP = {"KEYS": True, "OVERLAP": True}

_ATTENTION = "kernels.target_attention.triton_kernel"
_NETWORK = "mean1 var1 alpha1 weight2 bias2 mean2 var2 alpha2 weight3 bias3"
_FIRST = "history query base history_weight product_weight"
_ATTENTION_SIZES = {"offset": "*i64", "num_rows": "i32", "eps1": "fp32", "eps2": "fp32"}
_ATTENTION_CONSTANTS = {
    "D": 32, "C": 64, "E": 16, "BLOCK_D": 32, "BLOCK_C": 64, "BLOCK_E": 16, "PRECISION": "tf32x3",
}  # fmt: skip
_FORWARD_TILE, _BACKWARD_TILE = {"BLOCK_L": 32, "ROWS": 4}, {"BLOCK_L": 16, "ROWS": 16}
_PARTS = "part_history part_product part_alpha1 part_weight2 part_bias2 part_alpha2 part_weight3 part_bias3"

_SOFTMAX = "kernels.item_softmax.triton_kernel"
_SOFTMAX_SIZES = {"target": "*i64", "num_rows": "i32", "num_items": "i32"}
_SOFTMAX_CONSTANTS = {"C": 64, "BLOCK_B": 64, "BLOCK_M": 64, "BLOCK_C": 64, "PRECISION": "tf32x3"}

SCORING_CASES = {
    "lss_score": _of(
        f"{_LSS}:forward_kernel",
        f"user item {_SCORER} out",
        others={"num_pairs": "i32"},
        constants=_SCORER_SIZES | _LARGE_TILE,
        max_registers=168,
        max_shared_bytes=16 * 1024,
    ),
    "lss_score_backward": _of(
        f"{_LSS}:backward_kernel",
        f"user item {_SCORER} grad grad_user grad_item part1 part_bias1 part2 part_bias2 part3",
        others={"num_pairs": "i32"},
        constants=_SCORER_SIZES | {"BLOCK_R": 16},
        max_registers=128,
        max_shared_bytes=8192,
    ),
    "lss_stored_scores": _of(
        f"{_STORED}:score_kernel",
        f"user {_SCORER} score",
        others=_STORED_SIZES | {"vector": "*fp16"},
        constants=_SCORER_SIZES | {"BLOCK_R": 256, "BLOCK_I": 1, "PIECES": 4, "scale": None, "KEYS": False, "OVERLAP": False},
        num_warps=8,
        max_registers=168,
        max_shared_bytes=16 * 1024,
    ),
    "lss_stored_keys_int8": _of(
        f"{_STORED}:score_kernel",
        f"user scale {_SCORER}",
        others=_STORED_SIZES | {"vector": "*i8", "score": "*i32"},
        constants=_SCORER_SIZES | _SMALL_TILE | _TOP,
        max_registers=168,
        max_shared_bytes=16 * 1024,
    ),
    "lss_stored_ranks": _of(
        f"{_STORED}:rank_kernel",
        "top_score",
        others={"key": "*i32", "top_column": "*i64", "num_candidates": "i32", "num_top": "i32"},
        constants={"BLOCK_R": 16, "CHUNK": 2048, "OVERLAP": True},
        max_registers=128,
        max_shared_bytes=1024,
    ),
    "target_attention": _of(
        f"{_ATTENTION}:forward_kernel",
        f"{_FIRST} {_NETWORK} out",
        others=_ATTENTION_SIZES | {"num_queries": "i32"},
        constants=_ATTENTION_CONSTANTS | _FORWARD_TILE | {"EVERY": False},
        num_warps=8,
        max_shared_bytes=64 * 1024,
    ),
    "target_attention_all": _of(
        f"{_ATTENTION}:forward_kernel",
        f"{_FIRST} {_NETWORK} out",
        others=_ATTENTION_SIZES | {"num_queries": "i32"},
        constants=_ATTENTION_CONSTANTS | _FORWARD_TILE | {"EVERY": True},
        num_warps=8,
        max_shared_bytes=64 * 1024,
    ),
    "target_attention_backward": _of(
        f"{_ATTENTION}:backward_kernel",
        f"{_FIRST} {_NETWORK} grad grad_history grad_query grad_base {_PARTS}",
        others=_ATTENTION_SIZES,
        constants=_ATTENTION_CONSTANTS | _BACKWARD_TILE,
        num_warps=8,
        num_stages=1,
        max_spilled_bytes=256,  # 48 with Triton 3.7.1, 184 with 3.6.0
        max_shared_bytes=96 * 1024,
    ),
    "dice_gate": _of(
        "kernels.target_attention.triton_dice:gate_kernel",
        "hidden normal alpha out",
        others={"num_rows": "i32"},
        constants={"C": 64, "BLOCK_X": 64, "BLOCK_C": 64},
        max_shared_bytes=16 * 1024,
    ),
    "dice_gate_backward": _of(
        "kernels.target_attention.triton_dice:gate_backward_kernel",
        "hidden normal alpha grad grad_hidden grad_normal part_alpha",
        others={"num_rows": "i32"},
        constants={"C": 64, "BLOCK_X": 64, "BLOCK_C": 64},
        max_shared_bytes=16 * 1024,
    ),
    "item_softmax": _of(
        f"{_SOFTMAX}:forward_kernel",
        "user item log_q part positive",
        others=_SOFTMAX_SIZES | {"share": "i32"},
        constants=_SOFTMAX_CONSTANTS,
        max_shared_bytes=128 * 1024,
    ),
    "item_softmax_user_gradient": _of(
        f"{_SOFTMAX}:user_kernel",
        "user item log_q logsumexp grad part",
        others=_SOFTMAX_SIZES | {"share": "i32"},
        constants=_SOFTMAX_CONSTANTS | {"BLOCK_M": 32},
        max_shared_bytes=160 * 1024,
    ),
    "item_softmax_item_gradient": _of(
        f"{_SOFTMAX}:item_kernel",
        "user item log_q logsumexp grad grad_item",
        others=_SOFTMAX_SIZES,
        constants=_SOFTMAX_CONSTANTS | {"BLOCK_B": 32, "BLOCK_M": 32},
        max_shared_bytes=160 * 1024,
    ),
}
