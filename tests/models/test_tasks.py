import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import build_task
from models.embeddings import EmbeddingConfig
from models.losses import binary_cross_entropy
from models.tasks import PreRankingTask
from models.two_tower import TwoTowerConfig
from models.types import InputDims, ScoreForward
from tests.models.synthetic import SCHEMA, random_batch

SMALL = EmbeddingConfig(dim=4)


def test_loss_is_the_mean_cross_entropy_of_the_global_batch():
    task = build_task(TwoTowerConfig(), schema=SCHEMA, embeddings=SMALL)
    batch = random_batch(10)
    loss, out = task(batch)
    torch.testing.assert_close(loss, F.binary_cross_entropy(torch.sigmoid(out.logit_B), batch.label_B))


def test_averaging_unequal_ranks_gives_the_mean_over_the_global_batch():
    torch.manual_seed(0)
    # evaluation mode: without batch statistics a row's loss does not depend on the rank it is on
    task = build_task(TwoTowerConfig(), schema=SCHEMA, embeddings=SMALL, world_size=2).eval()
    losses, logits, labels = [], [], []
    for rows, seed in ((7, 1), (3, 2)):
        batch = random_batch(rows, seed=seed)
        batch.global_rows = torch.tensor(10)
        loss, out = task(batch)
        losses.append(loss)
        logits.append(out.logit_B)
        labels.append(out.label_B)
    mean = F.binary_cross_entropy_with_logits(torch.cat(logits), torch.cat(labels))
    torch.testing.assert_close(torch.stack(losses).mean().detach(), mean)


def test_cross_entropy_of_bfloat16_logits_is_summed_in_float32():
    logit_B, label_B = torch.randn(1000, dtype=torch.bfloat16), torch.rand(1000)
    loss = binary_cross_entropy(logit_B, label_B)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, binary_cross_entropy(logit_B.float(), label_B))


def test_world_size_below_one_is_refused():
    with pytest.raises(ValueError, match=r"world_size=0\), expected at least 1"):
        build_task(TwoTowerConfig(), schema=SCHEMA, embeddings=SMALL, world_size=0)


class Priced(nn.Module):
    """Logits of 0, and each row's label as its further loss."""

    def forward(self, _users, _items, label_B):
        return ScoreForward(torch.zeros_like(label_B), label_B)


def test_averaging_unequal_ranks_gives_the_mean_further_loss_of_the_global_batch():
    lookups = build_task(TwoTowerConfig(), schema=SCHEMA, embeddings=SMALL).embeddings
    task = PreRankingTask(lookups, model=Priced(), world_size=2)
    losses, labels = [], []
    for rows, seed in ((7, 1), (3, 2)):
        batch = random_batch(rows, seed=seed)
        batch.global_rows = torch.tensor(10)
        loss, out = task(batch)
        assert torch.equal(out.auxiliary_B, batch.label_B)
        losses.append(loss)
        labels.append(batch.label_B)
    torch.testing.assert_close(torch.stack(losses).mean(), math.log(2.0) + torch.cat(labels).mean())


@pytest.mark.parametrize("name", ["profile", "attribute", "position"])
def test_fields_that_do_not_fill_their_tensor_are_refused(name):
    with pytest.raises(ValueError, match=rf"InputDims.{name}_fields=\(\('x', 7\),\), expected widths that sum up to 8"):
        InputDims(profile=8, attributes=8, position=8, **{f"{name}_fields": (("x", 7),)})
