"""Every kernel's PyTorch operator is a good citizen: its schema says what it does, gradients are registered where they belong."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kernels.diffusion_reverse import diffusion_reverse, diffusion_reverse_keyed
from kernels.item_softmax import item_softmax
from kernels.lss_score import lss_score, score_stored, top_stored
from kernels.target_attention import dice_gate, target_attention, target_attention_all
from tests.kernels.devices import KERNEL_DEVICE
from tests.kernels.reverse_cases import on, random_layers, random_rows, random_steps
from tests.kernels.test_item_softmax import random_inputs as softmax_inputs
from tests.kernels.test_lss_score_triton import random_pairs, random_requests, random_store
from tests.kernels.test_target_attention_triton import random_inputs as attention_inputs

NAMESPACE = "crosstower::"
CHECKS = ("test_schema", "test_autograd_registration", *(("test_faketensor",) if KERNEL_DEVICE.type == "cuda" else ()))
"""The interpreter, which works on a tensor's memory, cannot run on tensors that have none."""


class _Recorder(TorchDispatchMode):
    """Notes the arguments of the first call of each of our operators."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name().startswith(NAMESPACE):
            self.calls.setdefault(func, args)
        return func(*args, **(kwargs or {}))


def _reverse():
    *rows, row_id_B, layers, steps = on(
        KERNEL_DEVICE, *random_rows(2, 5, 16, 1), torch.arange(2), random_layers(16), random_steps(1)
    )
    diffusion_reverse(*rows, layers, steps, None, "triton")
    diffusion_reverse_keyed(*rows[:2], row_id_B, 3, 1, layers, steps, None, "triton")


def _softmax():
    user_BC, item_MC, target_B, log_q_M = softmax_inputs(3, 10, 4)
    item_softmax(user_BC, item_MC, target_B, chunk_items=10, log_q_M=log_q_M, backend="triton").sum().backward()


def _scorer():
    lss_score(*random_pairs(3), backend="triton").sum().backward()
    user_BNUP, candidate_BK, weights = random_requests(2, 6)
    score_stored(user_BNUP, random_store(torch.float16), candidate_BK, weights, "triton")
    top_stored(user_BNUP, random_store(torch.float16), candidate_BK, weights, 3, "triton")


def _attention():
    history_JD, lengths_B, query_BD, weights = attention_inputs([2, 0, 3], dim=4, widths=(10, 6))
    target_attention(history_JD, lengths_B, query_BD, weights, backend="triton").sum().backward()
    with torch.no_grad():
        target_attention_all(history_JD, lengths_B, query_BD, weights, backend="triton")
    hidden_XC, normal_XC, alpha_C = (torch.randn(shape, device=KERNEL_DEVICE).requires_grad_() for shape in ((5, 4), (5, 4), (4,)))
    dice_gate(hidden_XC, normal_XC, alpha_C, "triton").sum().backward()


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (_reverse, {"diffusion_reverse", "diffusion_reverse_keyed"}),
        (_softmax, {"item_softmax", "item_softmax_user_gradient", "item_softmax_item_gradient"}),
        (_scorer, {"lss_score", "lss_score_backward", "lss_stored_scores", "lss_stored_top"}),
        (
            _attention,
            {"target_attention", "target_attention_all", "target_attention_backward", "dice_gate", "dice_gate_backward"},
        ),
    ],
)
def test_operators_pass_the_checks_of_pytorch(call, names):
    torch.manual_seed(0)
    with _Recorder() as recorder:
        call()
    assert {operator.name().removeprefix(NAMESPACE) for operator in recorder.calls} == names
    for operator, arguments in recorder.calls.items():
        torch.library.opcheck(operator, arguments, test_utils=CHECKS)
