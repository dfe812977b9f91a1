import dataclasses

import pytest
import torch

from models.diffurec import TRUNCATED_LINEAR, DiffuRec, DiffuRecConfig
from models.layers.diffusion import ScheduleConfig
from models.types import InputDims
from tests.models.synthetic import random_inputs

DIMS = InputDims(profile=0, attributes=0, position=8, history_len=6, context=(("hist_time_lag", 5),))
CONFIG = DiffuRecConfig(
    num_layers=2, num_heads=2, hidden_dim=12, schedule=ScheduleConfig(kind="linear", num_steps=4, beta_first=0.3, beta_last=0.95)
)
LENGTHS = [0, 6, 2, 3, 4]


def build(*, dims=DIMS, **options):
    torch.manual_seed(0)
    return DiffuRec(dataclasses.replace(CONFIG, **options), dims=dims).eval()


def users_and_items(lengths=LENGTHS):
    return random_inputs(len(lengths), history_lengths=lengths, dims=DIMS)


def noise(size, num_rows=5, *, seed=1):
    return torch.randn(num_rows, size, generator=torch.Generator().manual_seed(seed))


def learned(model, users, items, *, uniform=0.5):
    num_rows = items.item_BD.shape[0]
    return model(users, items, noise(model.training_noise_size, num_rows), torch.full((num_rows,), uniform)).user_BC


def test_the_papers_schedule_has_the_constants_of_the_authors_program():
    beta_T = TRUNCATED_LINEAR.betas()
    assert TRUNCATED_LINEAR.num_steps == 32
    torch.testing.assert_close(beta_T[[0, -1]], torch.tensor([31.25 * 1e-4 + 0.01, 31.25 * 0.02 + 0.01], dtype=torch.float64))
    torch.testing.assert_close(beta_T.diff(), beta_T.diff()[:1].expand(31))


def test_padding_is_never_attended_to():
    """The trap of the authors' program, which masks the places that ask instead of those that are asked."""
    users, items = users_and_items([0, 5, 2, 3, 4])
    model = build()
    expected_BD = learned(model, users, items)
    served_BD = model.user_vectors(users, noise(model.serving_noise_size))
    with torch.no_grad():
        model.position_LD[0] += torch.arange(8.0)  # the oldest place, padding in all rows
    torch.testing.assert_close(learned(model, users, items), expected_BD)
    torch.testing.assert_close(model.user_vectors(users, noise(model.serving_noise_size)), served_BD)


def test_every_behaviour_is_attended_to():
    model, (users, items) = build(), users_and_items([4])
    before_BD = learned(model, users, items)
    for place in range(4):
        history_JD = users.history_JD.clone()
        history_JD[place] += torch.arange(8.0)
        assert not torch.allclose(learned(model, users._replace(history_JD=history_JD), items), before_BD)


class KnowsTheAnswer(torch.nn.Module):
    """In the place of the Approximator's layers: answers with `answer_BD` whatever it sees, which it keeps."""

    def __init__(self, answer_BD):
        super().__init__()
        self.answer_BD, self.seen = answer_BD, []

    def forward(self, hidden_BSD, allowed_BAS):
        self.seen.append(hidden_BSD)
        return self.answer_BD.unsqueeze(1).expand(-1, allowed_BAS.shape[1], -1)


def test_the_reverse_process_visits_every_step_and_ends_at_the_approximators_last_word():
    users, items = users_and_items()
    model = build()
    oracle = KnowsTheAnswer(items.item_BD)
    model.layers, model.norm_out = torch.nn.ModuleList([oracle]), torch.nn.Identity()
    assert torch.equal(model.user_vectors(users, noise(model.serving_noise_size)), items.item_BD)
    assert len(oracle.seen) == 4


def test_the_reverse_process_of_a_perfect_approximator_nears_the_target():
    """Seen through λ = 1: at each step the behaviours hold x_s, which is the target and the noise that the schedule leaves."""
    users, items = users_and_items([0] * 4_000)
    model = build(uncertainty=1.0)
    torch.nn.init.zeros_(model.position_LD)
    torch.nn.init.zeros_(model.step_embedding.linear.weight)
    torch.nn.init.zeros_(model.step_embedding.linear.bias)
    oracle = KnowsTheAnswer(items.item_BD)
    model.layers, model.norm_out = torch.nn.ModuleList([oracle]), torch.nn.Identity()
    noise_BSX = noise(model.serving_noise_size, 4_000).reshape(4_000, 4, -1)
    noise_BSX[:, :, DIMS.position :] = 0.0  # λ at its mean
    model.user_vectors(users, noise_BSX.flatten(1))
    schedule = model.noise_schedule
    for index, step in enumerate([4, 3, 2, 1]):
        x_BD = oracle.seen[index][:, -1]
        if step < 4:  # x_T is pure noise, whose rest of the target the schedule leaves out
            rest_BD = x_BD - schedule.signal[step] * items.item_BD
            torch.testing.assert_close(rest_BD.square().mean(), schedule.noise[step].square(), atol=0.0, rtol=0.06)
            assert rest_BD.mean().abs() < 0.05
    assert [float(schedule.noise[step]) for step in (4, 1)] == pytest.approx([0.999, 0.548], abs=0.002)


def test_uncertainty_is_mean_and_deviation_of_what_enters_the_behaviours():
    users, items = users_and_items([6] * 500)
    model = build(uncertainty=0.04)
    oracle = KnowsTheAnswer(items.item_BD)
    model.layers, model.norm_out = torch.nn.ModuleList([oracle]), torch.nn.Identity()
    with torch.no_grad():
        model.step_embedding.linear.weight.zero_()
        model.step_embedding.linear.bias.fill_(1_000.0)  # beside which x_s is little
        learned(model, users, items)
        history_BLD, _ = model._history(users)
    lambda_BL = (oracle.seen[0] - history_BLD).mean(2) / 1_000.0
    assert lambda_BL.mean() == pytest.approx(0.04, abs=0.003)
    assert lambda_BL.std() == pytest.approx(0.04, rel=0.1)


def test_behaviours_are_of_the_size_of_the_noised_target():
    """Embeddings begin twenty times smaller, and λ(x_s + d_s) would drown them."""
    users, _ = users_and_items([6] * 50)
    history_BLD, _ = build()._history(users._replace(history_JD=users.history_JD * 0.05))
    assert history_BLD.square().mean().item() == pytest.approx(1.0, rel=0.1)


def test_training_sees_the_target_through_the_uncertainty_alone():
    users, items = users_and_items()
    other = items._replace(item_BD=items.item_BD * 3.0)
    for uncertainty, sees in ((0.1, True), (0.0, False)):
        model = build(uncertainty=uncertainty)
        assert torch.allclose(learned(model, users, items), learned(model, users, other)) is not sees


def test_the_step_counts():
    model, (users, items) = build(uncertainty=0.5), users_and_items()
    assert not torch.allclose(learned(model, users, items, uniform=0.0), learned(model, users, items, uniform=0.99))


def test_every_noise_gives_its_own_user_vector():
    model, (users, _) = build(uncertainty=0.5), users_and_items()
    one, other = (model.user_vectors(users, noise(model.serving_noise_size, seed=seed)) for seed in (1, 2))
    assert not torch.allclose(one, other)


def test_items_are_their_embeddings():
    _, items = users_and_items()
    assert torch.equal(build().item_vectors(items), items.item_BD)


def test_inputs_without_a_history_are_refused():
    with pytest.raises(ValueError, match="DiffuRec needs a history"):
        build(dims=dataclasses.replace(DIMS, position=0))


@pytest.mark.parametrize("options", [{"num_layers": 0}, {"uncertainty": -0.1}, {"dropout": 1.0}, {"input_dropout": -0.1}])
def test_a_field_outside_its_range_is_refused(options):
    with pytest.raises(ValueError, match=f"DiffuRecConfig.{next(iter(options))}="):
        DiffuRecConfig(**options)
