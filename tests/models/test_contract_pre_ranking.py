"""What every pre-ranking model of MODELS must do beside tests/models/test_contract.py; a new model needs no new code here."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
import tyro

from models import MODELS, ModelConfig
from models.tasks import PreRankingTask
from tests.models.synthetic import DIMS, build, evaluate, random_batch, random_inputs, random_statistics


@pytest.fixture(params=sorted(name for name, spec in MODELS.items() if spec.task_class is PreRankingTask))
def spec(request):
    torch.manual_seed(0)
    return MODELS[request.param]


@pytest.fixture
def model(spec):
    return random_statistics(spec.model_class(spec.config_class(), dims=DIMS))


def test_outputs_have_one_float_logit_per_row(spec):
    batch = random_batch(12)
    _, out = build(spec)(batch)
    assert out.logit_B.shape == (12,)
    assert out.logit_B.dtype == torch.float32
    assert torch.equal(out.label_B, batch.label_B)
    assert torch.equal(out.row_id_B, batch.row_id_B)


def test_the_towers_dropout_can_be_set_on_the_command_line(spec):
    run = dataclasses.make_dataclass("Run", [("model", ModelConfig, dataclasses.field(default=spec.config_class()))])
    assert tyro.cli(run, args=["--model.tower.dropout", "0.25"], config=(tyro.conf.AvoidSubcommands,)).model.tower.dropout == 0.25


def test_scripted_serving_methods_equal_eager(model):
    users, items = random_inputs(9)
    scripted = torch.jit.script(model)
    torch.testing.assert_close(scripted.all_user_vectors(users), model.all_user_vectors(users), atol=1e-6, rtol=0)
    for ours, theirs in zip(scripted.item_vectors(items), model.item_vectors(items), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_logits_do_not_depend_on_labels(spec, model):
    users, items = random_inputs(7)
    for module in (model, spec.model_class(spec.config_class(), dims=DIMS)):
        torch.manual_seed(1)
        expected = module(users, items, torch.zeros(7)).logit_B
        torch.manual_seed(1)
        assert torch.equal(module(users, items, torch.ones(7)).logit_B, expected)


def test_a_fresh_model_favours_neither_label(spec):
    users, items = random_inputs(400)
    logit_B = spec.model_class(spec.config_class(), dims=DIMS)(users, items, torch.ones(400)).logit_B
    assert logit_B.mean().abs() < 2.5


def test_further_losses_count_in_training_alone(spec):
    task, batch = build(spec), random_batch(12)
    loss, out = task(batch)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(out.logit_B, out.label_B) + out.auxiliary_B.mean())
    out = evaluate(task, batch)
    assert torch.equal(out.auxiliary_B, torch.zeros(12))
    torch.testing.assert_close(out.loss, F.binary_cross_entropy_with_logits(out.logit_B, out.label_B))


def test_serving_scores_equal_forward(model):
    users, items = random_inputs(7)
    user_BNHP = model.all_user_vectors(users)
    stored = model.item_vectors(items)
    # every item is a candidate of every user; the diagonal is what forward scores
    index_BK = stored.index_B.expand(7, -1)
    item_BKHP = stored.item_BHP.expand(7, -1, -1, -1)
    score_BK = model.score_candidates(user_BNHP, index_BK, item_BKHP)
    assert score_BK.shape == (7, 7)
    torch.testing.assert_close(score_BK.diagonal(), model(users, items, torch.ones(7)).logit_B, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        torch.jit.script(model).score_candidates(user_BNHP, index_BK, item_BKHP), score_BK, atol=1e-6, rtol=0
    )
