"""What every matching model of MODELS must do beside tests/models/test_contract.py; a new model needs no new code here."""

import pytest
import torch

from models import MODELS
from models.ranking import target_ranks
from models.tasks import MatchingLossConfig, MatchingTask
from tests.models.synthetic import KINDS, build, evaluate, predicts_history, random_inputs, random_statistics, unused_tables

KIND = KINDS[MatchingTask]
NUM_ITEMS = 40


@pytest.fixture(params=sorted(name for name, spec in MODELS.items() if spec.task_class is MatchingTask))
def spec(request):
    torch.manual_seed(0)
    return MODELS[request.param]


@pytest.fixture
def model(spec):
    return random_statistics(spec.model_class(spec.config_class(), dims=KIND.dims))


def serving_noise(model, num_rows):
    return torch.randn(num_rows, model.serving_noise_size, generator=torch.Generator().manual_seed(0))


def test_user_and_item_vectors_have_one_width_and_script(model):
    users, items = random_inputs(9, dims=KIND.dims)
    noise_BX = serving_noise(model, 9)
    user_BC, item_MC = model.user_vectors(users, noise_BX), model.item_vectors(items)
    assert user_BC.shape[0] == item_MC.shape[0] == 9
    assert user_BC.shape[1] == item_MC.shape[1]
    scripted = torch.jit.script(model)
    torch.testing.assert_close(scripted.user_vectors(users, noise_BX), user_BC, atol=1e-6, rtol=0)
    torch.testing.assert_close(scripted.item_vectors(items), item_MC, atol=1e-6, rtol=0)


def test_no_users_have_no_vectors(model):
    users, _ = random_inputs(3, dims=KIND.dims)
    width = model.user_vectors(users, serving_noise(model, 3)).shape[1]
    nobody, _ = random_inputs(0, history_lengths=[], dims=KIND.dims)
    assert model.user_vectors(nobody, serving_noise(model, 0)).shape == (0, width)


def test_an_item_vector_does_not_depend_on_the_other_items(model):
    _, items = random_inputs(5, dims=KIND.dims)
    alone = [model.item_vectors(type(items)(*[part[row : row + 1] for part in items])) for row in range(5)]
    torch.testing.assert_close(torch.cat(alone), model.item_vectors(items), atol=1e-6, rtol=0)


def test_the_serving_form_does_not_see_the_target(spec):
    task = build(spec).eval()
    batch = KIND.batch(8)
    before_BC = task.user_vectors(batch)
    for name in ("item", "category"):
        batch.sequence[name].values().zero_()
    assert torch.equal(batch.sequence["item"].values(), torch.zeros(8, dtype=torch.int64))
    assert torch.equal(task.user_vectors(batch), before_BC)


def test_evaluation_ranks_the_target_by_the_serving_vectors(spec):
    task = build(spec)
    batch = KIND.batch(16)
    out = evaluate(task, batch)
    item_MC = task.encode_catalogue()
    assert item_MC.shape[0] == task.num_items == NUM_ITEMS
    target_B = batch.sequence["item"].values()
    assert torch.equal(out.rank_B, target_ranks(task.user_vectors(batch), item_MC, target_B))
    assert out.rank_B.min() >= 1
    assert out.rank_B.max() <= NUM_ITEMS
    score_BM = task.user_vectors(batch) @ item_MC.t()
    torch.testing.assert_close(out.softmax_loss_B, -score_BM.log_softmax(1)[torch.arange(16), target_B].detach())
    assert torch.equal(out.auxiliary_B, torch.zeros(16))


def test_training_ranks_nothing(spec):
    _, out = build(spec)(KIND.batch(6))
    assert torch.equal(out.rank_B, torch.zeros(6, dtype=torch.int64))


def test_a_sampled_softmax_trains_every_parameter_on_rows_that_share_candidates_or_is_refused(spec):
    if predicts_history(spec):
        with pytest.raises(ValueError, match=r"use --model\.loss\.item-softmax full"):
            build(spec, loss=MatchingLossConfig(item_softmax="sampled"))
        return
    task = build(spec, loss=MatchingLossConfig(item_softmax="sampled"))
    loss, out = task(KIND.batch(64, shared_items=32))
    loss.backward()
    assert out.softmax_loss_B.shape == (64,)
    used = {name: parameter for name, parameter in task.named_parameters() if not name.startswith(unused_tables(spec))}
    for name, parameter in used.items():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_rows_that_are_seen_again_and_again_are_learned(spec):
    task, batch = build(spec), KIND.batch(8, seed=3)
    optimizer = torch.optim.Adam(task.parameters(), lr=0.02)
    before = evaluate(task, batch).softmax_loss_B.mean()
    for step in range(25):
        task.train().model.schedule(step, 100)
        loss, _ = task(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert evaluate(task, batch).softmax_loss_B.mean() < 0.7 * before
