"""The diffusion module's samples are the same from the kernel as step by step."""

import pytest
import torch
from torch import nn

from models.backend import set_backend
from models.layers import fused_reverse
from models.layers.diffusion import ScheduleConfig
from models.layers.diffusion_config import DiffusionConfig
from models.layers.diffusion_module import DiffusionModule
from models.layers.unet1d import UNetConfig
from tests.kernels.devices import KERNEL_DEVICE

# B rows, L positions, D width
ROWS, POSITIONS, WIDTH = 3, 7, 16
VALID = torch.arange(POSITIONS) >= (POSITIONS - torch.tensor([7, 2, 0])).unsqueeze(1)
ANCESTRAL = {"sampler": "ancestral", "schedule": ScheduleConfig(num_steps=3, beta_first=0.5, beta_last=0.95), "num_sample_steps": 3}


def build(**fields):
    """A module whose parameters are all random."""
    torch.manual_seed(0)
    module = DiffusionModule(DiffusionConfig(**fields), dim=WIDTH).to(KERNEL_DEVICE).eval()
    with torch.no_grad():
        for parameter in module.unet.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        module.drift_scale.scale.fill_(0.7)
    return module


def inputs(module):
    torch.manual_seed(1)
    rows = (torch.randn(ROWS, POSITIONS, WIDTH), VALID, torch.randn(ROWS, module.num_noise, POSITIONS, WIDTH))
    return [tensor.to(KERNEL_DEVICE) for tensor in rows]


@torch.no_grad()
def sampled(module, backend, rows=None):
    set_backend(module, backend)
    return module.sample(*(rows or inputs(module)))


@pytest.mark.parametrize(
    "fields",
    [
        {"num_sample_steps": 2},
        {"num_sample_steps": 2, "unet": UNetConfig(time_embedding="sinusoidal"), "use_drift": False},
        ANCESTRAL,
        {**ANCESTRAL, "posterior_noise": "literal"},
        {**ANCESTRAL, "posterior_noise": "none"},
    ],
)
def test_every_sampler_gives_the_same_from_the_kernel(fields):
    module = build(**fields)
    expected_BD = sampled(module, "torch")
    torch.testing.assert_close(sampled(module, "triton"), expected_BD, atol=1e-4, rtol=1e-4)
    assert expected_BD[:2].abs().min() > 0


def test_weights_that_change_are_packed_again():
    module = build(num_sample_steps=1)
    before_BD = sampled(module, "triton")
    with torch.no_grad():
        module.unet.last.conv.weight.mul_(2.0)
    after_BD = sampled(module, "triton")
    assert not torch.allclose(after_BD, before_BD, atol=1e-3)
    torch.testing.assert_close(after_BD, sampled(module, "torch"), atol=1e-4, rtol=1e-4)
    module.unet.last.conv.weight.data.mul_(2.0)  # which PyTorch does not count
    torch.testing.assert_close(sampled(module.eval(), "triton"), sampled(module, "torch"), atol=1e-4, rtol=1e-4)


def test_weights_that_stay_are_packed_once(monkeypatch):
    module, calls = build(num_sample_steps=1), []
    packed = fused_reverse.packed
    monkeypatch.setattr(fused_reverse, "packed", lambda *arguments: calls.append(1) or packed(*arguments))
    assert torch.equal(sampled(module, "triton"), sampled(module, "triton"))
    assert len(calls) == 1


def test_products_are_in_bfloat16_under_its_autocast():
    module = build(num_sample_steps=1)
    exact_BD = sampled(module, "torch")
    with torch.autocast(KERNEL_DEVICE.type, dtype=torch.bfloat16):
        rough_BD = sampled(module, "triton")
    assert rough_BD.dtype == torch.float32
    assert 1e-5 < (rough_BD - exact_BD).abs().max() < 0.05 * exact_BD.abs().max()


def test_the_towers_own_samples_in_training_come_from_the_kernel_too():
    module = build(num_sample_steps=2, tower_condition="sampled")
    history_BLD, valid_BL, noise_BNLD = inputs(module)
    r_B = torch.full((ROWS,), 3, device=KERNEL_DEVICE)
    learned = []
    for backend in ("torch", "triton"):
        set_backend(module, backend)
        learned.append(module.learn(history_BLD, history_BLD + 0.1, valid_BL, r_B, noise_BNLD[:, 0], noise_BNLD[:, 0]))
    torch.testing.assert_close(learned[1].predicted_BD, learned[0].predicted_BD, atol=1e-4, rtol=1e-4)
    assert learned[1].loss_B.requires_grad


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"unet": UNetConfig(variant="authors")}, "not of variant `compact`"),
        ({"unet": UNetConfig(widths=(1, 2))}, "4 convolutions"),
    ],
)
def test_a_unet_that_the_kernel_has_not_is_refused_where_the_kernel_is_asked_for(fields, reason):
    with pytest.raises(ValueError, match=f"backend='triton', but .*{reason}"):
        sampled(build(num_sample_steps=1, **fields), "triton")


def test_a_denoiser_of_another_kind_or_recorded_gradients_take_plain_torch_with_auto():
    module = build(num_sample_steps=1)
    assert module.sample(*inputs(module)).requires_grad
    module.unet = Constant()
    torch.testing.assert_close(sampled(module, "auto"), sampled(module, "torch"))
    with pytest.raises(ValueError, match="not of variant `compact`"):
        sampled(module, "triton")


class Constant(nn.Module):
    def receptive_len(self, _num_newest):
        return POSITIONS

    def forward(self, z_BLD, _condition_BLD, _valid_BL, _t_B):
        return torch.ones_like(z_BLD)
