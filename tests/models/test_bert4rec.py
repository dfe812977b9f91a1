import dataclasses

import pytest
import torch

from models.bert4rec import BERT4Rec, BERT4RecConfig
from models.types import InputDims
from tests.models.small_sequences import DIMS, LENGTHS, STARTS, histories, random_weights, served, trained, with_another

PLACES = [2, 4, 8, 9, 12]
"""Behaviours that are hidden: two of the second row, the one of the fourth, and two of the sixth, among them the newest."""
PLACES_OF_ROWS = [(1, 2), (1, 4), (3, 0), (5, 0), (5, 3)]


def build(*, dims=DIMS, **options):
    return random_weights(BERT4Rec(BERT4RecConfig(**{"hidden_dim": 12} | options), dims=dims))


def hiding(model, users, *, uniform=0.9, places=PLACES_OF_ROWS):
    """What forward returns where the given (row, step) are hidden."""
    noise_BX = torch.full((len(LENGTHS), DIMS.history_len), 5.0)
    for row, step in places:
        noise_BX[row, DIMS.history_len - LENGTHS[row] + step] = -5.0
    return model(users, histories()[1], noise_BX, torch.full((len(LENGTHS),), uniform))


def test_the_masks_never_leak_what_they_hide():
    model, (users, items) = build(), histories()
    before = hiding(model, users)
    assert before.cloze_place_X.tolist() == PLACES
    history_JD = users.history_JD.clone()
    history_JD[PLACES] = torch.randn(len(PLACES), 8)
    for found, expected in zip(hiding(model, users._replace(history_JD=history_JD)), before, strict=True):
        assert torch.equal(found, expected)
    others = items._replace(item_BD=torch.randn(items.item_BD.shape))
    for found, expected in zip(trained(model, users, others), trained(model, users, items), strict=True):
        assert torch.equal(found, expected)


def test_what_is_not_hidden_is_seen_from_both_sides():
    model, (users, _) = build(), histories()
    before = hiding(model, users)
    for step in (0, 1, 3, 5):
        after = hiding(model, with_another(users, STARTS[1] + step))
        changed_X = ~torch.isclose(after.cloze_XC, before.cloze_XC, atol=1e-6, rtol=0).all(1)
        assert changed_X.tolist() == [True, True, False, False, False]
        changed_B = ~torch.isclose(after.user_BC, before.user_BC, atol=1e-6, rtol=0).all(1)
        assert changed_B.tolist() == [row == 1 for row in range(len(LENGTHS))]


def test_the_losses_of_a_rows_hidden_behaviours_count_as_much_as_its_target():
    found = hiding(build(), histories()[0])
    assert found.cloze_weight_X.tolist() == [0.5, 0.5, 1.0, 0.5, 0.5]
    assert torch.equal(found.auxiliary_B, torch.zeros(len(LENGTHS)))


def test_a_row_that_stays_whole_is_trained_as_it_is_served():
    model, (users, _) = build(), histories()
    found = hiding(model, users, uniform=0.4)
    assert found.cloze_XC.shape == (0, 8)
    torch.testing.assert_close(found.user_BC, served(model, users), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(hiding(model, users).user_BC, found.user_BC)


def test_behaviours_are_hidden_as_often_as_the_config_says():
    lengths = [6] * 3_000
    users, items = histories(lengths)
    for mask_share in (0.2, 0.6):
        model = build(mask_share=mask_share, whole_share=0.25, num_layers=1)
        share = len(trained(model, users, items).cloze_place_X) / sum(lengths)
        assert share == pytest.approx(0.75 * mask_share, abs=0.01)


def test_padding_is_never_hidden_and_never_seen():
    model, (users, _) = build(), histories()
    noise_BX = torch.full((len(LENGTHS), 6), -5.0)
    everything = model(users, histories()[1], noise_BX, torch.ones(len(LENGTHS)))
    assert everything.cloze_place_X.tolist() == list(range(sum(LENGTHS)))
    longer = build(dims=dataclasses.replace(DIMS, history_len=11))
    weights = model.state_dict()
    weights["position_SD"] = torch.cat([torch.full((5, 8), 9.0), weights["position_SD"]])
    longer.load_state_dict(weights)
    torch.testing.assert_close(served(longer, users), served(model, users), atol=1e-6, rtol=1e-5)


def test_a_row_without_history_has_the_vector_of_the_lonely_mask():
    user_BD = served(build(), histories()[0])
    torch.testing.assert_close(user_BD[0], user_BD[4])
    assert user_BD[0].abs().sum() > 0
    assert not torch.allclose(user_BD[0], user_BD[1])


def test_dropout_acts_in_training_alone():
    model, (users, items) = build(dropout=0.5), histories()
    assert torch.equal(served(model, users), served(build(), users))
    model.train()
    assert not torch.equal(trained(model, users, items).user_BC, trained(model, users, items).user_BC)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "BERT4RecConfig.num_layers=0, expected at least 1"),
        ({"num_heads": 0}, "BERT4RecConfig.num_heads=0, expected at least 1"),
        ({"hidden_dim": 0}, "BERT4RecConfig.hidden_dim=0, expected at least 1"),
        ({"dropout": 1.0}, "BERT4RecConfig.dropout=1.0, expected 0 <= dropout < 1"),
        ({"mask_share": 0.0}, "BERT4RecConfig.mask_share=0.0, expected 0 < mask_share < 1"),
        ({"whole_share": 1.0}, "BERT4RecConfig.whole_share=1.0, expected 0 < whole_share < 1"),
        ({"num_heads": 3}, "num_heads=3 does not divide the width 8"),
    ],
)
def test_a_wrong_value_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_inputs_without_history_are_refused():
    with pytest.raises(ValueError, match="BERT4Rec needs a history whose id space the item shares"):
        build(dims=InputDims(profile=3, attributes=0, position=0))
