import dataclasses

import pytest
import torch

from models.layers.padding import right_aligned
from models.layers.wasserstein import covariance
from models.ranking import target_ranks
from models.stosa import STOSA, STOSAConfig
from models.types import InputDims, ItemInputs
from tests.models.synthetic import random_inputs

DIMS = InputDims(profile=0, attributes=0, position=16, history_len=7, context=(("hist_time_lag", 5),))
CONFIG = STOSAConfig(num_heads=2, hidden_dim=12)
LENGTHS = [0, 7, 2, 3, 4]


def build(*, dims=DIMS, **options):
    torch.manual_seed(0)
    return STOSA(dataclasses.replace(CONFIG, **options), dims=dims).eval()


def users_and_items(lengths=LENGTHS):
    return random_inputs(len(lengths), history_lengths=lengths, dims=DIMS)


def no_noise(num_rows):
    return torch.empty(num_rows, 0)


def squared_distances(user_BC, item_MD):
    """W₂² of each user and item from the Gaussians themselves, float64 [B, M]."""
    user_BD = user_BC[:, :-1].double() / 2
    mean_MX, raw_MX = item_MD.double().chunk(2, dim=1)
    user_mean, user_deviation = user_BD.chunk(2, dim=1)
    deviation_MX = covariance(raw_MX).sqrt()
    return torch.cdist(user_mean, mean_MX).square() + torch.cdist(user_deviation, deviation_MX).square()


@torch.no_grad()
def test_the_dot_product_ranks_as_the_wasserstein_distance_does():
    users, _ = users_and_items()
    item_MD = torch.randn(300, DIMS.position, generator=torch.Generator().manual_seed(1)) * 2
    model = build()
    user_BC = model.user_vectors(users, no_noise(5))
    item_MC = model.item_vectors(ItemInputs(item_MD[:, :0], item_MD))
    distance_BM = squared_distances(user_BC, item_MD)
    target_B = torch.arange(5)
    expected_B = (distance_BM < distance_BM[torch.arange(5), target_B][:, None]).sum(1) + 1
    assert torch.equal(target_ranks(user_BC, item_MC, target_B), expected_B)
    squared_norm_B1 = user_BC[:, :-1].square().sum(1, keepdim=True) / 4
    torch.testing.assert_close(user_BC @ item_MC.t(), (squared_norm_B1 - distance_BM).float(), atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_a_user_of_the_same_distribution_as_an_item_finds_it_first():
    _, items = users_and_items()
    item_MC = build().item_vectors(items)
    as_users_MC = torch.cat([2 * item_MC[:, :-1], -torch.ones(5, 1)], dim=1)
    assert torch.equal(target_ranks(as_users_MC, item_MC, torch.arange(5)), torch.ones(5, dtype=torch.int64))


def test_the_covariance_alone_tells_items_apart():
    items = ItemInputs(torch.empty(3, 0), torch.cat([torch.zeros(3, 8), torch.tensor([[-2.0], [0.0], [2.0]]).expand(3, 8)], dim=1))
    item_MC = build().item_vectors(items)
    assert (item_MC[:, :8] == 0).all()
    assert item_MC[:, 8:-1].unique().numel() == 3


def test_no_behaviour_hears_of_a_newer_one():
    model = build(num_layers=3)
    users, _ = users_and_items([7])
    seen = []
    model.layers[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0].mean))
    model.user_vectors(users, no_noise(1))
    history_JD = users.history_JD.clone()
    history_JD[-1] += torch.arange(16.0)  # a layer norm would not see a number that is the same everywhere
    model.user_vectors(users._replace(history_JD=history_JD), no_noise(1))
    torch.testing.assert_close(seen[0][:, :-1], seen[1][:, :-1])
    assert not torch.allclose(seen[0][:, -1], seen[1][:, -1])


def test_every_behaviour_counts_and_so_does_their_order():
    model, (users, _) = build(), users_and_items([4])
    before_BC = model.user_vectors(users, no_noise(1))
    assert not torch.allclose(model.user_vectors(users._replace(history_JD=users.history_JD.flip(0)), no_noise(1)), before_BC)
    for place in range(4):
        history_JD = users.history_JD.clone()
        history_JD[place, 8:] += torch.arange(8.0)  # the covariance alone
        assert not torch.allclose(model.user_vectors(users._replace(history_JD=history_JD), no_noise(1)), before_BC)


def test_the_regulariser_asks_that_targets_lie_farther_apart_than_user_and_target():
    users, items = users_and_items()
    model = build(margin_weight=0.5)
    out = model(users, items, no_noise(5), torch.rand(5))
    distance_BM = squared_distances(out.user_BC, items.item_BD)
    item_BD = model.item_vectors(items)[:, :-1]
    apart_B = (item_BD - item_BD[[4, 0, 1, 2, 3]]).square().sum(1)
    expected_B = 0.5 * (distance_BM.diagonal().float() - apart_B).clamp(min=0)
    assert (expected_B > 0).any()
    torch.testing.assert_close(out.auxiliary_B, expected_B, atol=1e-4, rtol=1e-4)


def test_equal_targets_are_no_negatives_of_each_other():
    users, items = users_and_items([4, 4])
    same = items._replace(item_BD=items.item_BD[:1].expand(2, -1))
    assert torch.equal(build(margin_weight=1.0)(users, same, no_noise(2), torch.rand(2)).auxiliary_B, torch.zeros(2))


def test_padding_changes_nothing():
    model, (users, _) = build(), users_and_items([3])
    seen = []
    model.mean_norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    before_BC = model.user_vectors(users, no_noise(1))
    padded_BLX = right_aligned(users.history_JD[:, :8], torch.tensor([3]), 7)
    torch.testing.assert_close(seen[0], padded_BLX + model.position_LD[:, :8])
    with torch.no_grad():
        model.position_LD[:4] += torch.arange(16.0)  # nobody looks at the padding
    torch.testing.assert_close(model.user_vectors(users, no_noise(1)), before_BC)


def test_inputs_without_a_mean_and_a_covariance_are_refused():
    with pytest.raises(ValueError, match="vectors of even width, a mean and a covariance"):
        build(dims=dataclasses.replace(DIMS, position=15))
    with pytest.raises(ValueError, match="STOSA needs a history whose id space the item shares"):
        build(dims=dataclasses.replace(DIMS, history_len=0))


@pytest.mark.parametrize("options", [{"num_layers": 0}, {"dropout": 1.0}, {"margin_weight": -1.0}])
def test_a_field_outside_its_range_is_refused(options):
    with pytest.raises(ValueError, match=f"STOSAConfig.{next(iter(options))}="):
        STOSAConfig(**options)
