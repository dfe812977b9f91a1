import dataclasses

import pytest
import torch
from torch.nn import functional as F

from models.dat_plus import DATPlus, DATPlusConfig
from models.types import InputDims, ItemInputs
from tests.models.synthetic import random_inputs

DIMS = InputDims(profile=16, attributes=3, position=16, history_len=6, context=(("hist_time_lag", 5),))
WIDTH = 8
LENGTHS = [0, 6, 2, 3]


def build(*, dims=DIMS, **options):
    torch.manual_seed(0)
    return DATPlus(DATPlusConfig(**options), dims=dims)


def inputs(lengths=LENGTHS):
    return random_inputs(len(lengths), history_lengths=lengths, dims=DIMS)


def learned(model, users, items):
    return model(users, items, torch.empty(items.item_BD.shape[0], 0), torch.rand(items.item_BD.shape[0]))


def test_the_mimic_loss_moves_the_augmented_vectors_to_the_other_towers_outputs():
    model, (users, items) = build(), inputs()
    augmented_user_BC = torch.nn.Parameter(users.profile_BU[:, :WIDTH].clone())
    augmented_item_BC = torch.nn.Parameter(items.item_BD[:, :WIDTH].clone())
    optimizer = torch.optim.SGD([augmented_user_BC, augmented_item_BC], lr=0.2)

    def augmented():
        profile_BU = torch.cat([augmented_user_BC, users.profile_BU[:, WIDTH:]], dim=1)
        item_BD = torch.cat([augmented_item_BC, items.item_BD[:, WIDTH:]], dim=1)
        return users._replace(profile_BU=profile_BU), ItemInputs(items.attributes_BA, item_BD)

    for _ in range(60):
        out = learned(model, *augmented())
        optimizer.zero_grad()
        out.auxiliary_B.sum().backward()
        optimizer.step()
    out = learned(model, *augmented())
    assert out.auxiliary_B.max() < 1e-3
    torch.testing.assert_close(augmented_user_BC, model.item_vectors(augmented()[1]), atol=0.05, rtol=0)
    torch.testing.assert_close(augmented_item_BC, out.user_BC, atol=0.05, rtol=0)


def test_the_mimic_learns_from_the_towers_and_not_the_towers_from_the_mimic():
    model, (users, items) = build(), inputs()
    profile_BU, item_BD = users.profile_BU.requires_grad_(), items.item_BD.requires_grad_()
    learned(model, users, items).auxiliary_B.sum().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert (profile_BU.grad[:, :WIDTH] != 0).all()
    assert (item_BD.grad[:, :WIDTH] != 0).all()
    assert (profile_BU.grad[:, WIDTH:] == 0).all()
    assert (item_BD.grad[:, WIDTH:] == 0).all()


def test_each_weight_scales_its_own_side():
    users, items = inputs()
    user_BC, item_BC = learned(build(), users, items).user_BC, build().item_vectors(items)
    user_loss_B = F.mse_loss(users.profile_BU[:, :WIDTH], item_BC, reduction="none").sum(1)
    item_loss_B = F.mse_loss(items.item_BD[:, :WIDTH], user_BC, reduction="none").sum(1)
    out = learned(build(user_mimic_weight=2.0, item_mimic_weight=0.25), users, items)
    torch.testing.assert_close(out.auxiliary_B, 2.0 * user_loss_B + 0.25 * item_loss_B)


def test_augmented_vectors_are_inputs_of_their_own_towers():
    model, (users, items) = build().eval(), inputs()
    changed_BU, changed_BD = users.profile_BU.clone(), items.item_BD.clone()
    changed_BU[:, :WIDTH] += 1.0
    changed_BD[:, :WIDTH] += 1.0
    nothing = torch.empty(4, 0)
    assert not torch.allclose(
        model.user_vectors(users._replace(profile_BU=changed_BU), nothing), model.user_vectors(users, nothing)
    )
    assert not torch.allclose(model.item_vectors(items._replace(item_BD=changed_BD)), model.item_vectors(items))


def test_a_history_knows_the_embeddings_alone():
    model, (users, _) = build().eval(), inputs()
    nothing = torch.empty(4, 0)
    changed_JD = users.history_JD.clone()
    changed_JD[:, :WIDTH] += 1.0
    assert torch.equal(model.user_vectors(users._replace(history_JD=changed_JD), nothing), model.user_vectors(users, nothing))


def test_without_the_users_id_it_is_refused():
    with pytest.raises(ValueError, match=r"name it in embeddings\.features"):
        build(dims=dataclasses.replace(DIMS, profile=0))


@pytest.mark.parametrize("options", [{"user_mimic_weight": -0.1}, {"item_mimic_weight": -0.1}, {"hidden_dims": (0,)}])
def test_a_field_outside_its_range_is_refused(options):
    with pytest.raises(ValueError, match=f"DATPlusConfig.{next(iter(options))}="):
        DATPlusConfig(**options)
