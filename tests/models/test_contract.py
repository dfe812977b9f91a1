"""What every entry of MODELS must do, whatever task trains it; a new model needs no new code here."""

import contextlib
import copy
import dataclasses
import re
from typing import get_args

import pytest
import torch
import tyro
from torch import nn

from models import MODELS, ModelConfig, spec_of
from models.types import InputDims
from tests.models.synthetic import KINDS, build, call, evaluate, random_inputs, random_statistics, take, unused_tables


@pytest.fixture(params=sorted(MODELS))
def spec(request):
    torch.manual_seed(0)
    return MODELS[request.param]


@pytest.fixture
def kind(spec):
    return KINDS[spec.task_class]


@pytest.fixture
def task(spec):
    return build(spec)


def all_gradients(module):
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def assert_finite(module, *, unused):
    for name, gradient in all_gradients(module).items():
        if not name.startswith(unused):
            assert gradient is not None, name
            assert torch.isfinite(gradient).all(), name
    for name, tensor in module.state_dict().items():
        assert torch.isfinite(tensor).all(), name


def number_fields(config, path=()):
    """(path, value) of every number in a config, the nested ones too."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from number_fields(value, (*path, field.name))
        elif type(value) in (int, float):
            yield (*path, field.name), value


def replaced(config, path, value):
    inner = value if len(path) == 1 else replaced(getattr(config, path[0]), path[1:], value)
    return dataclasses.replace(config, **{path[0]: inner})


def other_configs(config):
    """(path, value, config with that value) of every number whose next value is allowed."""
    for path, value in number_fields(config):
        value += 1 if type(value) is int else 0.25
        with contextlib.suppress(ValueError):
            yield path, value, replaced(config, path, value)


def test_config_finds_its_model(spec):
    assert spec_of(spec.config_class()) is spec


def test_the_union_of_configs_is_the_registry():
    assert set(get_args(ModelConfig)) == {entry.config_class for entry in MODELS.values()}


def test_every_number_of_a_config_can_be_set_on_the_command_line(spec):
    config = spec.config_class()
    run = dataclasses.make_dataclass("Run", [("model", ModelConfig, dataclasses.field(default=config))])

    def parsed(*flags):
        return tyro.cli(run, args=flags, config=(tyro.conf.AvoidSubcommands,)).model

    assert parsed() == config
    flags = {path: f"--model.{'.'.join(path).replace('_', '-')}" for path, _ in number_fields(config)}
    assert parsed(*[word for path, value in number_fields(config) for word in (flags[path], str(value))]) == config
    path, value, wanted = next(other_configs(config))
    assert parsed(flags[path], str(value)) == wanted


def test_one_optimizer_step_lowers_the_loss_on_the_same_batch(task, kind):
    batch = kind.batch(64)
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-3)
    losses = []
    for step in range(2):
        task.model.schedule(step, 100)
        torch.manual_seed(1)  # the same noise and dropout
        loss, _ = task(batch)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]


def test_the_loss_is_a_scalar_and_the_outputs_are_detached(task, kind):
    loss, out = task(kind.batch(12))
    assert loss.shape == ()
    assert torch.equal(out.loss, loss.detach())
    assert not any(tensor.requires_grad for tensor in out)
    assert all(tensor.shape == (12,) for name, tensor in out._asdict().items() if name.endswith("_B"))


def test_every_parameter_is_finite_and_gets_a_finite_gradient(spec, task, kind):
    loss, _ = task(kind.batch(64))
    loss.backward()
    assert_finite(task, unused=unused_tables(spec))


def test_scripted_forward_equals_eager(spec, kind):
    model = random_statistics(spec.model_class(spec.config_class(), dims=kind.dims))
    users, items = random_inputs(9, dims=kind.dims)
    scripted = torch.jit.script(model)
    torch.testing.assert_close(call(spec, scripted, users, items), call(spec, model, users, items), atol=1e-6, rtol=0)


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def test_scripted_training_step_equals_eager(spec, kind):
    # once it has been profiled, a scripted dropout draws other numbers than an eager one
    model = without_dropout(spec.model_class(spec.config_class(), dims=kind.dims))
    scripted = torch.jit.script(copy.deepcopy(model))
    users, items = random_inputs(16, dims=kind.dims)
    for module in (model, scripted):
        outputs = [tensor for tensor in call(spec, module, users, items) if tensor.is_floating_point() and tensor.numel() > 0]
        sum(tensor.square().mean() for tensor in outputs).backward()
    expected = all_gradients(model)
    for name, gradient in all_gradients(scripted).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4, msg=name)


def test_state_dict_round_trip_gives_identical_outputs(spec, task, kind):
    for step in range(3):
        task(kind.batch(16, seed=step))
    other = build(spec)
    other.load_state_dict(task.state_dict())
    batch = kind.batch(16, seed=9)
    for expected, actual in zip(evaluate(task, batch), evaluate(other, batch), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("history_lengths", [[0, 3, 0, 2], [0, 0, 0, 0], [0, 0, 1, 0]])
def test_empty_histories_give_finite_outputs_and_gradients(spec, task, kind, history_lengths):
    batch = kind.batch(4, history_lengths=history_lengths)
    loss, out = task(batch)
    loss.backward()
    assert_finite(task, unused=unused_tables(spec))
    for tensor in (*out, *evaluate(task, batch)):
        assert torch.isfinite(tensor).all()


def test_one_row_scores_as_it_does_in_company(task, kind):
    random_statistics(task)
    batch = kind.batch(6, history_lengths=[4, 0, 6, 1, 2, 5])
    together = evaluate(task, batch)._asdict()
    for row in range(6):
        alone = evaluate(task, take(batch, [row]))._asdict()
        for name in [name for name in together if name.endswith("_B")]:
            torch.testing.assert_close(alone[name], together[name][row : row + 1], atol=2e-6, rtol=1e-5, msg=f"{name} of row {row}")


def test_one_row_can_be_trained_on(task, kind):
    loss, _ = task(kind.batch(1))
    loss.backward()
    assert torch.isfinite(loss)


def test_evaluation_changes_no_state(task, kind):
    before = copy.deepcopy(task.eval().state_dict())
    evaluate(task, kind.batch(8))
    for name, tensor in task.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_evaluation_repeats_itself_whatever_was_drawn_before(task, kind):
    batch = kind.batch(8)
    first = evaluate(task, batch)
    torch.rand(3)
    for expected, actual in zip(first, evaluate(task, batch), strict=True):
        assert torch.equal(actual, expected)


def test_model_builds_on_the_meta_device_with_the_same_shapes(spec, task):
    meta = build(spec, device=torch.device("meta"))
    shapes = {name: tensor.shape for name, tensor in task.state_dict().items()}
    assert {name: tensor.shape for name, tensor in meta.state_dict().items()} == shapes
    assert all(tensor.is_meta for tensor in meta.state_dict().values())


def test_log_values_are_finite_floats(task, kind):
    task(kind.batch(8))
    values = task.model.log_values()
    assert all(isinstance(value, float) for value in values.values())
    assert all(torch.isfinite(torch.tensor(value)) for value in values.values())


def test_unknown_config_names_the_known_ones():
    known = re.escape(str([spec.config_class.__name__ for spec in MODELS.values()]))
    with pytest.raises(ValueError, match=f"InputDims is no model's config, expected one of {known}"):
        spec_of(InputDims(profile=1, attributes=1, position=1))
