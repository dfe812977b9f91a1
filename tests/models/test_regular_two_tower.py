import dataclasses

import pytest
import torch

from models.regular_two_tower import RegularTwoTower, RegularTwoTowerConfig
from models.types import InputDims
from tests.models.synthetic import random_inputs

DIMS = InputDims(profile=6, attributes=4, position=8, history_len=6, context=(("hist_time_lag", 5),))
LENGTHS = [0, 6, 2, 3]


def build(*, dims=DIMS, **options):
    torch.manual_seed(0)
    return RegularTwoTower(RegularTwoTowerConfig(**options), dims=dims).eval()


def vectors(model, users):
    return model.user_vectors(users, torch.empty(len(users.history_lengths_B), 0))


def test_the_order_of_the_history_is_nothing_to_it_and_its_mean_is_all():
    model, (users, _) = build(), random_inputs(4, history_lengths=LENGTHS, dims=DIMS)
    rows = users.history_JD.split(LENGTHS)
    before_BD = vectors(model, users)
    backwards = users._replace(history_JD=torch.cat([row.flip(0) for row in rows]))
    torch.testing.assert_close(vectors(model, backwards), before_BD, atol=1e-6, rtol=1e-5)
    means = users._replace(history_JD=torch.cat([row.mean(0, keepdim=True).expand_as(row) for row in rows]))
    torch.testing.assert_close(vectors(model, means), before_BD, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(vectors(model, users._replace(history_JD=users.history_JD + 1.0))[1:], before_BD[1:])


def test_the_towers_meet_nowhere_but_in_the_dot_product():
    model, (users, items) = build(), random_inputs(4, history_lengths=LENGTHS, dims=DIMS)
    out = model(users, items, torch.empty(4, 0), torch.rand(4))
    assert torch.equal(out.user_BC, vectors(model, users))
    assert torch.equal(out.auxiliary_B, torch.zeros(4))
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert names == {"user_mlp", "item_mlp"}


def test_profile_and_item_features_count():
    model, (users, items) = build(), random_inputs(4, history_lengths=LENGTHS, dims=DIMS)
    assert not torch.allclose(vectors(model, users._replace(profile_BU=users.profile_BU + 1.0)), vectors(model, users))
    other = items._replace(attributes_BA=items.attributes_BA + 1.0)
    assert not torch.allclose(model.item_vectors(other), model.item_vectors(items))


def test_inputs_without_a_history_are_refused():
    with pytest.raises(ValueError, match="RegularTwoTower needs a history"):
        build(dims=dataclasses.replace(DIMS, position=0))


def test_an_empty_hidden_layer_is_refused():
    with pytest.raises(ValueError, match=r"RegularTwoTowerConfig.hidden_dims=\(64, 0\)"):
        RegularTwoTowerConfig(hidden_dims=(64, 0))
