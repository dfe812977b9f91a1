"""The reverse process uses all of its noise, and computes only what the newest position depends on."""

import pytest
import torch
from torch import nn

from models.layers.diffusion import ScheduleConfig
from models.layers.diffusion_config import DiffusionConfig
from models.layers.diffusion_module import DiffusionModule

WIDTH = 3
ANCESTRAL = {"sampler": "ancestral", "schedule": ScheduleConfig(num_steps=10), "num_sample_steps": 10}


class Everything(nn.Module):
    """A U-Net that is shown every position in every step, and keeps how many it saw."""

    def __init__(self, unet, seen):
        super().__init__()
        self.unet, self.seen = unet, seen

    def receptive_len(self, _num_newest):
        return 10_000

    def forward(self, z_BLD, condition_BLD, valid_BL, t_B):
        self.seen.append(z_BLD.shape[1])
        return self.unet(z_BLD, condition_BLD, valid_BL, t_B)


@pytest.mark.parametrize(
    "fields", [{}, {"num_sample_steps": 1}, {"num_sample_steps": 2}, ANCESTRAL, {"tower_condition": "high_noise"}]
)
def test_positions_that_the_newest_one_never_looks_at_are_left_out_without_a_difference(fields):
    positions = 50
    generator = torch.Generator().manual_seed(2)
    valid = torch.arange(positions) >= (positions - torch.tensor([50, 31, 7, 0])).unsqueeze(1)
    history, following, noise, tower_noise = torch.randn(4, 4, positions, WIDTH, generator=generator)
    torch.manual_seed(0)
    module = DiffusionModule(DiffusionConfig(**fields), dim=WIDTH).eval()
    samples = torch.randn(4, module.num_noise, positions, WIDTH, generator=generator)
    r = torch.tensor([1, 5, 10, 2])
    found = module.sample(history, valid, samples), module.learn(history, following, valid, r, noise, tower_noise).predicted_BD
    seen = []
    module.unet = Everything(module.unet, seen)
    expected = module.sample(history, valid, samples), module.learn(history, following, valid, r, noise, tower_noise).predicted_BD
    assert set(seen) == {positions}
    for ours, whole in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, whole, atol=1e-5, rtol=1e-5)


def test_every_noise_tensor_is_used_up():
    torch.manual_seed(0)
    module = DiffusionModule(DiffusionConfig(**ANCESTRAL), dim=WIDTH)
    generator = torch.Generator().manual_seed(3)
    history, noise = torch.randn(3, 6, WIDTH, generator=generator), torch.randn(3, 10, 6, WIDTH, generator=generator)
    valid = torch.arange(6) >= (6 - torch.tensor([6, 3, 1])).unsqueeze(1)
    sample = module.sample(history, valid, noise)
    for index in range(10):
        changed = noise.clone()
        changed[:, index] += 1
        assert not torch.allclose(module.sample(history, valid, changed), sample)
