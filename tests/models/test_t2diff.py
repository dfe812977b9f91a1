"""T2Diff's diffusion in the model: what it learns from, where gradients stop, what the tower is given."""

import pytest
import torch
from torch import nn

from models.layers.diffusion import ScheduleConfig
from models.layers.diffusion_config import DiffusionConfig
from models.layers.diffusion_module import DiffusionModule
from models.layers.padding import right_aligned
from tests.models.small_t2diff import ATTENTION, DIMS, build, learned, training_noise, users_and_items, with_diffusion


class KnowsTheAnswer(nn.Module):
    """In the place of a U-Net that has learned everything."""

    def __init__(self, z0_BLD):
        super().__init__()
        self.z0_BLD = z0_BLD

    def receptive_len(self, _num_newest):
        return 1_000

    def forward(self, *_):
        return self.z0_BLD


class ReturnsItsInput(nn.Module):
    """In the place of a U-Net that takes z_r for z_0."""

    def receptive_len(self, _num_newest):
        return 1_000

    def forward(self, z_BLD, *_):
        return z_BLD


def drifts(users, items):
    """z0 of eq. 11, row by row: what each behaviour, and at last the target, is ahead of the behaviour before it."""
    histories = users.history_JD.split(users.history_lengths_B.tolist())
    rows = [torch.cat([history, target[None]]).diff(dim=0) for history, target in zip(histories, items.item_BD, strict=True)]
    return right_aligned(torch.cat(rows), users.history_lengths_B, DIMS.history_len)


def test_a_perfect_unet_has_no_loss_and_predicts_the_next_behaviour_at_every_step():
    users, items = users_and_items()
    model = with_diffusion().eval()
    model.diffusion.unet = KnowsTheAnswer(drifts(users, items))
    for uniform in (0.0, 0.5, 0.99):
        out, predicted_BD = learned(model, users, items, uniform=uniform)
        torch.testing.assert_close(out.auxiliary_B, torch.zeros(5), atol=1e-12, rtol=0)
        torch.testing.assert_close(predicted_BD[1:], items.item_BD[1:], atol=1e-5, rtol=1e-5)
        assert torch.equal(predicted_BD[0], torch.zeros(8))  # nobody's next behaviour is told without a history


def test_after_one_step_of_noise_the_prediction_is_still_nearly_the_target():
    users, items = users_and_items([7] * 64)
    model = with_diffusion().eval()
    model.diffusion.unet = ReturnsItsInput()
    error = [(learned(model, users, items, uniform=u)[1] - items.item_BD).square().mean().sqrt() for u in (0.0, 0.999)]
    assert error[0] < 0.15  # r = 1: β_1 = 0.01 leaves noise of 0.1, and drifts of √2
    assert error[1] > 1.0  # r = T: nothing but noise


def test_without_drift_the_behaviours_themselves_are_diffused():
    users, items = users_and_items()
    histories = users.history_JD.split(users.history_lengths_B.tolist())
    nexts = torch.cat([torch.cat([h, t[None]])[1:] for h, t in zip(histories, items.item_BD, strict=True)])
    model = with_diffusion(use_drift=False).eval()
    model.diffusion.unet = KnowsTheAnswer(right_aligned(nexts, users.history_lengths_B, DIMS.history_len))
    out, predicted_BD = learned(model, users, items)
    torch.testing.assert_close(out.auxiliary_B, torch.zeros(5), atol=1e-12, rtol=0)
    torch.testing.assert_close(predicted_BD[1:], items.item_BD[1:], atol=1e-5, rtol=1e-5)


def gradients(model, loss, users, items):
    """Names of all that got a gradient other than 0 from `loss`."""
    model.zero_grad()
    users.history_JD.grad = items.item_BD.grad = None
    loss.backward()
    tensors = dict(model.named_parameters()) | {"history": users.history_JD, "target": items.item_BD}
    return {name for name, tensor in tensors.items() if tensor.grad is not None and tensor.grad.abs().sum() > 0}


def differentiable_inputs():
    users, items = users_and_items([7, 4, 5])
    return users._replace(history_JD=users.history_JD.requires_grad_()), items._replace(item_BD=items.item_BD.requires_grad_())


def test_the_diffusions_loss_trains_the_unet_alone():
    model, (users, items) = build(), differentiable_inputs()
    out, _ = learned(model, users, items)
    reached = gradients(model, out.auxiliary_B.sum(), users, items)
    assert reached
    assert all(name.startswith("diffusion.unet.") for name in reached)


def test_the_towers_loss_trains_the_tower_and_the_history_but_not_the_unet():
    model, (users, items) = build(), differentiable_inputs()
    out, _ = learned(model, users, items)
    reached = gradients(model, out.user_BC.square().sum(), users, items)
    assert "history" in reached
    assert {name for name, _ in model.named_parameters() if name.startswith("attention.")} <= reached
    assert not any(name.startswith("diffusion.") for name in reached)
    assert "target" not in reached


def test_without_stop_gradients_both_losses_reach_everything():
    model, (users, items) = with_diffusion(detach_inputs=False, detach_prediction=False), differentiable_inputs()
    unet = {name for name, _ in model.named_parameters() if name.startswith("diffusion.unet.")}
    out, _ = learned(model, users, items)
    assert gradients(model, out.auxiliary_B.sum(), users, items) == unet | {"history", "target"}
    out, _ = learned(model, users, items)
    reached = gradients(model, out.user_BC.square().sum(), users, items)
    assert {"history", "target"} <= reached
    assert unet <= reached


def test_one_step_training_sees_the_target_and_training_from_noise_does_not():
    users, items = users_and_items()
    other = items._replace(item_BD=items.item_BD + 1.0)
    for condition, sees in (("onestep", True), ("sampled", False), ("high_noise", False)):
        model = with_diffusion(tower_condition=condition).eval()
        same = torch.allclose(learned(model, users, items)[0].user_BC, learned(model, users, other)[0].user_BC)
        assert same is not sees, condition


def test_training_on_sampled_predictions_gives_the_vectors_of_serving():
    model = with_diffusion(tower_condition="sampled").eval()
    users, items = users_and_items()
    noise_BX, _ = training_noise(model, 5)
    served_BC = model.user_vectors(users, noise_BX[:, model.serving_noise_size :])
    torch.testing.assert_close(learned(model, users, items)[0].user_BC, served_BC, atol=1e-6, rtol=1e-5)


def test_every_noise_gives_its_own_user_vector():
    model = build().eval()
    users, _ = users_and_items([7, 4, 5])
    one, other = (torch.randn(3, model.serving_noise_size, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.equal(model.user_vectors(users, one), model.user_vectors(users, one))
    assert not torch.allclose(model.user_vectors(users, one), model.user_vectors(users, other))


@pytest.mark.parametrize(("options", "num_noise"), [({}, 1), ({"sampler": "ancestral", "num_sample_steps": 10}, 10)])
def test_serving_takes_the_samplers_noise(options, num_noise):
    model = with_diffusion(**options, **({"schedule": ScheduleConfig(num_steps=10)} if options else {})).eval()
    assert model.serving_noise_size == num_noise * DIMS.history_len * DIMS.position
    users, _ = users_and_items()
    assert torch.isfinite(model.user_vectors(users, torch.randn(5, model.serving_noise_size))).all()


def test_the_cosines_of_fig_4_are_those_of_the_newest_drift():
    users, items = users_and_items()
    model = build().eval()
    noise_BX = torch.randn(5, model.serving_noise_size)
    assert not torch.allclose(model.reverse_cosines(users, items, noise_BX)[:, 1:], torch.ones(1), atol=0.1)
    model.diffusion.unet = KnowsTheAnswer(drifts(users, items))
    cosine_SB = model.reverse_cosines(users, items, noise_BX)
    torch.testing.assert_close(cosine_SB, torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0]).expand(5, -1))  # the first row has no history


def test_another_sampler_shares_all_other_weights_and_leaves_the_model_alone():
    model = build().eval()
    before = dict(model.named_parameters())
    ancestral = DiffusionConfig(sampler="ancestral", num_sample_steps=50)
    other = model.with_diffusion(DiffusionModule(ancestral, dim=DIMS.position).eval())
    assert other.serving_noise_size == 50 * DIMS.history_len * DIMS.position
    assert other.attention is model.attention
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    users, _ = users_and_items()
    assert torch.isfinite(other.user_vectors(users, torch.randn(5, other.serving_noise_size))).all()
    assert torch.isfinite(model.user_vectors(users, torch.randn(5, model.serving_noise_size))).all()


@pytest.mark.parametrize("condition", ["onestep", "high_noise"])
def test_a_rank_may_have_no_rows(condition):
    users, items = users_and_items([])
    model = with_diffusion(tower_condition=condition, num_sample_steps=1)
    out = model(users, items, *training_noise(model, 0))
    assert out.user_BC.shape == (0, 8)
    out.user_BC.sum().backward()


def test_lambda_weighs_the_diffusions_loss():
    users, items = users_and_items()
    one, ten = (learned(build(diffusion_weight=weight).eval(), users, items)[0].auxiliary_B for weight in (1.0, 10.0))
    torch.testing.assert_close(ten, 10 * one)
    assert (one[1:] > 0).all()


def test_mixed_attention_alone_has_no_diffusion_no_prediction_and_no_noise():
    model = build(use_diffusion=False).eval()
    assert not any("diffusion" in name for name in model.state_dict())
    assert (model.serving_noise_size, model.training_noise_size) == (0, 0)
    assert model.attention.position_SD.shape[0] == ATTENTION.session_len  # no place for x̂
    users, items = users_and_items()
    out, predicted_BD = learned(model, users, items)
    assert predicted_BD.shape == (5, 0)
    assert torch.equal(out.auxiliary_B, torch.zeros(5))
    assert torch.equal(model.user_vectors(users, torch.empty(5, 0)), out.user_BC)
    assert model.log_values() == {}
