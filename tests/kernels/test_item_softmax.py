"""The kernels of the cross-entropy over the catalogue compute what the reference does, and both what autograd does."""

import pytest
import torch
import torch.nn.functional as F

from kernels.item_softmax import item_softmax
from tests.kernels.devices import KERNEL_DEVICE
from tests.kernels.poison import poisoned

# B rows, M items, C vector width


def random_inputs(rows, items, width, *, dtype=torch.float32):
    torch.manual_seed(rows)
    user_BC, item_MC = torch.randn(rows, width), torch.randn(items, width)
    target_B, log_q_M = torch.randint(items, (rows,)), torch.rand(items).log()
    vectors = [tensor.to(KERNEL_DEVICE, dtype).requires_grad_() for tensor in (user_BC, item_MC)]
    return *vectors, target_B.to(KERNEL_DEVICE), log_q_M.to(KERNEL_DEVICE)


def with_gradients(loss_B, tensors):
    torch.manual_seed(1)
    weight_B = torch.randn(loss_B.shape, device=loss_B.device)
    return [loss_B.detach(), *torch.autograd.grad((loss_B * weight_B.to(loss_B.dtype)).sum(), tensors)]


def dense(user_BC, item_MC, target_B, log_q_M):
    return F.cross_entropy(user_BC @ item_MC.t() - log_q_M, target_B, reduction="none")


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize(("rows", "items", "width"), [(1, 1, 1), (63, 100, 20), (70, 63, 32), (2, 700, 5)])
def test_loss_and_gradients_with_correction_are_those_of_autograd(backend, rows, items, width):
    user_BC, item_MC, target_B, log_q_M = random_inputs(rows, items, width)
    with poisoned():
        loss_B = item_softmax(user_BC, item_MC, target_B, chunk_items=30, log_q_M=log_q_M, backend=backend)
        found = with_gradients(loss_B, [user_BC, item_MC])
    expected = with_gradients(dense(user_BC, item_MC, target_B, log_q_M), [user_BC, item_MC])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_kernel_without_correction_equals_the_reference():
    user_BC, item_MC, target_B, _ = random_inputs(40, 90, 16)
    ours, theirs = (
        with_gradients(item_softmax(user_BC, item_MC, target_B, chunk_items=30, backend=backend), [user_BC, item_MC])
        for backend in ("triton", "torch")
    )
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_kernel_of_bfloat16_vectors_errs_no_more_than_the_reference():
    user_BC, item_MC, target_B, log_q_M = random_inputs(63, 100, 32, dtype=torch.bfloat16)
    wide = [tensor.detach().double().requires_grad_() for tensor in (user_BC, item_MC)]
    exact = with_gradients(dense(*wide, target_B, log_q_M.double()), wide)
    ours, theirs = (
        with_gradients(
            item_softmax(user_BC, item_MC, target_B, chunk_items=100, log_q_M=log_q_M, backend=backend), [user_BC, item_MC]
        )
        for backend in ("triton", "torch")
    )
    for place, (found, baseline, expected) in enumerate(zip(ours, theirs, exact, strict=True)):
        assert found.dtype == baseline.dtype
        allowed = (2 if place == 0 else 5) * (baseline.double() - expected).abs().max()
        assert (found.double() - expected).abs().max() <= allowed


@pytest.mark.parametrize("needed", ["user", "item"])
def test_kernel_gives_the_one_gradient_that_is_wanted(needed):
    user_BC, item_MC, target_B, _ = random_inputs(3, 10, 4)
    (item_MC if needed == "user" else user_BC).requires_grad_(False)
    item_softmax(user_BC, item_MC, target_B, chunk_items=10, backend="triton").sum().backward()
    assert (user_BC.grad is None) == (needed == "item")
    assert (item_MC.grad is None) == (needed == "user")


def test_kernel_of_large_scores_stays_finite():
    user_BC, item_MC, target_B, _ = random_inputs(8, 20, 16)
    found = with_gradients(item_softmax(100 * user_BC, item_MC, target_B, chunk_items=7, backend="triton"), [user_BC, item_MC])
    expected = with_gradients(dense(100 * user_BC, item_MC, target_B, 0.0), [user_BC, item_MC])
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.isfinite(ours).all()
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_kernel_of_no_rows_has_zero_gradients():
    user_BC, item_MC, target_B, _ = random_inputs(0, 10, 4)
    loss_B = item_softmax(user_BC, item_MC, target_B, chunk_items=10, backend="triton")
    assert loss_B.shape == (0,)
    loss_B.sum().backward()
    assert torch.equal(item_MC.grad, torch.zeros_like(item_MC))


def test_vectors_too_wide_for_the_kernel_are_refused_by_it_and_left_to_the_reference_by_auto():
    user_BC, item_MC, target_B, _ = random_inputs(2, 5, 129)
    with pytest.raises(ValueError, match="width 129 and the kernel's have at most 128"):
        item_softmax(user_BC, item_MC, target_B, chunk_items=5, backend="triton")
    torch.testing.assert_close(item_softmax(user_BC, item_MC, target_B, chunk_items=5), dense(user_BC, item_MC, target_B, 0.0))


def test_correction_of_another_length_is_refused():
    user_BC, item_MC, target_B, log_q_M = random_inputs(3, 10, 4)
    with pytest.raises(ValueError, match=r"log_q_M has shape \(9,\), expected one entry per item, \[10\]"):
        item_softmax(user_BC, item_MC, target_B, chunk_items=10, log_q_M=log_q_M[:9])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rows_that_begin_beyond_2_to_the_31st_number_are_computed_as_any_other():
    _, item_MC, _, _ = random_inputs(1, 10, 64, dtype=torch.bfloat16)
    user_BC = torch.randn(2**25 + 3, 64, device="cuda", dtype=torch.bfloat16)
    target_B = torch.arange(len(user_BC), device="cuda") % 10
    found_B = item_softmax(user_BC, item_MC.detach(), target_B, chunk_items=10, backend="triton")
    expected_B = item_softmax(user_BC[-3:], item_MC.detach(), target_B[-3:], chunk_items=10, backend="triton")
    assert torch.equal(found_B[-3:], expected_B)
