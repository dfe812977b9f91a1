"""A small T2Diff, its inputs, and what its training form is given; for the tests of the model."""

import dataclasses

import torch

from models.layers.diffusion_config import DiffusionConfig
from models.layers.mixed_attention import MixedAttentionConfig
from models.t2diff import T2Diff, T2DiffConfig
from models.types import InputDims
from tests.models.synthetic import random_inputs

CONTEXT = (("hist_new_session", 2), ("hist_time_lag", 5))
DIMS = InputDims(profile=6, attributes=0, position=8, history_len=7, context=CONTEXT)
ATTENTION = MixedAttentionConfig(session_len=3)
ONE_STEP = {"tower_condition": "onestep", "num_sample_steps": 5}
"""Algorithm 1's condition, and some deterministic steps in serving."""
CONFIG = T2DiffConfig(attention=ATTENTION, diffusion=DiffusionConfig(**ONE_STEP), output_dim=8)
LENGTHS = [0, 7, 2, 3, 4]


def build(*, dims=DIMS, **options):
    torch.manual_seed(0)
    return T2Diff(dataclasses.replace(CONFIG, **options), dims=dims)


def with_diffusion(*, dims=DIMS, **options):
    return build(dims=dims, diffusion=DiffusionConfig(**ONE_STEP | options))


def users_and_items(lengths=LENGTHS, *, dims=DIMS):
    return random_inputs(len(lengths), history_lengths=lengths, dims=dims)


def training_noise(model, num_rows, *, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_rows, model.training_noise_size, generator=generator), torch.rand(num_rows, generator=generator)


def learned(model, users, items, *, uniform=None):
    """What forward returns, and the x̂ that its tower is given."""
    noise_BX, uniform_B = training_noise(model, len(users.history_lengths_B))
    seen = []
    hook = model.attention.register_forward_pre_hook(lambda _, given: seen.append(given[4]))
    out = model(users, items, noise_BX, uniform_B if uniform is None else torch.full_like(uniform_B, uniform))
    hook.remove()
    return out, seen[0]
