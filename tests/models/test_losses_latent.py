"""The losses of augmented and of latent vectors."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import MultivariateNormal, kl_divergence

from models.losses import adaptive_mimic, contrastive_interaction, gaussian_kl, info_nce


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_mimic_is_the_squared_distance_of_a_positive_and_nothing_of_a_negative():
    augmented_BC, other_BC = normal(4, 3), normal(4, 3, seed=1)
    loss_B = adaptive_mimic(augmented_BC, other_BC, torch.tensor([1.0, 0.0, 1.0, 0.0]))
    distance_B = (augmented_BC - other_BC).square().sum(1)
    torch.testing.assert_close(loss_B, distance_B * torch.tensor([1.0, 0.0, 1.0, 0.0]))


def test_the_mimic_leaves_the_other_tower_alone():
    augmented_BC, other_BC = normal(4, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    adaptive_mimic(augmented_BC, other_BC, torch.tensor([1.0, 0.0, 1.0, 0.0])).sum().backward()
    assert other_BC.grad is None
    torch.testing.assert_close(augmented_BC.grad[::2], 2 * (augmented_BC - other_BC).detach()[::2])
    assert torch.equal(augmented_BC.grad[1::2], torch.zeros(2, 3))


def test_the_gaussian_kl_is_torchs():
    mean_XC, log_variance_XC = normal(5, 2, 3), normal(5, 2, 3, seed=1)
    ours = MultivariateNormal(mean_XC, torch.diag_embed(log_variance_XC.exp()))
    prior = MultivariateNormal(torch.zeros(3), torch.eye(3))
    torch.testing.assert_close(gaussian_kl(mean_XC, log_variance_XC), kl_divergence(ours, prior), atol=1e-5, rtol=1e-5)


def test_info_nce_equals_its_loop_form():
    one_BC, other_BC = normal(5, 3), normal(5, 3, seed=1)

    def similarity(first, second):
        return float(first @ second / first.norm() / second.norm()) / 0.5

    for row, loss in enumerate(info_nce(one_BC, other_BC, temperature=0.5).tolist()):
        positive = similarity(one_BC[row], other_BC[row])
        forwards = [math.exp(similarity(one_BC[row], other_BC[column])) for column in range(5)]
        backwards = [math.exp(similarity(one_BC[column], other_BC[row])) for column in range(5)]
        expected = -0.5 * (math.log(math.exp(positive) / sum(forwards)) + math.log(math.exp(positive) / sum(backwards)))
        assert loss == pytest.approx(expected, abs=1e-5)


def test_info_nce_of_a_single_row_and_of_rows_without_content_is_finite():
    torch.testing.assert_close(info_nce(normal(1, 3), normal(1, 3, seed=1), temperature=0.1), torch.zeros(1))
    empty_BC = torch.zeros(3, 4, requires_grad=True)
    loss_B = info_nce(empty_BC, empty_BC, temperature=0.5)
    loss_B.sum().backward()
    torch.testing.assert_close(loss_B, torch.full((3,), math.log(3)))
    assert torch.isfinite(empty_BC.grad).all()


def test_the_contrastive_interaction_tells_a_positives_item_from_the_batchs_and_says_nothing_of_a_negative():
    user_BC, item_BC = normal(5, 3), normal(5, 3, seed=1)
    label_B = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])
    loss_B = contrastive_interaction(user_BC, item_BC, label_B, temperature=0.2)
    cosine_BB = F.cosine_similarity(user_BC[:, None], item_BC[None], dim=2)
    expected_B = F.cross_entropy(cosine_BB / 0.2, torch.arange(5), reduction="none")
    torch.testing.assert_close(loss_B, expected_B * label_B)


def test_the_contrastive_interaction_falls_when_the_positive_comes_closer():
    user_BC, item_BC = normal(6, 4), normal(6, 4, seed=1)
    label_B = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    losses = []
    for share in (0.0, 0.3, 0.7, 1.0):
        closer_BC = item_BC.clone()
        closer_BC[1] = (1 - share) * item_BC[1] + share * user_BC[1]
        losses.append(contrastive_interaction(user_BC, closer_BC, label_B, temperature=0.1).sum().item())
    assert all(farther > closer > 0 for farther, closer in pairwise(losses))


def test_the_contrastive_interaction_teaches_both_sides():
    user_BC, item_BC = normal(4, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    contrastive_interaction(user_BC, item_BC, torch.tensor([1.0, 0.0, 1.0, 0.0]), temperature=0.1).sum().backward()
    assert (user_BC.grad[::2] != 0).all()
    assert torch.equal(user_BC.grad[1::2], torch.zeros(2, 3)), "the user of a negative is no anchor"
    assert (item_BC.grad != 0).all(), "the item of a negative is one that positives are told from"
