"""Schedules end where they should, and every table obeys the equation that it stands for."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.layers.diffusion import NoiseSchedule, ScheduleConfig

KINDS = ("exp", "linear", "log")
BETAS = ScheduleConfig().betas()
BARS = torch.cumprod(1 - BETAS, 0)


def test_default_schedule_is_the_settled_one():
    assert BETAS.dtype == torch.float64
    assert (BETAS[0].item(), BETAS[-1].item(), len(BETAS)) == (0.01, 0.5, 50)
    ratios = BETAS[1:] / BETAS[:-1]
    torch.testing.assert_close(ratios, torch.full_like(ratios, 50 ** (1 / 49)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_steps", [2, 10, 50, 200])
def test_derived_schedules_end_at_the_references_signal_and_ratio(kind, num_steps):
    betas = ScheduleConfig(kind=kind, num_steps=num_steps).betas()
    assert betas.shape == (num_steps,)
    assert (betas[-1] / betas[0]).item() == pytest.approx(50)
    assert torch.all(betas.diff() > 0)
    assert torch.prod(1 - betas).item() == pytest.approx(BARS[-1].item(), rel=1e-9)


def test_linear_and_logarithmic_schedules_have_their_curves():
    linear = ScheduleConfig(kind="linear", num_steps=50, beta_first=0.02, beta_last=0.4).betas()
    torch.testing.assert_close(linear, torch.linspace(0.02, 0.4, 50, dtype=torch.float64))
    log = ScheduleConfig(kind="log", num_steps=50, beta_first=0.02, beta_last=0.4).betas()
    torch.testing.assert_close(log[6].item(), 0.02 + 0.38 * math.log(7) / math.log(50))
    assert log[24] > linear[24] > ScheduleConfig(num_steps=50, beta_first=0.02, beta_last=0.4).betas()[24]  # Fig. 5


def test_the_authors_constants_give_their_schedule():
    expected = [0.01 * math.exp(4.5 * s / 50) for s in range(1, 51)]
    torch.testing.assert_close(ScheduleConfig.of_exponential().betas(), torch.tensor(expected, dtype=torch.float64))
    assert ScheduleConfig.of_exponential().betas()[-1].item() == pytest.approx(0.900, abs=5e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "cosine"}, "kind='cosine', expected one of"),
        ({"num_steps": 1}, "num_steps=1, expected at least 2"),
        ({"beta_first": 0.01}, "beta_last=None: give both"),
        ({"beta_last": 0.5}, "beta_first=None"),
        ({"beta_first": 0.0, "beta_last": 0.5}, "beta_first=0.0, expected more than 0"),
        ({"beta_first": 0.01, "beta_last": 1.0}, "beta_last=1.0, expected more than 0 and less than 1"),
        ({"beta_first": 0.5, "beta_last": 0.01}, "beta_first=0.5 is above beta_last=0.01"),
        ({"beta_first": 0.0001, "beta_last": 0.02}, "raise beta_last or num_steps"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ScheduleConfig(**fields)


def test_noising_keeps_the_signal_and_adds_the_noise_of_its_step():
    schedule = NoiseSchedule(ScheduleConfig())
    generator = torch.Generator().manual_seed(0)
    for r in (0, 1, 17, 50):
        noise = torch.randn(4, 50_000, 1, generator=generator)
        noised = schedule.q_sample(torch.full_like(noise, 3.0), torch.full((4,), r), noise)
        bar = 1.0 if r == 0 else BARS[r - 1].item()
        assert noised.mean().item() == pytest.approx(3 * math.sqrt(bar), abs=0.01)
        assert noised.var().item() == pytest.approx(1 - bar, rel=0.02)


def test_each_row_is_noised_up_to_its_own_step():
    schedule = NoiseSchedule(ScheduleConfig())
    z0, noise = torch.randn(3, 5, 2), torch.randn(3, 5, 2)
    together = schedule.q_sample(z0, torch.tensor([1, 20, 50]), noise)
    alone = [schedule.q_sample(z0[b : b + 1], torch.tensor([r]), noise[b : b + 1]) for b, r in enumerate((1, 20, 50))]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("t", [2, 3, 25, 50])
def test_posterior_is_the_product_of_the_two_gaussians(t):
    # q(z_{t-1} | z_t, z0) ∝ q(z_t | z_{t-1})·q(z_{t-1} | z0): precisions add, and so do precision-weighted means
    schedule = NoiseSchedule(ScheduleConfig())
    z, z0 = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    alpha, bar_before = 1 - BETAS[t - 1], BARS[t - 2]
    precision = alpha / BETAS[t - 1] + 1 / (1 - bar_before)
    mean = (alpha.sqrt() / BETAS[t - 1] * z.double() + bar_before.sqrt() / (1 - bar_before) * z0.double()) / precision
    torch.testing.assert_close(schedule.posterior_mean(z, z0, t), mean.float(), atol=1e-6, rtol=1e-5)
    assert schedule.posterior_variance(t).item() == pytest.approx(1 / precision.item(), rel=1e-6)


def test_the_last_posterior_step_gives_z0_without_noise():
    schedule = NoiseSchedule(ScheduleConfig())
    z, z0 = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    torch.testing.assert_close(schedule.posterior_mean(z, z0, 1), z0, atol=0, rtol=1e-6)
    assert schedule.posterior_variance(1).item() == 0


@given(st.integers(1, 50), st.integers(0, 49))
@settings(max_examples=30, deadline=None)
def test_a_deterministic_step_moves_along_the_same_noise(t, t_next):
    schedule = NoiseSchedule(ScheduleConfig())
    generator = torch.Generator().manual_seed(t)
    z0, noise = torch.randn(2, 3, 4, generator=generator), torch.randn(2, 3, 4, generator=generator)
    z = schedule.q_sample(z0, torch.full((2,), t), noise)
    expected = schedule.q_sample(z0, torch.full((2,), t_next), noise)
    torch.testing.assert_close(schedule.ddim(z, z0, t, t_next), expected, atol=2e-5, rtol=1e-5)
    assert torch.equal(schedule.ddim(z, z0, t, 0), z0)


def test_loss_weights_are_squared_coefficients_of_mean_one():
    schedule = NoiseSchedule(ScheduleConfig())
    weights = schedule.kl_weight(torch.arange(1, 51))
    assert weights.mean().item() == pytest.approx(1, rel=1e-6)
    before = torch.cat([torch.ones(1, dtype=torch.float64), BARS[:-1]])
    squared = before * BETAS**2 / (1 - BARS) ** 2  # eq. 5
    torch.testing.assert_close(weights.double(), squared / squared.mean(), atol=1e-6, rtol=1e-5)


@given(st.integers(2, 200), st.data())
@settings(max_examples=50, deadline=None)
def test_visited_steps_descend_evenly_from_the_last(num_steps, data):
    num = data.draw(st.integers(1, num_steps))
    steps = NoiseSchedule(ScheduleConfig(num_steps=num_steps)).sampled_steps(num)
    assert len(steps) == num
    assert steps[0] == num_steps
    gaps = [upper - lower for upper, lower in zip(steps, [*steps[1:], 0], strict=True)]
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


def test_all_steps_or_one_step_are_visited_on_demand():
    schedule = NoiseSchedule(ScheduleConfig(num_steps=10))
    assert schedule.sampled_steps(10) == list(range(10, 0, -1))
    assert schedule.sampled_steps(1) == [10]
    assert schedule.sampled_steps(5) == [10, 8, 6, 4, 2]
    for num in (0, 11):
        with pytest.raises(ValueError, match=rf"sampled_steps\({num}\), expected 1 to 10"):
            schedule.sampled_steps(num)


def test_tables_are_saved_and_can_be_made_after_the_meta_device():
    schedule = NoiseSchedule(ScheduleConfig(kind="log", num_steps=10))
    late = NoiseSchedule(ScheduleConfig(kind="log", num_steps=10), device=torch.device("meta")).to_empty(device="cpu")
    late.reset_parameters()
    assert set(schedule.state_dict()) == {"signal", "noise", "mean_of_z0", "mean_of_z", "variance", "mean_weight"}
    for name, table in schedule.state_dict().items():
        assert table.shape == (11,)
        assert table.dtype == torch.float32
        assert torch.equal(table, late.state_dict()[name])


def test_scripted_schedule_equals_the_eager_one():
    schedule = NoiseSchedule(ScheduleConfig())
    scripted = torch.jit.script(schedule)
    z, z0, r = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.tensor([3, 50])
    assert torch.equal(scripted.q_sample(z0, r, z), schedule.q_sample(z0, r, z))
    assert torch.equal(scripted.posterior_mean(z, z0, 9), schedule.posterior_mean(z, z0, 9))
    assert torch.equal(scripted.posterior_variance(9), schedule.posterior_variance(9))
    assert torch.equal(scripted.ddim(z, z0, 30, 20), schedule.ddim(z, z0, 30, 20))
    assert torch.equal(scripted.kl_weight(r), schedule.kl_weight(r))
    assert scripted.sampled_steps(5) == schedule.sampled_steps(5)
