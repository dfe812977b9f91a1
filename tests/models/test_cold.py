import dataclasses

import pytest
import torch
import torch.nn.functional as F

from models.cold import COLD, COLDConfig
from models.layers.mlp import TowerConfig
from models.two_tower import TwoTower, TwoTowerConfig
from models.types import InputDims, ItemInputs, UserInputs
from tests.models.synthetic import DIMS, random_inputs, random_statistics

# B rows, K candidates
SMALL = COLDConfig(tower=TowerConfig(hidden_dims=(9, 5)))
NAMES = ["user", "tags", "history of item", "history of category", "shop", "item", "category"]
ONE_SIDED = InputDims(profile=1, attributes=1, position=0, profile_fields=(("u", 1),), attribute_fields=(("v", 1),))


def build(config=SMALL, *, dims=DIMS, seed=0):
    torch.manual_seed(seed)
    return COLD(config, dims=dims)


def logits(model, users, items):
    return model(users, items, torch.ones(items.item_BD.shape[0])).logit_B


def exclusive_or():
    """Users and items of two kinds each; positive exactly where the kinds differ."""
    kind_B1 = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    other_B1 = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    no_history, nothing_B0 = torch.zeros(0, 0), torch.zeros(4, 0)
    users = UserInputs(kind_B1, no_history, torch.zeros(4, dtype=torch.int64), no_history.long())
    return users, ItemInputs(other_B1, nothing_B0), (kind_B1 != other_B1).squeeze(1).float()


def learned(model, *, steps=150):
    """Largest cross-entropy of a row after some steps on the exclusive or."""
    users, items, label_B = exclusive_or()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_B = F.binary_cross_entropy_with_logits(model(users, items, label_B).logit_B, label_B, reduction="none")
        loss_B.mean().backward()
        optimizer.step()
    return loss_B.max().item()


def test_a_cross_of_user_and_item_is_learned_that_two_towers_of_width_1_can_not_tell():
    torch.manual_seed(0)
    cold = COLD(COLDConfig(tower=TowerConfig(hidden_dims=(16, 8), norm="none")), dims=ONE_SIDED)
    towers = TwoTower(TwoTowerConfig(tower=TowerConfig(hidden_dims=(16, 1), norm="none")), dims=ONE_SIDED)
    assert learned(cold) < 0.1
    assert learned(towers) > 0.5


def test_each_field_is_weighted_by_all_fields_of_user_and_item():
    model = random_statistics(build())
    users, items = random_inputs(5)
    seen = []
    model.network.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    logits(model, users, items)
    row_BX = torch.cat([model.user_row(users), model.item_row(items)], dim=1)
    weight_BM = torch.sigmoid(row_BX @ model.excitation.excitation.weight.t() + model.excitation.excitation.bias)
    assert weight_BM.shape == (5, len(NAMES))
    torch.testing.assert_close(seen[0], row_BX * weight_BM.repeat_interleave(DIMS.profile_fields[0][1], dim=1))


def test_a_users_and_an_items_vectors_are_their_fields_and_the_scorer_is_the_network():
    model = random_statistics(build())
    users, items = random_inputs(5)
    assert torch.equal(model.all_user_vectors(users).flatten(1), model.user_row(users))
    assert torch.equal(model.item_vectors(items).item_BHP.flatten(1), model.item_row(items))
    for parameter in model.parameters():
        parameter.data.zero_()
    assert model.all_user_vectors(users).abs().sum() > 0, "nothing of the network has been computed yet"


KEPT = {"tags", "history of category", "item"}


def selecting(config, *, step):
    """A model whose fields KEPT have large mean weights, at a step of epochs of 10 steps."""
    model = build(config)
    model.excitation.statistics.running_mean.copy_(torch.tensor([0.9 if name in KEPT else 0.2 for name in NAMES]))
    model.schedule(step, 10)
    return model


@pytest.mark.parametrize("step", [0, 9, 10])
def test_evaluation_looks_at_the_selected_fields_alone(step):
    model = selecting(dataclasses.replace(SMALL, num_fields=3), step=step)
    users, items = random_inputs(5)
    expected_B = logits(model.eval(), users, items)
    noise = torch.Generator().manual_seed(9)

    def other(rows_BX, fields):
        dropped_X = torch.tensor([float(name not in KEPT) for name, width in fields for _ in range(width)])
        return rows_BX + dropped_X * torch.randn(rows_BX.shape, generator=noise)

    history = [(f"history of {name}", width) for name, width in DIMS.position_fields]
    changed = (
        users._replace(profile_BU=other(users.profile_BU, DIMS.profile_fields), history_JD=other(users.history_JD, history)),
        ItemInputs(other(items.attributes_BA, DIMS.attribute_fields), other(items.item_BD, DIMS.position_fields)),
    )
    assert not torch.equal(changed[0].history_JD, users.history_JD)
    assert torch.equal(logits(model, *changed), expected_B)
    assert {name for name, weight in model.log_values().items() if weight > 0} == {f"weight of {name}" for name in KEPT}


def test_training_looks_at_all_fields_in_the_first_epoch_and_at_the_selected_ones_after_it():
    users, items = random_inputs(8, history_lengths=[2] * 8)
    for step, fewer in ((0, False), (9, False), (10, True), (500, True)):
        model = selecting(dataclasses.replace(SMALL, num_fields=3), step=10)
        model.schedule(step, 10)
        seen = []
        model.network.register_forward_pre_hook(lambda _module, inputs, seen=seen: seen.append(inputs[0]))
        logits(model, users, items)
        assert (seen[0] == 0).any() == fewer


def test_the_selection_is_settled_when_the_first_epoch_is_over():
    model = selecting(dataclasses.replace(SMALL, num_fields=3), step=10)
    settled_M = model.excitation.kept_M.clone()
    model.excitation.statistics.running_mean.copy_(1 - model.excitation.statistics.running_mean)
    model.schedule(11, 10)
    assert torch.equal(model.excitation.kept_M, settled_M)
    model.schedule(10, 10)
    assert not torch.equal(model.excitation.kept_M, settled_M)


def test_by_default_all_fields_stay():
    model = selecting(SMALL, step=11)
    assert torch.equal(model.excitation.kept_M, torch.ones(len(NAMES)))
    assert model.excitation.sees_all


def test_mean_weights_are_logged_by_field():
    model = build()
    for seed in range(60):
        logits(model, *random_inputs(20, seed=seed))
    values = model.log_values()
    assert list(values) == [f"weight of {name}" for name in NAMES]
    assert all(0.2 < value < 0.8 for value in values.values())


@pytest.mark.parametrize(("num_fields", "message"), [(0, "expected at least 1"), (8, r"expected at most 7: the inputs have")])
def test_a_number_of_fields_that_can_not_be_kept_is_refused(num_fields, message):
    with pytest.raises(ValueError, match=f"COLDConfig.num_fields={num_fields}, {message}"):
        build(COLDConfig(num_fields=num_fields))
