"""The activation unit's kernels compute what the references do, with every gradient, whatever the lengths of the histories."""

import pytest
import torch

from kernels.target_attention import (
    AttentionWeights,
    DiceWeights,
    dice_gate,
    reference,
    reference_all,
    target_attention,
    target_attention_all,
)
from tests.kernels.devices import KERNEL_DEVICE
from tests.kernels.poison import poisoned

# B rows, J history positions, D width of a position, C and E hidden widths, N queries, X activations


def random_inputs(lengths, *, dim=32, widths=(64, 16), dtype=torch.float32):
    """History, query and weights of one type, learned ones first; the statistics are given."""
    torch.manual_seed(sum(lengths) + dim)
    first, second = widths

    def random(*shape):
        return (torch.randn(shape, device=KERNEL_DEVICE) / max(1, shape[-1]) ** 0.5).to(dtype).requires_grad_()

    def dice(width):
        mean_C, var_C = random(width).detach(), random(width).detach() ** 2 + 0.5
        return DiceWeights(mean_C, var_C, random(width), 1e-8)

    layer1, layer2 = (random(first, 4 * dim), random(first)), (random(second, first), random(second))
    weights = AttentionWeights(*layer1, dice(first), *layer2, dice(second), random(1, second), random(1))
    return random(sum(lengths), dim), torch.tensor(lengths, device=KERNEL_DEVICE), random(len(lengths), dim), weights


def learned(history_JD, query_BD, weights):
    alphas = (weights.dice1.alpha_C, weights.dice2.alpha_C)
    return [history_JD, query_BD, *[weight for weight in weights if isinstance(weight, torch.Tensor)], *alphas]


def with_gradients(output, tensors):
    torch.manual_seed(1)
    weight = torch.randn(output.shape, device=output.device).to(output.dtype)
    return [output.detach(), *torch.autograd.grad((output * weight).sum(), tensors)]


def in_double(history_JD, lengths_B, query_BD, weights):
    def wide(tensor):
        return tensor.detach().double().requires_grad_(tensor.requires_grad)

    def wide_dice(dice):
        return DiceWeights(wide(dice.mean_C), wide(dice.var_C), wide(dice.alpha_C), dice.eps)

    tensors = [wide_dice(weight) if isinstance(weight, DiceWeights) else wide(weight) for weight in weights]
    return wide(history_JD), lengths_B, wide(query_BD), AttentionWeights(*tensors)


@pytest.mark.parametrize(
    ("lengths", "dim", "widths"),
    [([1], 32, (64, 16)), ([0, 33, 1, 29], 20, (10, 6)), ([3] * 20 + [40], 5, (64, 16)), ([0, 0], 4, (10, 6))],
    ids=["one", "63", "100", "empty"],
)
def test_fused_attention_equals_the_reference_with_every_gradient(lengths, dim, widths):
    history_JD, lengths_B, query_BD, weights = random_inputs(lengths, dim=dim, widths=widths)
    tensors = learned(history_JD, query_BD, weights)
    with poisoned():
        found = with_gradients(target_attention(history_JD, lengths_B, query_BD, weights, backend="triton"), tensors)
    expected = with_gradients(reference.target_attention(history_JD, lengths_B, query_BD, weights), tensors)
    for ours, theirs in zip(found, expected, strict=True):
        scale = theirs.abs().max().item() if theirs.numel() else 0.0
        torch.testing.assert_close(ours, theirs, atol=1e-5 * max(1.0, scale), rtol=0)
    assert (found[0][lengths_B == 0] == 0).all()


def test_fused_attention_in_bfloat16_errs_no_more_than_the_reference_in_bfloat16():
    rough = random_inputs([5, 0, 40], dtype=torch.bfloat16)
    wide = in_double(*rough)
    results = []
    for function, inputs in ((target_attention, rough), (reference.target_attention, rough), (reference.target_attention, wide)):
        options = {"backend": "triton"} if function is target_attention else {}
        results.append(with_gradients(function(*inputs, **options), learned(inputs[0], inputs[2], inputs[3])))
    for place, (ours, theirs, exact) in enumerate(zip(*results, strict=True)):
        assert ours.dtype == torch.bfloat16
        allowed = (2 if place == 0 else 5) * (theirs.double() - exact).abs().max()
        assert (ours.double() - exact).abs().max() <= allowed


@pytest.mark.parametrize(("lengths", "num_queries"), [([3, 0, 40, 1, 2], 3), ([1], 1), ([0], 2)])
def test_all_queries_in_one_launch_equal_the_reference(lengths, num_queries):
    history_JD, lengths_B, _, weights = random_inputs(lengths, dim=12, widths=(20, 6))
    query_ND = torch.randn(num_queries, 12, device=KERNEL_DEVICE)
    with torch.no_grad(), poisoned():
        found = target_attention_all(history_JD, lengths_B, query_ND, weights, backend="triton")
    torch.testing.assert_close(
        found, reference_all.target_attention_all(history_JD, lengths_B, query_ND, weights), atol=1e-5, rtol=0
    )


def test_tensors_may_lie_in_memory_as_they_please():
    history_JD, lengths_B, query_BD, weights = random_inputs([3, 0, 2], dim=8, widths=(10, 6))
    expected_BD = target_attention(history_JD, lengths_B, query_BD, weights, backend="triton")
    apart = [[scattered(tensor) for tensor in (history_JD, lengths_B, query_BD)], [scattered(weight) for weight in weights]]
    assert not apart[1][3].is_contiguous()
    assert torch.equal(target_attention(*apart[0], AttentionWeights(*apart[1]), backend="triton"), expected_BD)
    gate = (history_JD, 2 * history_JD, torch.linspace(0, 1, 8, device=KERNEL_DEVICE))
    assert torch.equal(dice_gate(*map(scattered, gate), backend="triton"), dice_gate(*gate, backend="triton"))


@torch.no_grad()
def test_a_network_too_wide_for_the_kernel_is_refused_by_it_and_left_to_the_reference_by_auto():
    history_JD, lengths_B, query_BD, weights = random_inputs([2, 1], dim=129)
    for function in (target_attention, target_attention_all):
        with pytest.raises(ValueError, match="widths D=129, C=64, E=16 are too large for the kernel"):
            function(history_JD, lengths_B, query_BD, weights, backend="triton")
        assert torch.isfinite(function(history_JD, lengths_B, query_BD, weights)).all()


def scattered(value):
    """The same numbers, two apart from each other."""
    if isinstance(value, DiceWeights):
        return DiceWeights(*map(scattered, value[:3]), value.eps)
    return torch.stack([value, torch.zeros_like(value)], dim=-1)[..., 0]


def test_the_kernel_for_all_queries_is_refused_where_a_gradient_is_wanted():
    history_JD, lengths_B, query_BD, weights = random_inputs([2, 1], dim=4, widths=(10, 6))
    with pytest.raises(ValueError, match="has no gradient and an input wants one"):
        target_attention_all(history_JD, lengths_B, query_BD, weights, backend="triton")


def test_rows_do_not_see_each_other_in_the_kernel():
    history_JD, lengths_B, query_BD, weights = random_inputs([3, 4], dim=5, widths=(10, 6))
    changed_JD = history_JD.detach().clone()
    changed_JD[3:] = torch.nan
    before = target_attention(history_JD, lengths_B, query_BD, weights, backend="triton")
    after = target_attention(changed_JD, lengths_B, query_BD, weights, backend="triton")
    assert torch.equal(before[0], after[0])
    assert after[1].isnan().all()


@pytest.mark.parametrize(("rows", "channels"), [(1, 1), (63, 64), (100, 10), (0, 16)])
def test_fused_gate_equals_the_reference_with_every_gradient(rows, channels):
    torch.manual_seed(rows)
    tensors = [torch.randn(rows, channels), torch.randn(rows, channels), torch.rand(channels)]
    tensors = [tensor.to(KERNEL_DEVICE).requires_grad_() for tensor in tensors]
    with poisoned():
        found = with_gradients(dice_gate(*tensors, backend="triton"), tensors)
    for ours, theirs in zip(found, with_gradients(reference.dice_gate(*tensors), tensors), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_fused_gate_in_bfloat16_errs_no_more_than_the_reference_in_bfloat16():
    torch.manual_seed(0)
    rough = [torch.randn(63, 16), torch.randn(63, 16), torch.rand(16)]
    rough = [tensor.bfloat16().to(KERNEL_DEVICE).requires_grad_() for tensor in rough]
    wide = [tensor.detach().double().requires_grad_() for tensor in rough]
    ours, theirs = (with_gradients(gate, rough) for gate in (dice_gate(*rough, backend="triton"), reference.dice_gate(*rough)))
    for place, exact in enumerate(with_gradients(reference.dice_gate(*wide), wide)):
        allowed = (2 if place == 0 else 5) * (theirs[place].double() - exact).abs().max()
        assert (ours[place].double() - exact).abs().max() <= allowed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.no_grad()
def test_results_beyond_2_to_the_31st_number_are_written_as_any_other():
    num_rows, num_queries, dim = 2**20 + 1, 64, 32
    *_, weights = random_inputs([1], dim=dim, dtype=torch.bfloat16)
    history_JD = torch.randn(num_rows, dim, device="cuda", dtype=torch.bfloat16)
    lengths_B, query_ND = torch.ones(num_rows, device="cuda", dtype=torch.int64), torch.randn_like(history_JD[:num_queries])
    found_BND = target_attention_all(history_JD, lengths_B, query_ND, weights, backend="triton")
    expected_BND = target_attention_all(history_JD[-2:], lengths_B[-2:], query_ND, weights, backend="triton")
    assert torch.equal(found_BND[-2:], expected_BND)
