"""The fused reverse process equals its reference, whatever the batch, the lengths, the noise and the operands' type."""

import pytest
import torch

from kernels.diffusion_reverse import (
    ConvWeights,
    ReverseSteps,
    diffusion_reverse,
    diffusion_reverse_keyed,
    launch,
    packed,
    reference,
    unsupported,
)
from kernels.row_noise import normal_of_rows
from tests.kernels.devices import KERNEL_DEVICE
from tests.kernels.poison import poisoned
from tests.kernels.reverse_cases import on, random_conv, random_layers, random_rows, random_steps

# B rows, L positions, D width
WIDTH = 16
TOLERANCE = {"atol": 2e-5, "rtol": 1e-5}
"""Of float32 on both sides; on a GPU a product is made of three tf32 ones."""


def fused(*arguments, dtype=torch.float32):
    """The kernel's result, on the CPU; memory that it does not write is NaN."""
    arguments = on(KERNEL_DEVICE, *arguments)
    with poisoned(), torch.no_grad():
        return diffusion_reverse(*arguments, packed(arguments[3], dtype), "triton").cpu()


@pytest.mark.parametrize(
    ("num_rows", "num_positions"),
    # a lone position; whole blocks and a full tile; one position beyond a block; more users than a tile; 32 blocks of a user
    [(1, 1), (2, 64), (3, 49), (63, 6), (5, 66)],
)
def test_the_kernel_equals_the_reference(num_rows, num_positions):
    torch.manual_seed(0)
    layers, steps = random_layers(WIDTH), random_steps(2)
    rows = random_rows(num_rows, num_positions, WIDTH, 2)
    found_BD = fused(*rows, layers, steps)
    torch.testing.assert_close(found_BD, diffusion_reverse(*rows, layers, steps, None, "torch"), **TOLERANCE)
    assert num_rows == 1 or (found_BD[-1] == 0).all()  # no history


def test_widths_of_the_levels_may_differ_and_steps_may_be_told():
    torch.manual_seed(0)
    layers, steps = random_layers(32, widths=(16, 32, 64)), random_steps(2, signal_dim=64)
    rows = random_rows(11, 10, 32, 1, lengths_B=torch.arange(11))  # every way that a history can begin within a block
    expected_BD = diffusion_reverse(*rows, layers, steps)
    torch.testing.assert_close(fused(*rows, layers, steps), expected_BD, **TOLERANCE)
    assert not torch.allclose(expected_BD, diffusion_reverse(*rows, layers, ReverseSteps(steps.coefficient_S3, None)), atol=1e-3)


def test_a_batch_of_nothing_and_one_of_padding_alone():
    layers, steps = random_layers(WIDTH), random_steps(1)
    condition_BLD, valid_BL, noise_BNLD = random_rows(3, 5, WIDTH, 1)
    assert fused(condition_BLD[:0], valid_BL[:0], noise_BNLD[:0], layers, steps).shape == (0, WIDTH)
    nothing_BD = fused(condition_BLD, torch.zeros_like(valid_BL), noise_BNLD, layers, steps)
    assert torch.equal(nothing_BD, torch.zeros(3, WIDTH))


def test_bfloat16_products_err_at_most_twice_as_much_as_plain_torch_in_bfloat16():
    torch.manual_seed(0)
    layers, steps = random_layers(WIDTH), random_steps(2)
    condition_BLD, valid_BL, noise_BNLD = random_rows(16, 20, WIDTH, 2)
    exact_BD = diffusion_reverse(condition_BLD, valid_BL, noise_BNLD, layers, steps)
    rough_layers = [ConvWeights(*(tensor.bfloat16() for tensor in layer)) for layer in layers]
    rough_steps = ReverseSteps(steps.coefficient_S3.bfloat16(), None)
    rough_BD = reference.diffusion_reverse(condition_BLD.bfloat16(), valid_BL, noise_BNLD.bfloat16(), rough_layers, rough_steps)
    found_BD = fused(condition_BLD, valid_BL, noise_BNLD, layers, steps, dtype=torch.bfloat16)
    assert fused(condition_BLD[:1].bfloat16(), valid_BL[:1], noise_BNLD[:1], layers, steps).dtype == rough_BD.dtype
    ours, theirs = ((other_BD.float() - exact_BD).square().mean().sqrt().item() for other_BD in (found_BD, rough_BD))
    assert ours <= 2 * theirs
    assert ours > 1e-5  # or the products were not in bfloat16


def test_keyed_noise_is_that_of_row_noise():
    torch.manual_seed(0)
    layers, steps = random_layers(WIDTH), random_steps(2)
    condition_BLD, valid_BL, _ = random_rows(3, 9, WIDTH, 1)
    row_id_B, seed = torch.tensor([5, 2**40 + 7, -1]), 2**62 + 12_345
    noise_BNLD = normal_of_rows(row_id_B, 2 * 9 * WIDTH, seed).view(3, 2, 9, WIDTH)
    expected_BD = diffusion_reverse(condition_BLD, valid_BL, noise_BNLD, layers, steps)
    arguments = (condition_BLD, valid_BL, row_id_B, seed, 2, layers, steps)
    assert torch.equal(diffusion_reverse_keyed(*arguments, None, "torch"), expected_BD)
    with poisoned():
        found_BD = diffusion_reverse_keyed(*on(KERNEL_DEVICE, *arguments), None, "triton").cpu()
    torch.testing.assert_close(found_BD, expected_BD, **TOLERANCE)


def test_scripted_calls_take_the_reference():
    @torch.jit.script
    def scripted(
        condition_BLD: torch.Tensor,
        valid_BL: torch.Tensor,
        noise_BNLD: torch.Tensor,
        row_id_B: torch.Tensor,
        layers: list[ConvWeights],
        steps: ReverseSteps,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        given = diffusion_reverse(condition_BLD, valid_BL, noise_BNLD, layers, steps, None, "triton")
        return given, diffusion_reverse_keyed(condition_BLD, valid_BL, row_id_B, 3, 2, layers, steps, None, "triton")

    torch.manual_seed(0)
    layers, steps = random_layers(3), random_steps(2)  # a width that the kernel would refuse
    condition_BLD, valid_BL, noise_BNLD = random_rows(2, 5, 3, 2)
    given_BD, keyed_BD = scripted(condition_BLD, valid_BL, noise_BNLD, torch.arange(2), layers, steps)
    torch.testing.assert_close(given_BD, diffusion_reverse(condition_BLD, valid_BL, noise_BNLD, layers, steps))
    torch.testing.assert_close(keyed_BD, diffusion_reverse_keyed(condition_BLD, valid_BL, torch.arange(2), 3, 2, layers, steps))


@pytest.mark.parametrize(
    ("layers", "num_positions", "reason"),
    [
        (random_layers(24), 5, r"widths \(24, 24, 48, 48\)"),
        ([random_conv(*pair) for pair in [(32, 16), (16, 32), (48, 16), (16, 16)]], 5, "4 convolutions"),
        (random_layers(16), 257, "257 positions and the kernel takes 256 with torch.float32 products"),
    ],
)
def test_what_the_kernel_cannot_take_is_said(layers, num_positions, reason):
    dim = layers[-1].weight_OI3.shape[0]
    arguments = on(KERNEL_DEVICE, *random_rows(1, num_positions, dim, 1), layers, random_steps(1))
    with pytest.raises(ValueError, match=f"backend='triton', but .*{reason}"):
        diffusion_reverse(*arguments, None, "triton")
    assert unsupported(arguments[0], layers, torch.float32) is not None


def test_bfloat16_products_take_longer_histories():
    condition_BLD, _, _ = random_rows(1, 257, WIDTH, 1)
    assert unsupported(condition_BLD, random_layers(WIDTH), torch.bfloat16) is None
    assert unsupported(condition_BLD.repeat(1, 2, 1), random_layers(WIDTH), torch.bfloat16) is not None


def test_a_history_that_needs_the_largest_tile_is_computed_as_any_other():
    torch.manual_seed(0)
    rows, layers, steps = random_rows(1, 257, WIDTH, 1), random_layers(WIDTH), random_steps(2)
    expected_BD = diffusion_reverse(*rows, layers, steps)
    error = (fused(*rows, layers, steps, dtype=torch.bfloat16) - expected_BD).abs().max()
    assert error <= 0.05 * expected_BD.abs().max()


def test_a_gradient_is_refused_where_one_is_wanted():
    arguments = on(KERNEL_DEVICE, *random_rows(1, 5, WIDTH, 1), random_layers(WIDTH), random_steps(1))
    arguments[0].requires_grad_()
    with pytest.raises(ValueError, match="the kernel has no gradient"):
        diffusion_reverse(*arguments, None, "triton")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valid_BL": torch.ones(2, 4, dtype=torch.bool)}, r"valid_BL \(2, 4\), expected \[B, L, D\] and \[B, L\]"),
        ({"valid_BL": torch.ones(2, 5)}, "valid_BL is torch.float32, expected bool"),
        ({"noise_BNLD": torch.zeros(2, 1, 4, WIDTH)}, "noise_BNLD has shape"),
        ({"noise_BNLD": torch.zeros(2, 2, 5, WIDTH)}, "2 noise tensors for 3 steps, expected 1, or one per step"),
        ({"layers": random_layers(8)}, r"the first of 2·16 inputs, the last of 16 outputs"),
        ({"steps": ReverseSteps(torch.zeros(3, 2), None)}, r"coefficient_S3 has shape \(3, 2\)"),
        ({"steps": ReverseSteps(torch.zeros(3, 3), torch.zeros(3, 16))}, r"signal_SI has shape \(3, 16\), expected \(3, 32\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change, message):
    rows = dict(zip(("condition_BLD", "valid_BL", "noise_BNLD"), random_rows(2, 5, WIDTH, 1), strict=True))
    with pytest.raises(ValueError, match=message):
        diffusion_reverse(**rows | {"layers": random_layers(WIDTH), "steps": random_steps(3)} | change)


@pytest.mark.parametrize(
    ("row_id_B", "seed"), [(torch.zeros(2, dtype=torch.int32), 0), (torch.arange(3), 0), (torch.arange(2), -1)]
)
def test_a_key_that_is_none_is_refused(row_id_B, seed):
    condition_BLD, valid_BL, _ = random_rows(2, 5, WIDTH, 1)
    with pytest.raises(ValueError, match=r"expected int64 \[2\] and a seed in"):
        diffusion_reverse_keyed(condition_BLD, valid_BL, row_id_B, seed, 1, random_layers(WIDTH), random_steps(1))


@pytest.mark.parametrize(
    ("num_rows", "blocks", "rows"),
    [
        (1, 16, 16),
        (1, 1, 16),
        (132, 16, 16),
        (396, 16, 16),  # three rounds of small tiles
        (528, 16, 64),
        (660, 16, 16),  # five rounds of small tiles are faster than two of large ones
        (1024, 16, 64),
        (16_384, 16, 64),
        (5000, 2, 16),
        (1, 32, 32),
        (132, 32, 32),
        (133, 32, 64),
        (1, 128, 128),
    ],
)
def test_the_tile_is_the_one_whose_rounds_over_all_multiprocessors_take_least(num_rows, blocks, rows):
    assert launch.tile_rows(num_rows, blocks=blocks, num_units=132) == rows


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-3), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("num_rows", [1, 63, 1024])
def test_fifty_steps_of_the_served_shape_on_a_gpu(num_rows, dtype, bound):
    torch.manual_seed(0)
    layers, steps = random_layers(32), random_steps(50)
    rows = random_rows(num_rows, 50, 32, 50)
    expected_BD = diffusion_reverse(*rows, layers, steps)
    error = (fused(*rows, layers, steps, dtype=dtype) - expected_BD).abs().max()
    assert error <= bound * expected_BD.abs().max()
