"""Algorithm 1 and 2: what is learned, what is sampled, and where gradients stop."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.layers.diffusion import ScheduleConfig
from models.layers.diffusion_config import DiffusionConfig
from models.layers.diffusion_module import DiffusionModule

# B rows, L positions, D width
ROWS, POSITIONS, WIDTH = 4, 6, 3
LENGTHS = torch.tensor([6, 3, 1, 0])
VALID = torch.arange(POSITIONS) >= (POSITIONS - LENGTHS).unsqueeze(1)
ANCESTRAL = {"sampler": "ancestral", "schedule": ScheduleConfig(num_steps=10), "num_sample_steps": 10}
CONFIGS = [
    {},
    {"tower_condition": "sampled"},
    {"tower_condition": "high_noise", "loss": "norm", "kl_weighting": "mu", "use_drift": False},
    {"drift_scale": "none", "detach_prediction": False, **ANCESTRAL},
]


def build(**fields):
    torch.manual_seed(0)
    return DiffusionModule(DiffusionConfig(**{"tower_condition": "onestep", "num_sample_steps": 5} | fields), dim=WIDTH)


def batch(seed=1, scale=1.0):
    """history, next, valid, r, noise, tower noise."""
    generator = torch.Generator().manual_seed(seed)
    vectors, noise, tower_noise = (torch.randn(ROWS, POSITIONS + 1, WIDTH, generator=generator) for _ in range(3))
    r = torch.tensor([1, 5, 10, 2])
    return scale * vectors[:, :-1], scale * vectors[:, 1:], VALID, r, noise[:, 1:], tower_noise[:, 1:]


def noise_of(module, rows=ROWS, seed=3):
    return torch.randn(rows, module.num_noise, POSITIONS, WIDTH, generator=torch.Generator().manual_seed(seed))


class Oracle(nn.Module):
    """Knows z0."""

    def __init__(self, z0_BLD):
        super().__init__()
        self.z0_BLD = z0_BLD

    def receptive_len(self, _num_newest):
        return POSITIONS

    def forward(self, _z_BLD, _condition_BLD, _valid_BL, _t_B):
        return self.z0_BLD


class GaussianDenoiser(nn.Module):
    """E[z0 | z_t] where z0 is standard normal: √ᾱ_t·z_t."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def receptive_len(self, _num_newest):
        return POSITIONS

    def forward(self, z_BLD, _condition_BLD, _valid_BL, t_B):
        return self.schedule.signal[t_B][:, None, None] * z_BLD


@pytest.mark.parametrize("use_drift", [True, False])
@pytest.mark.parametrize("fields", [{}, {"num_sample_steps": 50}, {"num_sample_steps": 1}, ANCESTRAL])
def test_a_perfect_denoiser_gives_the_next_behaviour(use_drift, fields):
    module = build(use_drift=use_drift, drift_scale="none", **fields)
    history, following, valid, r, noise, tower_noise = batch()
    module.unet = Oracle(following - history if use_drift else following)
    target = following[:, -1] * (LENGTHS > 0).unsqueeze(1)
    torch.testing.assert_close(module.sample(history, valid, noise_of(module)), target)
    torch.testing.assert_close(module.learn(history, following, valid, r, noise, tower_noise).predicted_BD, target)
    cosine = module.trajectory(history, valid, noise_of(module), following[:, -1])
    assert cosine.shape == (module.num_sample_steps, ROWS)
    torch.testing.assert_close(cosine[:, :3], torch.ones_like(cosine[:, :3]))


@pytest.mark.parametrize("posterior_noise", ["sqrt", "literal", "none"])
def test_ancestral_samples_spread_as_the_recursion_of_their_variance_says(posterior_noise):
    # with E[z0 | z_t] = √ᾱ_t·z_t, eq. 5 is √α_t·z_t
    module = DiffusionModule(
        DiffusionConfig(posterior_noise=posterior_noise, drift_scale="none", use_drift=False, **ANCESTRAL), dim=50
    )
    module.unet = GaussianDenoiser(module.schedule)
    betas = ScheduleConfig(num_steps=10).betas()
    bars = torch.cumprod(1 - betas, 0)
    expected = 1.0
    for t in range(10, 1, -1):
        variance = (betas[t - 1] * (1 - bars[t - 2]) / (1 - bars[t - 1])).item()  # eq. 6
        added = {"sqrt": variance, "literal": variance**2, "none": 0.0}[posterior_noise]
        expected = (1 - betas[t - 1].item()) * expected + added
    expected *= bars[0].item()
    noise = torch.randn(1000, module.num_noise, 1, 50, generator=torch.Generator().manual_seed(0))
    sample = module.sample(torch.zeros(1000, 1, 50), torch.ones(1000, 1, dtype=torch.bool), noise)
    assert sample.var().item() == pytest.approx(expected, rel=0.03)


def test_more_deterministic_steps_follow_the_flow_more_closely():
    # the exact flow of a standard normal z0 is the identity
    errors = []
    for num_sample_steps in (1, 5, 50):
        module = build(num_sample_steps=num_sample_steps, drift_scale="none", use_drift=False)
        module.unet = GaussianDenoiser(module.schedule)
        noise = noise_of(module)
        sample = module.sample(torch.zeros(ROWS, POSITIONS, WIDTH), torch.ones_like(VALID), noise)
        errors.append((sample - noise[:, 0, -1]).abs().max().item())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.1


def test_loss_is_the_mean_square_over_valid_positions_and_channels_in_units_of_the_scale():
    module = build()
    history, following, valid, r, noise, tower_noise = batch(scale=0.01)
    out = module.learn(history, following, valid, r, noise, tower_noise)
    z0 = (following - history) / module.scale
    z = module.schedule.q_sample(z0, r, noise)
    error = module.unet(z, history / module.scale, valid, r) - z0
    expected = [error[b, POSITIONS - length :].square().mean() for b, length in enumerate(LENGTHS[:3])]
    torch.testing.assert_close(out.loss_B, torch.stack([*expected, torch.tensor(0.0)]))
    torch.testing.assert_close(module.scale, (following - history)[valid].std(correction=0))


def test_norm_loss_is_the_mean_euclidean_norm_over_valid_positions():
    module = build(loss="norm", drift_scale="none")
    history, following, valid, r, noise, tower_noise = batch()
    module.unet = Oracle(torch.zeros_like(history))
    norm = (following - history).norm(dim=2)
    expected = [norm[b, POSITIONS - length :].mean() for b, length in enumerate(LENGTHS[:3])]
    torch.testing.assert_close(
        module.learn(history, following, valid, r, noise, tower_noise).loss_B, torch.stack([*expected, torch.tensor(0.0)])
    )


def test_mean_weighting_multiplies_each_rows_loss_by_the_weight_of_its_step():
    plain, weighted = build(), build(kl_weighting="mu")
    inputs = batch()
    torch.testing.assert_close(weighted.learn(*inputs).loss_B, plain.learn(*inputs).loss_B * plain.schedule.kl_weight(inputs[3]))


def test_nothing_changes_but_the_unit_when_all_embeddings_grow():
    small, large = build(), build()
    out, out_large = small.learn(*batch(scale=0.01)), large.learn(*batch(scale=1.0))
    torch.testing.assert_close(out.loss_B, out_large.loss_B)
    torch.testing.assert_close(100 * out.predicted_BD, out_large.predicted_BD, atol=1e-5, rtol=1e-4)
    history, _, valid, *_ = batch()
    sample = small.sample(0.01 * history, valid, noise_of(small))
    torch.testing.assert_close(100 * sample, large.sample(history, valid, noise_of(large)), atol=1e-5, rtol=1e-4)


def test_the_scale_follows_training_batches_alone():
    module, fixed = build(), build(drift_scale="none")
    module.eval().learn(*batch(scale=7.0))
    assert module.scale == 1
    for trained in (module, fixed):
        trained.train().learn(*batch(scale=7.0))
    assert module.scale > 5
    assert fixed.scale == 1


def test_the_towers_condition_is_what_its_name_says():
    history, following, valid, r, noise, tower_noise = inputs = batch()
    newest = history[:, -1] * (LENGTHS > 0).unsqueeze(1)
    modules = {name: build(tower_condition=name, drift_scale="none") for name in ("onestep", "sampled", "high_noise")}
    found = {name: module.learn(*inputs).predicted_BD for name, module in modules.items()}
    unet, schedule = modules["onestep"].unet, modules["onestep"].schedule
    z = schedule.q_sample(following - history, r, noise)
    torch.testing.assert_close(found["onestep"], newest + unet(z, history, valid, r)[:, -1])
    last = torch.full((ROWS,), 50)
    torch.testing.assert_close(found["high_noise"], newest + unet(tower_noise, history, valid, last)[:, -1])
    torch.testing.assert_close(found["sampled"], modules["sampled"].sample(history, valid, tower_noise.unsqueeze(1)))
    assert all(torch.all(predicted[3] == 0) for predicted in found.values())


@pytest.mark.parametrize("name", ["sampled", "high_noise"])
def test_a_prediction_from_noise_does_not_see_the_target(name):
    module = build(tower_condition=name, drift_scale="none")
    history, following, *rest = batch()
    assert torch.equal(*(module.learn(history, target, *rest).predicted_BD for target in (following, following + 1)))


def test_gradients_stop_at_the_embeddings_and_at_the_prediction():
    module = build()
    history, following, *rest = batch()
    out = module.learn(history.requires_grad_(), following.requires_grad_(), *rest)
    assert not out.predicted_BD.requires_grad
    out.loss_B.sum().backward()
    assert history.grad is None
    assert following.grad is None
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_gradients_flow_where_they_are_allowed_to():
    module = build(detach_inputs=False, detach_prediction=False)
    history, following, *rest = batch()
    out = module.learn(history.requires_grad_(), following.requires_grad_(), *rest)
    module.learn(*batch(seed=2))  # the scale moves before the backward pass
    (out.loss_B.sum() + out.predicted_BD.sum()).backward()
    assert history.grad[0].abs().min() > 0
    assert following.grad[0].abs().sum() > 0
    assert torch.all(history.grad[~VALID] == 0)
    weights = build(detach_prediction=False)
    weights.learn(*batch()).predicted_BD.sum().backward()
    assert weights.unet.last.conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("fields", CONFIGS)
@pytest.mark.parametrize("rows", [0, ROWS])
def test_rows_without_history_have_finite_results_and_gradients(fields, rows):
    module = build(**fields)
    history, following, _, r, noise, tower_noise = (tensor[:rows] for tensor in batch())
    nothing = torch.zeros(rows, POSITIONS, dtype=torch.bool)
    out = module.learn(torch.full_like(history, torch.nan), following, nothing, r, noise, tower_noise)
    assert torch.equal(out.loss_B, torch.zeros(rows))
    assert torch.equal(out.predicted_BD, torch.zeros(rows, WIDTH))
    out.loss_B.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters())
    assert module.scale == 1
    noise = noise_of(module, rows)
    assert torch.equal(module.sample(history, nothing, noise), torch.zeros(rows, WIDTH))
    assert torch.all(module.trajectory(history, nothing, noise, following[:, -1]) == 0)


def test_histories_of_no_positions_at_all_predict_nothing():
    empty, valid = torch.zeros(2, 0, WIDTH), torch.zeros(2, 0, dtype=torch.bool)
    out = build().learn(empty, empty, valid, torch.ones(2, dtype=torch.int64), empty, empty)
    assert torch.equal(out.loss_B, torch.zeros(2))
    assert torch.equal(out.predicted_BD, torch.zeros(2, WIDTH))


@pytest.mark.parametrize("fields", CONFIGS)
def test_padding_changes_nothing(fields):
    module, padded = build(**fields), build(**fields)
    out = module.learn(*batch())
    longer = [F.pad(tensor, [0, 0, 5, 0], value=math.nan) for tensor in batch()[:2]]
    noises = [F.pad(tensor, [0, 0, 5, 0], value=3.0) for tensor in batch()[4:]]
    valid = F.pad(VALID, [5, 0])
    out_padded = padded.learn(*longer, valid, batch()[3], *noises)
    torch.testing.assert_close(out_padded.loss_B, out.loss_B, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(out_padded.predicted_BD, out.predicted_BD, atol=1e-6, rtol=1e-5)
    noise = noise_of(module)
    sample = padded.sample(longer[0], valid, F.pad(noise, [0, 0, 5, 0], value=3.0))
    torch.testing.assert_close(sample, module.sample(batch()[0], VALID, noise), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fields", CONFIGS)
def test_scripted_equals_eager(fields):
    module = build(**fields)
    scripted = torch.jit.script(build(**fields))
    for found, expected in zip(scripted.learn(*batch()), module.learn(*batch()), strict=True):
        torch.testing.assert_close(found, expected)
    history, following, *_ = batch()
    noise = noise_of(module)
    assert scripted.num_noise == module.num_noise
    torch.testing.assert_close(scripted.sample(history, VALID, noise), module.sample(history, VALID, noise))
    torch.testing.assert_close(
        scripted.trajectory(history, VALID, noise, following[:, -1]), module.trajectory(history, VALID, noise, following[:, -1])
    )
    assert torch.equal(scripted.drift_scale.scale, module.scale)


def test_uniform_numbers_become_every_step_equally_often():
    module = build()
    assert module.step_of((torch.arange(5000) + 0.5) / 5000).bincount().tolist() == [0] + [100] * 50
    assert module.step_of(torch.tensor([0.0, 1 - 2**-24])).tolist() == [1, 50]


def test_training_lowers_the_loss():
    module = build()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = module.learn(*batch()).loss_B.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_shapes_that_do_not_belong_together_are_named():
    module = build()
    history, following, valid, r, noise, tower_noise = batch()
    with pytest.raises(ValueError, match="expected \\[rows, num_noise, positions, width\\]"):
        module.sample(history, valid, torch.randn(ROWS, 2, POSITIONS, WIDTH))
    with pytest.raises(ValueError, match="expected \\[B, L, D\\] and \\[B, L\\]"):
        module.sample(history, valid[:, 1:], noise_of(module))
    with pytest.raises(ValueError, match="expected that of the histories"):
        module.learn(history, following, valid, r, noise[:, :1], tower_noise)
