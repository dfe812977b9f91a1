import dataclasses

import pytest
import torch

from models.sasrec import SASRec, SASRecConfig
from models.types import InputDims
from tests.models.small_sequences import DIMS, LENGTHS, STARTS, histories, random_weights, served, trained, with_another


def build(*, dims=DIMS, **options):
    return random_weights(SASRec(SASRecConfig(**options), dims=dims))


def outputs(model, users, items):
    """(row, step) of each behaviour -> the model's output there."""
    found = trained(model, users, items)
    rows = {(row, LENGTHS[row] - 1): found.user_BC[row] for row in range(len(LENGTHS)) if LENGTHS[row]}
    steps = [(row, step) for row, length in enumerate(LENGTHS) for step in range(length - 1)]
    return rows | dict(zip(steps, found.cloze_XC, strict=True))


@pytest.mark.parametrize(("row", "step"), [(1, 0), (1, 3), (1, 5), (2, 1), (5, 2)])
def test_a_behaviour_changes_no_output_before_it_and_every_one_from_it_on(row, step):
    model, (users, items) = build(all_positions=True), histories()
    before, after = (outputs(model, given, items) for given in (users, with_another(users, STARTS[row] + step)))
    assert len(before) == sum(LENGTHS)
    for (other, place), vector_D in before.items():
        same = torch.allclose(after[other, place], vector_D, atol=1e-6, rtol=0)
        assert same is not (other == row and place >= step), (other, place)


def test_each_output_is_to_find_the_behaviour_after_it():
    found = trained(build(all_positions=True), *histories())
    later = [start + step for start, length in zip(STARTS, LENGTHS, strict=True) for step in range(1, length)]
    assert found.cloze_place_X.tolist() == later


def test_user_vectors_are_the_newest_outputs_whatever_else_is_predicted():
    users, items = histories()
    every, last = build(all_positions=True), build()
    assert (every.predicts_history, last.predicts_history) == (True, False)
    assert trained(last, users, items).cloze_XC.shape == (0, 8)
    for model in (every, last):
        torch.testing.assert_close(trained(model, users, items).user_BC, served(last, users), atol=1e-6, rtol=1e-5)


def test_a_row_without_history_has_the_vector_0():
    user_BD = served(build(), histories()[0])
    assert user_BD.abs().sum(1).eq(0).tolist() == [length == 0 for length in LENGTHS]


def test_more_padding_changes_nothing():
    users, _ = histories()
    model, longer = build(), build(dims=dataclasses.replace(DIMS, history_len=11))
    weights = model.state_dict()
    weights["position_LD"] = torch.cat([torch.full((5, 8), 9.0), weights["position_LD"]])
    longer.load_state_dict(weights)
    torch.testing.assert_close(served(longer, users), served(model, users), atol=1e-6, rtol=1e-5)


def test_the_order_of_older_behaviours_matters():
    model, (users, _) = build(), histories([6])
    swapped_JD = users.history_JD[[1, 0, 2, 3, 4, 5]]
    assert not torch.allclose(served(model, users._replace(history_JD=swapped_JD)), served(model, users))
    with torch.no_grad():
        model.position_LD.zero_()
        model.layers[0].project_out.weight.zero_()  # one layer of attention knows no order but that of its positions
    torch.testing.assert_close(served(model, users._replace(history_JD=swapped_JD)), served(model, users))


def test_dropout_acts_in_training_alone():
    model, (users, items) = build(dropout=0.5), histories()
    assert torch.equal(served(model, users), served(build(), users))
    model.train()
    assert not torch.equal(trained(model, users, items).user_BC, trained(model, users, items).user_BC)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "SASRecConfig.num_layers=0, expected at least 1"),
        ({"num_heads": 0}, "SASRecConfig.num_heads=0, expected at least 1"),
        ({"dropout": 1.0}, "SASRecConfig.dropout=1.0, expected 0 <= dropout < 1"),
        ({"num_heads": 3}, "num_heads=3 does not divide the width 8"),
    ],
)
def test_a_wrong_value_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_inputs_without_history_are_refused():
    with pytest.raises(ValueError, match="SASRec needs a history whose id space the item shares"):
        build(dims=InputDims(profile=3, attributes=0, position=0))
