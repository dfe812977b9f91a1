"""What every entry of MODELS must do; a new model needs no new code here."""

import copy
import dataclasses
from typing import get_args

import pytest
import torch
import tyro

from models import MODELS, ModelConfig, build_task, spec_of
from models.embeddings import EmbeddingConfig
from models.types import InputDims
from tests.models.synthetic import DIMS, SCHEMA, random_batch, random_inputs, random_statistics


@pytest.fixture(params=sorted(MODELS))
def spec(request):
    torch.manual_seed(0)
    return MODELS[request.param]


@pytest.fixture
def task(spec):
    return build_task(spec.config_class(), schema=SCHEMA, embeddings=EmbeddingConfig(dim=4))


def all_gradients(module):
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def test_config_finds_its_model(spec):
    assert spec_of(spec.config_class()) is spec


def test_the_union_of_configs_is_the_registry_and_parses_on_the_command_line(spec):
    assert set(get_args(ModelConfig)) == {entry.config_class for entry in MODELS.values()}
    run = dataclasses.make_dataclass("Run", [("model", ModelConfig, dataclasses.field(default=spec.config_class()))])
    assert tyro.cli(run, args=[], config=(tyro.conf.AvoidSubcommands,)).model == spec.config_class()
    assert tyro.cli(run, args=["--model.tower.dropout", "0.25"], config=(tyro.conf.AvoidSubcommands,)).model.tower.dropout == 0.25


def test_outputs_have_one_float_logit_per_row(task):
    batch = random_batch(12)
    loss, out = task(batch)
    assert loss.shape == ()
    assert out.logit_B.shape == (12,)
    assert out.logit_B.dtype == torch.float32
    assert not out.logit_B.requires_grad
    assert torch.equal(out.label_B, batch.label_B)
    assert torch.equal(out.row_id_B, batch.row_id_B)
    assert torch.equal(out.loss, loss.detach())


def test_one_optimizer_step_lowers_the_loss_on_the_same_batch(task):
    batch = random_batch(64)
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-3)
    losses = []
    for step in range(2):
        task.model.schedule(step, 100)
        loss, _ = task(batch)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]


def test_every_parameter_is_finite_and_gets_a_finite_gradient(task):
    loss, _ = task(random_batch(64))
    loss.backward()
    for name, gradient in all_gradients(task).items():
        assert gradient is not None, name
        assert torch.isfinite(gradient).all(), name


def test_scripted_model_equals_eager(spec):
    model = random_statistics(spec.model_class(spec.config_class(), dims=DIMS))
    users, items = random_inputs(9)
    scripted = torch.jit.script(model)
    torch.testing.assert_close(scripted(users, items), model(users, items), atol=1e-6, rtol=0)
    torch.testing.assert_close(scripted.all_user_vectors(users), model.all_user_vectors(users), atol=1e-6, rtol=0)
    for ours, theirs in zip(scripted.item_vectors(items), model.item_vectors(items), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_scripted_training_step_equals_eager(spec):
    model = spec.model_class(spec.config_class(), dims=DIMS)
    scripted = torch.jit.script(copy.deepcopy(model))
    users, items = random_inputs(16)
    for module in (model, scripted):
        module(users, items).square().mean().backward()
    expected = all_gradients(model)
    for name, gradient in all_gradients(scripted).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4, msg=name)


def test_serving_scores_equal_forward(spec):
    model = random_statistics(spec.model_class(spec.config_class(), dims=DIMS))
    users, items = random_inputs(7)
    user_BNHP = model.all_user_vectors(users)
    stored = model.item_vectors(items)
    # every item is a candidate of every user; the diagonal is what forward scores
    index_BK = stored.index_B.expand(7, -1)
    item_BKHP = stored.item_BHP.expand(7, -1, -1, -1)
    score_BK = model.score_candidates(user_BNHP, index_BK, item_BKHP)
    assert score_BK.shape == (7, 7)
    torch.testing.assert_close(score_BK.diagonal(), model(users, items), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        torch.jit.script(model).score_candidates(user_BNHP, index_BK, item_BKHP), score_BK, atol=1e-6, rtol=0
    )


def test_state_dict_round_trip_gives_identical_outputs(spec, task):
    for step in range(3):
        task(random_batch(16, seed=step))
    other = build_task(spec.config_class(), schema=SCHEMA, embeddings=EmbeddingConfig(dim=4))
    other.load_state_dict(task.state_dict())
    batch = random_batch(16, seed=9)
    expected, actual = task.eval()(batch), other.eval()(batch)
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1].logit_B, expected[1].logit_B)


@pytest.mark.parametrize("history_lengths", [[0, 3, 0, 2], [0, 0, 0, 0], [0, 0, 1, 0]])
def test_empty_histories_give_finite_outputs_and_gradients(task, history_lengths):
    loss, out = task(random_batch(4, history_lengths=history_lengths))
    loss.backward()
    assert torch.isfinite(out.logit_B).all()
    for name, gradient in all_gradients(task).items():
        assert gradient is not None, name
        assert torch.isfinite(gradient).all(), name
    for name, buffer in task.named_buffers():
        assert torch.isfinite(buffer).all(), name


def test_one_row_scores_as_it_does_in_company(task):
    random_statistics(task)
    batch = random_batch(1, history_lengths=[4])
    users, items = task.embeddings(batch.pooled, batch.sequence)
    three_users = type(users)(*[torch.cat([part] * 3) for part in users])
    three_items = type(items)(*[torch.cat([part] * 3) for part in items])
    together_B = task.model(three_users, three_items)
    torch.testing.assert_close(together_B, task(batch)[1].logit_B.expand(3), atol=1e-6, rtol=0)


def test_one_row_can_be_trained_on(task):
    loss, _ = task(random_batch(1))
    loss.backward()
    assert torch.isfinite(loss)


def test_evaluation_changes_no_state(task):
    before = copy.deepcopy(task.eval().state_dict())
    task(random_batch(8))
    for name, tensor in task.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_model_builds_on_the_meta_device_with_the_same_shapes(spec, task):
    meta = build_task(spec.config_class(), schema=SCHEMA, embeddings=EmbeddingConfig(dim=4), device=torch.device("meta"))
    shapes = {name: tensor.shape for name, tensor in task.state_dict().items()}
    assert {name: tensor.shape for name, tensor in meta.state_dict().items()} == shapes
    assert all(tensor.is_meta for tensor in meta.state_dict().values())


def test_log_values_are_finite_floats(task):
    task(random_batch(8))
    values = task.model.log_values()
    assert all(isinstance(value, float) for value in values.values())
    assert all(torch.isfinite(torch.tensor(value)) for value in values.values())


def test_unknown_config_names_the_known_ones():
    with pytest.raises(ValueError, match=r"InputDims is no model's config, expected one of \['FITConfig', 'TwoTowerConfig'\]"):
        spec_of(InputDims(profile=1, attributes=1, position=1))
