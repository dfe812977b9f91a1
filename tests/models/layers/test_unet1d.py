"""The U-Net has the paper's size, sees what it should and no padding."""

import pytest
import torch
import torch.nn.functional as F

from models.layers.unet1d import ConvBlock, Down, UNet1d, UNetConfig

# B rows, L positions, D width
VARIANTS = ("compact", "authors")


@pytest.fixture(params=VARIANTS)
def unet(request):
    torch.manual_seed(0)
    return UNet1d(UNetConfig(variant=request.param), dim=4)


def inputs(rows=3, positions=11, width=4, seed=1):
    """z, condition, the mask of histories of length `positions` and less, steps."""
    generator = torch.Generator().manual_seed(seed)
    z, condition = (torch.randn(rows, positions, width, generator=generator) for _ in range(2))
    lengths = positions - 3 * torch.arange(rows)
    valid = torch.arange(positions) >= (positions - lengths).unsqueeze(1)
    return z, condition, valid, torch.full((rows,), 5)


def padded(tensor, missing, value=0):
    return F.pad(tensor, [0, 0] * (tensor.dim() - 2) + [missing, 0], value=value)


def test_compact_convolutions_have_the_papers_parameters_at_width_32():
    unet = UNet1d(UNetConfig(), dim=32)
    sizes = {name: parameter.numel() for name, parameter in unet.named_parameters()}
    assert sum(size for name, size in sizes.items() if "norm" not in name) == 61_728  # Table 2: 0.187M − 0.126M
    assert sum(sizes.values()) == 62_240


def test_authors_variant_has_four_levels_of_doubling_width():
    unet = UNet1d(UNetConfig(variant="authors"), dim=4)
    shapes = [tuple(parameter.shape[:2]) for name, parameter in unet.named_parameters() if name.endswith("conv.weight")]
    assert shapes == [(4, 8), (8, 4), (16, 8), (32, 16), (16, 32), (8, 16), (4, 8), (4, 4)]
    assert [tuple(up.project.weight.shape) for up in unet.up] == [(16, 32), (8, 16), (4, 8)]


def test_output_is_the_inputs_shape_and_zero_at_padding(unet):
    z, condition, valid, t = inputs()
    output = unet(z, condition, valid, t)
    assert output.shape == z.shape
    assert torch.all(output[~valid] == 0)
    assert torch.all(output[valid].abs() > 0)


@pytest.mark.parametrize("missing", [1, 2, 5, 10])
@pytest.mark.parametrize("positions", [8, 11, 16])  # 8 and 16 fill the tensor to its edge
def test_a_rows_result_does_not_depend_on_how_far_it_is_padded(unet, positions, missing):
    z, condition, valid, t = inputs(positions=positions)
    longer = unet(padded(z, missing), padded(condition, missing), padded(valid, missing, value=False), t)
    torch.testing.assert_close(longer[:, missing:], unet(z, condition, valid, t), atol=1e-6, rtol=1e-5)


def test_a_rows_result_does_not_depend_on_what_the_padding_holds(unet):
    z, condition, valid, t = inputs()
    garbage = torch.where(valid.unsqueeze(2), 0.0, 1e3)
    assert torch.equal(unet(z + garbage, condition - garbage, valid, t), unet(z, condition, valid, t))


def test_a_rows_result_does_not_depend_on_other_rows(unet):
    z, condition, valid, t = inputs()
    alone = torch.cat([unet(z[b : b + 1], condition[b : b + 1], valid[b : b + 1], t[b : b + 1]) for b in range(3)])
    torch.testing.assert_close(alone, unet(z, condition, valid, t), atol=1e-6, rtol=1e-5)


def test_the_newest_position_sees_noise_and_history_of_its_neighbourhood(unet):
    z, condition, valid, t = inputs(rows=1)
    z.requires_grad_()
    condition.requires_grad_()
    gradients = torch.autograd.grad(unet(z, condition, valid, t)[0, -1].sum(), (z, condition))
    for gradient in gradients:
        assert torch.all(gradient[0, -6:].abs().sum(1) > 0)


@pytest.mark.parametrize("positions", [0, 1, 2, 8])
@pytest.mark.parametrize("rows", [0, 2])
def test_short_or_absent_histories_have_finite_results_and_gradients(unet, rows, positions):
    z, condition = torch.randn(rows, positions, 4), torch.randn(rows, positions, 4)
    for valid in (torch.ones(rows, positions, dtype=torch.bool), torch.zeros(rows, positions, dtype=torch.bool)):
        output = unet(z, condition, valid, torch.ones(rows, dtype=torch.int64))
        unet.zero_grad()
        output.sum().backward()
        assert output.shape == z.shape
        assert torch.isfinite(output).all()
        assert all(torch.isfinite(parameter.grad).all() for parameter in unet.parameters())


@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_is_a_convolution_over_positions(stride):
    torch.manual_seed(0)
    block = ConvBlock(3, output_dim=5, stride=stride, activate=False)
    hidden = torch.randn(2, 8, 3)
    expected = F.conv1d(hidden.transpose(1, 2), block.conv.weight.squeeze(2), block.conv.bias, stride=stride, padding=1)
    found = block(hidden, torch.ones(2, 8 // stride, 1))
    torch.testing.assert_close(found, expected.transpose(1, 2))


def test_a_mirrored_block_repeats_the_last_position_but_one():
    torch.manual_seed(0)
    block = ConvBlock(3, output_dim=5, mirrored=True, activate=False)
    hidden = torch.randn(2, 8, 3)
    longer = torch.cat([torch.zeros(2, 1, 3), hidden, hidden[:, -2:-1]], 1)
    expected = F.conv1d(longer.transpose(1, 2), block.conv.weight.squeeze(2), block.conv.bias)
    torch.testing.assert_close(block(hidden, torch.ones(2, 8, 1)), expected.transpose(1, 2))


def test_pooling_takes_the_maximum_of_valid_positions_alone():
    torch.manual_seed(0)
    down = Down(3, output_dim=5, pool=True)
    hidden, mask = torch.randn(1, 4, 3), torch.tensor([[[0.0], [1.0], [1.0], [1.0]]])
    low = torch.where(mask > 0, hidden, -100.0)
    assert torch.equal(down(hidden * mask, mask, torch.ones(1, 2, 1)), down(low, torch.ones_like(mask), torch.ones(1, 2, 1)))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("time_embedding", ["none", "sinusoidal"])
def test_the_step_is_known_only_with_a_time_embedding(variant, time_embedding):
    torch.manual_seed(0)
    unet = UNet1d(UNetConfig(variant=variant, time_embedding=time_embedding), dim=4)
    z, condition, valid, t = inputs()
    same = torch.equal(unet(z, condition, valid, t), unet(z, condition, valid, t + 20))
    assert same == (time_embedding == "none")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("time_embedding", ["none", "sinusoidal"])
def test_scripted_equals_eager(variant, time_embedding):
    torch.manual_seed(0)
    unet = UNet1d(UNetConfig(variant=variant, time_embedding=time_embedding), dim=4)
    torch.testing.assert_close(torch.jit.script(unet)(*inputs()), unet(*inputs()))


def test_results_are_float32_under_autocast(unet):
    exact = unet(*inputs())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = unet(*inputs())
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.1, rtol=0.1)


def test_widths_are_the_compact_variants_levels():
    unet = UNet1d(UNetConfig(widths=(2, 3)), dim=4)
    assert [tuple(down.block.conv.weight.shape[:2]) for down in unet.down] == [(12, 8)]
    assert unet(*inputs()).shape == (3, 11, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "big"}, "variant='big', expected one of"),
        ({"time_embedding": "learned"}, "time_embedding='learned', expected one of"),
        ({"widths": ()}, r"widths=\(\), expected at least one level"),
        ({"widths": (1, 0)}, r"widths=\(1, 0\)"),
    ],
)
def test_impossible_shapes_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        UNetConfig(**fields)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("widths", [(1, 2, 2), (1,), (1, 1, 1, 1)])
@pytest.mark.parametrize("num_newest", [1, 4, 5, 13])
def test_the_newest_outputs_depend_on_the_receptive_positions_and_on_no_older_one(variant, widths, num_newest):
    torch.manual_seed(0)
    unet = UNet1d(UNetConfig(variant=variant, widths=widths), dim=4).double()
    z, condition, valid, t = inputs(rows=2, positions=96)
    z = z.double().requires_grad_()
    output = unet(z, condition.double(), torch.ones_like(valid), t)[:, -num_newest:]
    (gradient,) = torch.autograd.grad(output.square().sum(), z)
    looked_at = gradient.abs().sum([0, 2]).nonzero().flatten()
    assert 96 - int(looked_at[0]) == unet.receptive_len(num_newest)
