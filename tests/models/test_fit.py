import dataclasses

import pytest
import torch

from models.fit import FIT, FITConfig
from models.layers.meta_query import MetaQueryConfig
from models.types import InputDims, ItemInputs
from tests.models.synthetic import DIMS, random_inputs, random_statistics

VARIANTS = {
    "w/o MQM": FITConfig(use_meta_query=False),
    "w/o LSS": FITConfig(scorer="dot"),
    "w SumMax": FITConfig(scorer="sum_max"),
    "w FC": FITConfig(scorer="fc"),
    "hard only": FITConfig(meta_query=MetaQueryConfig(selection="hard")),
    "no temperature": FITConfig(meta_query=MetaQueryConfig(selection="soft_no_temperature")),
    "no self-attention": FITConfig(meta_query=MetaQueryConfig(query_attention="none")),
}


def build(config, *, seed=0):
    torch.manual_seed(seed)
    return FIT(config, dims=DIMS)


def logits(model, users, items):
    return model(users, items, torch.ones(items.item_BD.shape[0])).logit_B


def parts(model):
    return {name.split(".")[0] for name, _ in model.named_parameters()}


def test_default_config_is_the_papers():
    config = FITConfig()
    assert config.tower.hidden_dims == (300, 300, 128)
    assert (config.meta_query.num_queries, config.num_user_heads, config.num_item_heads, config.head_dim) == (64, 2, 2, 64)
    assert (config.scorer_dim, config.attention_dims) == (16, (64, 16))


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_ablation_trains_scripts_and_serves(name):
    model = build(VARIANTS[name])
    model.schedule(5, 10)
    users, items = random_inputs(8)
    logits(model, users, items).square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    random_statistics(model)
    expected = logits(model, users, items)
    torch.testing.assert_close(logits(torch.jit.script(model), users, items), expected, atol=1e-6, rtol=0)
    stored = model.item_vectors(items)
    served = model.score_candidates(model.all_user_vectors(users), stored.index_B.unsqueeze(1), stored.item_BHP.unsqueeze(1))
    torch.testing.assert_close(served.squeeze(1), expected, atol=1e-5, rtol=1e-5)


def test_without_meta_queries_there_is_no_query_and_no_attention():
    full, ablated = build(FITConfig()), build(FITConfig(use_meta_query=False))
    assert parts(full) - parts(ablated) == {"meta_query", "interaction"}
    width = DIMS.profile + DIMS.position
    assert full.user_mlp.layers[0].in_features == width + DIMS.position
    assert ablated.user_mlp.layers[0].in_features == width
    assert ablated.all_user_vectors.__self__.eval().all_user_vectors(random_inputs(3)[0]).shape[1] == 1
    assert ablated.log_values() == {}


def test_scorer_ablations_change_only_the_scorer():
    full = {name for name, _ in build(FITConfig()).named_parameters() if not name.startswith("scorer.")}
    for scorer in ("dot", "sum_max", "fc"):
        other = build(FITConfig(scorer=scorer))
        assert {name for name, _ in other.named_parameters() if not name.startswith("scorer.")} == full


@pytest.mark.parametrize("name", ["hard only", "no temperature", "no self-attention"])
def test_query_ablations_keep_the_parameters_and_change_the_training_output(name):
    model, other = build(FITConfig()), build(VARIANTS[name])
    assert set(model.state_dict()) == set(other.state_dict())
    users, items = random_inputs(8)
    for module in (model, other):
        module.schedule(5, 10)
    assert not torch.allclose(logits(model, users, items), logits(other, users, items))


def test_evaluation_does_not_depend_on_selection_or_temperature():
    users, items = random_inputs(8)
    outputs = []
    for name in ("hard only", "no temperature"):
        model = build(VARIANTS[name]).eval()
        model.schedule(5, 10)
        outputs.append(logits(model, users, items))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], logits(build(FITConfig()).eval(), users, items))


def test_training_forward_approaches_evaluation_forward_as_temperature_vanishes():
    users, items = random_inputs(40)
    model = build(FITConfig(), seed=1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.eval()  # only the query differs between the modes then
    model.interaction.training = False
    gaps = []
    for step in (0, 90, 1000):
        model.schedule(step, 100)
        model.meta_query.train()
        soft = logits(model, users, items)
        model.meta_query.eval()
        gaps.append((soft - logits(model, users, items)).abs().mean().item())
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-2 * gaps[0]


def test_the_user_tower_sees_an_item_only_through_its_query_index():
    model = random_statistics(build(FITConfig()))
    users, items = random_inputs(40)
    seen = []
    model.user_mlp.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    # the same user against 40 items
    history_JD, context_JF = users.history_JD[:3].repeat(40, 1), users.context_JF[:3].repeat(40, 1)
    one_user = type(users)(users.profile_BU[:1].expand(40, -1), history_JD, torch.full((40,), 3), context_JF)
    logits(model, one_user, items)
    index_B = model.item_vectors(items).index_B
    for first in range(40):
        for second in range(first):
            close = torch.allclose(seen[0][first], seen[0][second], atol=1e-6)
            assert close == (index_B[first] == index_B[second]).item()
    assert 1 < len(set(index_B.tolist())) < 40


def test_all_user_vectors_needs_evaluation_mode():
    with pytest.raises(RuntimeError, match="call eval"):
        build(FITConfig()).all_user_vectors(random_inputs(2)[0])


def test_item_attributes_reach_the_item_tower():
    model = random_statistics(build(FITConfig()))
    users, items = random_inputs(4)
    other = ItemInputs(items.attributes_BA + 1, items.item_BD)
    assert not torch.allclose(logits(model, users, other), logits(model, users, items))
    assert torch.equal(model.item_vectors(other).index_B, model.item_vectors(items).index_B)


def test_bfloat16_autocast_trains_with_finite_gradients_and_exact_indices():
    model = build(FITConfig())
    users, items = random_inputs(16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits(model, users, items).float().square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    model.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        index_B = model.item_vectors(items).index_B
    assert torch.equal(index_B, model.item_vectors(items).index_B)


def test_meta_queries_need_a_history_that_an_item_feature_shares():
    with pytest.raises(ValueError, match="needs a history whose id space an item feature shares"):
        FIT(FITConfig(), dims=InputDims(profile=4, attributes=4, position=0))


@pytest.mark.parametrize("fields", [{"scorer": "cosine"}, {"attention_dims": (64,)}, {"head_dim": 0}, {"scorer_dim": 0}])
def test_bad_config_names_the_field(fields):
    with pytest.raises(ValueError, match=f"FITConfig.{next(iter(fields))}="):
        FITConfig(**fields)


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FITConfig().scorer = "dot"
