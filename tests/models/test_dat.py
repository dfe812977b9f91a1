import dataclasses

import pytest
import torch

from models.dat import DAT, DATConfig
from models.layers.mlp import TowerConfig
from models.losses import category_alignment
from models.types import ItemInputs
from tests.models.synthetic import DIMS as NARROW
from tests.models.synthetic import random_inputs

ROW, WIDTH = 12, 7
"""D and C."""
DIMS = dataclasses.replace(
    NARROW,
    profile=2 * ROW,
    attributes=ROW,
    position=2 * ROW,
    profile_fields=(("user", ROW), ("tags", ROW)),
    attribute_fields=(("shop", ROW),),
    position_fields=(("item", ROW), ("category", ROW)),
)
LABELS = torch.tensor([1.0, 0.0, 1.0, 0.0])
TOWER = TowerConfig(hidden_dims=(24,))


def build(*, dims=DIMS, **options):
    torch.manual_seed(0)
    return DAT(DATConfig(**{"tower": TOWER, "augmented_dim": WIDTH, **options}), dims=dims)


def learning(**options):
    """A model in training whose norms go by their running statistics, as in evaluation."""
    model = build(**options).eval()
    model.training = True
    return model


def inputs(num_rows=4):
    return random_inputs(num_rows, history_lengths=[0, 6, 2, 3] * (num_rows // 4), dims=DIMS)


def with_augmented(users, items, user_BC, item_BC):
    """The same rows with other augmented vectors."""
    profile_BU = torch.cat([user_BC, users.profile_BU[:, WIDTH:]], dim=1)
    return users._replace(profile_BU=profile_BU), ItemInputs(
        items.attributes_BA, torch.cat([item_BC, items.item_BD[:, WIDTH:]], dim=1)
    )


def test_the_mimic_losses_move_the_augmented_vectors_of_positives_to_the_other_towers_outputs_and_leave_negatives_alone():
    model, (users, items) = learning(), inputs()
    start = users.profile_BU[:, :WIDTH].clone(), items.item_BD[:, :WIDTH].clone()
    augmented = [torch.nn.Parameter(start_BC.clone()) for start_BC in start]
    optimizer = torch.optim.SGD(augmented, lr=0.2)
    for _ in range(80):
        optimizer.zero_grad()
        model(*with_augmented(users, items, *augmented), LABELS).auxiliary_B.sum().backward()
        optimizer.step()
    users, items = with_augmented(users, items, *augmented)
    positive_B = LABELS == 1
    outputs = model.item_vectors(items).item_BHP.squeeze(1), model.all_user_vectors(users).flatten(1)
    for learned_BC, start_BC, output_BC in zip(augmented, start, outputs, strict=True):
        torch.testing.assert_close(learned_BC[positive_B], output_BC[positive_B], atol=0.02, rtol=0)
        assert torch.equal(learned_BC[~positive_B], start_BC[~positive_B])


def test_the_mimics_learn_from_the_towers_and_not_the_towers_from_the_mimics():
    model, (users, items) = build(alignment_weight=0.0), inputs()
    users.profile_BU.requires_grad_()
    items.item_BD.requires_grad_()
    model(users, items, LABELS).auxiliary_B.sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())
    for gradient in (users.profile_BU.grad, items.item_BD.grad):
        assert (gradient[LABELS == 1, :WIDTH] != 0).all()
        assert not gradient[LABELS == 0].any()
        assert not gradient[:, WIDTH:].any()


def test_the_further_losses_are_those_of_the_paper_with_their_weights():
    model, (users, items) = learning(user_mimic_weight=2.0, item_mimic_weight=0.25, alignment_weight=3.0), inputs()
    items.item_BD[1:, ROW:] = items.item_BD[0, ROW:]
    items.item_BD[2:, ROW:] += 1.0  # two categories of two rows
    user_BC, item_BC = model.all_user_vectors(users).flatten(1), model.item_vectors(items).item_BHP.squeeze(1)
    torch.testing.assert_close(user_BC.norm(dim=1), torch.ones(4))
    user_loss_B = LABELS * (users.profile_BU[:, :WIDTH] - item_BC).square().sum(1)
    item_loss_B = LABELS * (items.item_BD[:, :WIDTH] - user_BC).square().sum(1)
    distance = (torch.cov(item_BC[:2].t()) - torch.cov(item_BC[2:].t())).square().sum()
    assert distance > 0
    torch.testing.assert_close(model(users, items, LABELS).auxiliary_B, 2.0 * user_loss_B + 0.25 * item_loss_B + 3.0 * distance)


def test_rows_are_of_one_category_where_the_categorys_vector_is_the_same():
    model, (users, items) = learning(user_mimic_weight=0.0, item_mimic_weight=0.0), inputs(40)
    category_B = torch.arange(40) % 3
    items.item_BD[:, ROW:] = torch.randn(3, ROW)[category_B]
    item_BC = model.item_vectors(items).item_BHP.squeeze(1)
    expected = category_alignment(item_BC, category_B.unsqueeze(1), min_rows=2)
    torch.testing.assert_close(model(users, items, torch.ones(40)).auxiliary_B, expected.expand(40))


def test_augmented_vectors_are_inputs_of_their_own_towers():
    model, (users, items) = build().eval(), inputs()
    other_users, other_items = with_augmented(users, items, torch.randn(4, WIDTH), torch.randn(4, WIDTH))
    assert not torch.allclose(model.all_user_vectors(other_users), model.all_user_vectors(users))
    assert not torch.allclose(model.item_vectors(other_items).item_BHP, model.item_vectors(items).item_BHP)


def test_of_behaviours_and_other_features_the_embeddings_alone_are_known():
    model, (users, items) = build().eval(), inputs()
    expected = model.all_user_vectors(users), model.item_vectors(items).item_BHP
    users.history_JD[:, :WIDTH] += 1.0
    users.profile_BU[:, ROW : ROW + WIDTH] += 1.0
    items.item_BD[:, ROW : ROW + WIDTH] += 1.0
    items.attributes_BA[:, :WIDTH] += 1.0
    assert torch.equal(model.all_user_vectors(users), expected[0])
    assert torch.equal(model.item_vectors(items).item_BHP, expected[1])
    users.history_JD[:, WIDTH:ROW] += 1.0
    items.attributes_BA[:, WIDTH:] += 1.0
    assert not torch.allclose(model.all_user_vectors(users), expected[0])
    assert not torch.allclose(model.item_vectors(items).item_BHP, expected[1])


def test_without_a_width_half_of_a_row_is_the_augmented_vector():
    assert build(augmented_dim=None).eval().item_vectors(inputs()[1]).item_BHP.shape == (4, 1, ROW // 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": dataclasses.replace(DIMS, profile=0, profile_fields=())}, r"name both in embeddings\.features"),
        ({"dims": dataclasses.replace(DIMS, position=0, position_fields=())}, r"name both in embeddings\.features"),
        ({"user": "gender"}, r"DATConfig.user='gender' as the first user feature"),
        ({"item": "category"}, r"DATConfig.item='category' as the first item feature"),
        ({"category": "shop"}, r"DATConfig.category='shop' is no item feature .* \['item', 'category'\]"),
        ({"augmented_dim": ROW}, r"DATConfig.augmented_dim=12 leaves no embedding in rows of width 12"),
    ],
)
def test_inputs_that_lack_something_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_a_tower_without_its_last_activation_is_refused():
    with pytest.raises(ValueError, match=r"DATConfig.tower.last_activation=False, expected True"):
        build(tower=TowerConfig(last_activation=False))


def test_vectors_have_numbers_of_either_sign():
    model, (users, items) = build().eval(), inputs()
    for vectors in (model.all_user_vectors(users), model.item_vectors(items).item_BHP):
        assert vectors.min() < 0 < vectors.max()


@pytest.mark.parametrize(
    "options",
    [{"augmented_dim": 0}, {"user_mimic_weight": -1}, {"item_mimic_weight": -1}, {"alignment_weight": -1}, {"category_rows": 1}],
)
def test_a_field_outside_its_range_is_refused(options):
    with pytest.raises(ValueError, match=f"DATConfig.{next(iter(options))}="):
        DATConfig(**options)
