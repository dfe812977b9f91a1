import dataclasses

import pytest
import torch
import torch.nn.functional as F

from models import MODELS
from models.contrastvae import ContrastVAE, ContrastVAEConfig
from models.losses import gaussian_kl
from models.types import InputDims
from tests.models.synthetic import KINDS, random_inputs
from tests.models.synthetic import build as build_task

DIMS = InputDims(profile=0, attributes=0, position=8, history_len=6, context=(("hist_time_lag", 5),))
CONFIG = ContrastVAEConfig(num_heads=2, hidden_dim=12)
LENGTHS = [0, 6, 2, 3, 4]


def build(*, dims=DIMS, **options):
    torch.manual_seed(0)
    return ContrastVAE(dataclasses.replace(CONFIG, **options), dims=dims).eval()


def users_and_items(lengths=LENGTHS):
    return random_inputs(len(lengths), history_lengths=lengths, dims=DIMS)


def learned(model, users, items, *, noise_BX=None):
    num_rows = items.item_BD.shape[0]
    drawn_BX = torch.randn(num_rows, model.training_noise_size, generator=torch.Generator().manual_seed(1))
    return model(users, items, drawn_BX if noise_BX is None else noise_BX, torch.rand(num_rows))


def test_without_noise_both_views_and_serving_are_one_and_the_same():
    model, (users, items) = build(), users_and_items()
    out = learned(model, users, items, noise_BX=torch.zeros(5, model.training_noise_size))
    served_BD = model.user_vectors(users, torch.empty(5, 0))
    torch.testing.assert_close(out.user_BC, served_BD)
    torch.testing.assert_close(out.cloze_XC, served_BD)


def test_the_views_differ_by_their_noise_and_by_alpha():
    model, (users, items) = build(), users_and_items()
    out = learned(model, users, items)
    assert not torch.allclose(out.user_BC, out.cloze_XC)
    twice_BX = torch.randn(5, model.training_noise_size // 2).repeat(1, 2)
    out = learned(model, users, items, noise_BX=twice_BX)
    assert not torch.allclose(out.user_BC, out.cloze_XC)
    with torch.no_grad():
        model.log_alpha_D.zero_()  # α = 1: the same distribution
    same = learned(model, users, items, noise_BX=twice_BX)
    torch.testing.assert_close(same.user_BC, same.cloze_XC)


def test_both_views_are_to_find_the_rows_target():
    torch.manual_seed(0)
    task, batch = build_task(MODELS["contrastvae"]), KINDS[MODELS["contrastvae"].task_class].batch(6)
    task.model.contrastive_weight = 0.0
    seen = []
    task.model.register_forward_hook(lambda *given: seen.append(given[2]))
    _, out = task(batch)
    catalogue_MC = task.eval().encode_catalogue()
    target_B = batch.sequence["item"].values()
    expected_B = F.cross_entropy(seen[0].cloze_XC @ catalogue_MC.t(), target_B, reduction="none")
    torch.testing.assert_close(out.auxiliary_B, expected_B.detach(), atol=1e-5, rtol=1e-5)


def test_the_kl_term_is_that_of_both_views_over_the_behaviours():
    model, (users, items) = build(contrastive_weight=0.0, max_kl_weight=0.5, kl_steps=1), users_and_items()
    seen = {}
    for name in ("mean_encoder", "log_variance_encoder"):
        stack = getattr(model, name)
        stack[-1].register_forward_hook(lambda *given, name=name: seen.update({name: given[2]}))
    assert torch.equal(learned(model, users, items).auxiliary_B, torch.zeros(5))  # before the first step it weighs nothing
    model.schedule(10, 100)
    out = learned(model, users, items)
    expected = [torch.tensor(0.0)]
    for row, length in enumerate(LENGTHS[1:], start=1):
        mean_XD, log_variance_XD = (seen[name][row, -length:] for name in ("mean_encoder", "log_variance_encoder"))
        both = gaussian_kl(mean_XD, log_variance_XD) + gaussian_kl(mean_XD, log_variance_XD + model.log_alpha_D)
        expected.append(0.5 * both.mean())
    torch.testing.assert_close(out.auxiliary_B, torch.stack(expected))


def test_the_kl_weight_rises_in_a_straight_line_and_stops():
    model = build(max_kl_weight=0.3, kl_steps=100)
    weights = []
    for step in (0, 10, 30, 31, 1_000):
        model.schedule(step, 7)
        weights.append(model.log_values()["kl_weight"])
    assert weights == pytest.approx([0.0, 0.1, 0.3, 0.3, 0.3])


def test_the_contrastive_term_draws_a_rows_views_together_and_other_rows_apart():
    model, (users, items) = build(contrastive_weight=1.0), users_and_items([4] * 12)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def similarities():
        pooled = []
        hook = model.decoder[0].register_forward_pre_hook(lambda _, given: pooled.extend(given[0].chunk(2)))
        out = learned(model, users, items)
        hook.remove()
        one_BD, other_BD = (F.normalize(view[:, -4:].mean(1), dim=1) for view in pooled)
        return out.auxiliary_B.mean(), one_BD @ other_BD.t()

    before = similarities()[1].detach()
    for _ in range(30):
        optimizer.zero_grad()
        similarities()[0].backward()
        optimizer.step()
    after = similarities()[1].detach()
    others = ~torch.eye(12, dtype=torch.bool)
    assert (after.diagonal().mean() - after[others].mean()) > (before.diagonal().mean() - before[others].mean()) + 0.2


def test_no_behaviour_hears_of_a_newer_one():
    model, (users, _) = build(num_layers=2), users_and_items([6])
    seen = []
    model.decoder[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.user_vectors(users, torch.empty(1, 0))
    history_JD = users.history_JD.clone()
    history_JD[-1] += torch.arange(8.0)
    model.user_vectors(users._replace(history_JD=history_JD), torch.empty(1, 0))
    torch.testing.assert_close(seen[0][:, :-1], seen[1][:, :-1])
    assert not torch.allclose(seen[0][:, -1], seen[1][:, -1])


def test_alpha_starts_as_the_augmentation_rate_says():
    assert build(augmentation_rate=0.2).log_values()["augmentation_alpha"] == pytest.approx(0.25)


def test_inputs_without_a_history_are_refused():
    with pytest.raises(ValueError, match="ContrastVAE needs a history"):
        build(dims=dataclasses.replace(DIMS, history_len=0))


@pytest.mark.parametrize(
    "options", [{"num_layers": 0}, {"dropout": 1.0}, {"augmentation_rate": 0.0}, {"temperature": 0.0}, {"max_kl_weight": -1.0}]
)
def test_a_field_outside_its_range_is_refused(options):
    with pytest.raises(ValueError, match=f"ContrastVAEConfig.{next(iter(options))}="):
        ContrastVAEConfig(**options)
