import dataclasses

import pytest
import torch

from models.caser import Caser, CaserConfig
from models.types import InputDims
from tests.models.small_sequences import DIMS, LENGTHS, STARTS, histories, random_weights, served, trained, with_another


def build(*, dims=DIMS, **options):
    return random_weights(Caser(CaserConfig(**{"window": 4, "num_horizontal": 3, "num_vertical": 2} | options), dims=dims))


def by_loop(model, history_LD, profile_U):
    """The user vector of one history by the paper's equations, filter by filter."""
    window_WD = torch.cat([torch.zeros(4, 8), history_LD])[-4:]
    horizontal, vertical = [], []
    for height, filters in enumerate(model.horizontal, start=1):
        for weight_Dh, bias in zip(filters.weight, filters.bias, strict=True):
            places = [(window_WD[i : i + height] * weight_Dh.t()).sum() + bias for i in range(5 - height)]
            horizontal.append(max(torch.relu(place) for place in places))
    for row_D in window_WD.t():  # numbers of one filter after numbers of one channel, the order of the hidden layer's inputs
        vertical.append(torch.stack([(weight_W * row_D).sum() for weight_W in model.vertical.weight]))
    z_D = torch.relu(model.hidden(torch.cat([torch.stack(horizontal), *vertical])))
    return model.output(torch.cat([z_D, profile_U]))


def test_a_user_vector_is_what_the_equations_give_filter_by_filter():
    model, (users, _) = build(), histories()
    rows = zip(users.history_JD.split(LENGTHS), users.profile_BU, strict=True)
    expected = [by_loop(model, history_LD, profile_U) for history_LD, profile_U in rows]
    torch.testing.assert_close(served(model, users), torch.stack(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("step", "seen"), [(0, False), (1, False), (2, True), (5, True)])
def test_the_newest_behaviours_of_the_window_are_all_that_is_seen(step, seen):
    model, (users, _) = build(), histories()
    before_BD, after_BD = served(model, users), served(model, with_another(users, STARTS[1] + step))
    differ_B = (before_BD != after_BD).any(1)
    assert differ_B.tolist() == [seen and row == 1 for row in range(len(LENGTHS))]


def test_horizontal_filters_find_a_pattern_wherever_it_is():
    dims = dataclasses.replace(DIMS, history_len=8)
    model = build(dims=dims, window=8)
    with torch.no_grad():
        model.vertical.weight.zero_()
        for filters in model.horizontal[2:]:  # higher ones see the borders too
            filters.weight.zero_()
    history_BLD = torch.zeros(3, 8, 8)
    pattern_2D = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    for row, start in enumerate((1, 3, 5)):
        history_BLD[row, start : start + 2] = pattern_2D
    users, _ = histories([8, 8, 8])
    users = users._replace(history_JD=history_BLD.flatten(0, 1), profile_BU=torch.zeros(3, 3))
    user_BD = served(model, users)
    torch.testing.assert_close(user_BD[1:], user_BD[:1].expand(2, -1))
    swapped = users._replace(history_JD=history_BLD.flip(1).flatten(0, 1))
    assert not torch.allclose(served(model, swapped)[1], user_BD[1])


def test_users_differ_by_what_is_known_of_them_where_their_histories_do_not():
    users, _ = histories([0, 0])
    user_BD = served(build(), users)
    assert not torch.allclose(user_BD[0], user_BD[1])
    without = build(dims=dataclasses.replace(DIMS, profile=0))
    user_BD = served(without, users._replace(profile_BU=torch.empty(2, 0)))
    assert torch.equal(user_BD[0], user_BD[1])


def test_dropout_acts_in_training_alone():
    model, (users, items) = build(dropout=0.5), histories()
    assert torch.equal(served(model, users), served(build(dropout=0.0), users))
    model.train()
    assert not torch.equal(trained(model, users, items).user_BC, trained(model, users, items).user_BC)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "CaserConfig.window=0, expected at least 1"),
        ({"num_horizontal": 0}, "CaserConfig.num_horizontal=0, expected at least 1"),
        ({"num_vertical": 0}, "CaserConfig.num_vertical=0, expected at least 1"),
        ({"dropout": 1.0}, "CaserConfig.dropout=1.0, expected 0 <= dropout < 1"),
        ({"window": 7}, "CaserConfig.window=7 is longer than a history"),
        ({"dims": InputDims(profile=3, attributes=0, position=0)}, "Caser needs a history whose id space the item shares"),
    ],
)
def test_a_wrong_value_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
