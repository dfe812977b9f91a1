"""Predictions of the history's own behaviours, which a model returns beside its user vectors: their losses in MatchingTask."""

import pytest
import torch
from torch import nn

from models.embeddings import EmbeddingConfig, FeatureEmbeddings
from models.tasks import MatchingLossConfig, MatchingTask
from models.types import MatchForward, without_cloze
from tests.models.synthetic import NEXT_ITEM_SCHEMA, catalogue_of, evaluate, random_batch

LENGTHS = [0, 3, 1, 0, 5]
PLACES, ROWS, WEIGHTS = [7, 0, 10, 3, 7, 9], [4, 1, 1, 2, 4, 0], [0.5, 2.0, 3.0, 1.0, 0.25, 0.75]
"""What is to be found, in any order, some of it twice (behaviours, and at 9 + b the target of row b); the rows that it belongs to;
what it counts."""


class PredictsItsHistory(nn.Module):
    """Its user vectors and cloze queries are parameters."""

    def __init__(self, places=PLACES, weights=WEIGHTS):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.user_BC = nn.Parameter(torch.randn(len(LENGTHS), 8, generator=generator))
        self.cloze_XC = nn.Parameter(torch.randn(len(places), 8, generator=generator))
        self.places, self.weights = torch.tensor(places, dtype=torch.int64), torch.tensor(weights)
        self.predicts_history = True
        self.training_noise_size = self.serving_noise_size = 0

    def forward(self, users, items, noise_BX, uniform_B):
        assert noise_BX.shape == (users.history_lengths_B.shape[0], 0)
        assert items.item_BD.shape[0] == uniform_B.shape[0]
        return MatchForward(self.user_BC, torch.full_like(uniform_B, 0.1), self.cloze_XC, self.places, self.weights)

    def user_vectors(self, users, noise_BX):
        assert users.history_lengths_B.shape[0] == noise_BX.shape[0]
        return self.user_BC

    def item_vectors(self, items):
        return items.item_BD


class PredictsTargetsAlone(PredictsItsHistory):
    """The same user vectors by themselves."""

    def forward(self, users, items, noise_BX, uniform_B):
        out = super().forward(users, items, noise_BX, uniform_B)
        return without_cloze(out.user_BC, out.auxiliary_B)


def build(model, *, world_size=1, **loss):
    torch.manual_seed(0)
    features = EmbeddingConfig(dim=8, init_std=0.5, features=("hist_item", "item"))
    embeddings = FeatureEmbeddings(NEXT_ITEM_SCHEMA, config=features)
    config = MatchingLossConfig(**loss)
    return MatchingTask(embeddings, model=model, catalogue=catalogue_of(), item_key="item", config=config, world_size=world_size)


def rows(lengths=LENGTHS):
    return random_batch(len(lengths), schema=NEXT_ITEM_SCHEMA, history_lengths=lengths)


def item_table(task):
    return task.embeddings.sequence.embeddings["t_item"].weight


def cross_entropies(query_XC, item_MC, ids):
    return nn.functional.cross_entropy(query_XC @ item_MC.t(), ids, reduction="none")


def plain_losses(task, batch):
    """Of the targets [B] and of the cloze predictions [X], weighted, from all scores at once."""
    own_B = cross_entropies(task.model.user_BC, item_table(task), batch.sequence["item"].values())
    cloze_ids = torch.cat([batch.sequence["hist_item"].values(), batch.sequence["item"].values()])[PLACES]
    return own_B, cross_entropies(task.model.cloze_XC, item_table(task), cloze_ids) * torch.tensor(WEIGHTS)


@pytest.mark.parametrize("chunk_items", [7, 64])
def test_every_prediction_counts_its_weight_in_the_mean_over_the_rows(chunk_items):
    task, batch = build(PredictsItsHistory(), chunk_items=chunk_items), rows()
    loss, out = task(batch)
    own_B, cloze_X = plain_losses(task, batch)
    torch.testing.assert_close(out.softmax_loss_B, own_B.detach())
    torch.testing.assert_close(loss, (own_B.sum() + cloze_X.sum()) / 5 + 0.1)


def test_a_rows_predictions_are_its_own_further_losses():
    task, batch = build(PredictsItsHistory()), rows()
    _, out = task(batch)
    _, cloze_X = plain_losses(task, batch)
    expected = [0.1 + sum(cloze_X[x].item() for x, owner in enumerate(ROWS) if owner == row) for row in range(5)]
    assert out.auxiliary_B.tolist() == pytest.approx(expected, rel=1e-5)


def test_gradients_equal_those_of_the_plain_losses():
    task, batch = build(PredictsItsHistory()), rows()
    loss, _ = task(batch)
    wanted = [task.model.user_BC, task.model.cloze_XC, item_table(task)]
    own_B, cloze_X = plain_losses(task, batch)
    expected = torch.autograd.grad((own_B.sum() + cloze_X.sum()) / 5, wanted)
    for found, gradient in zip(torch.autograd.grad(loss, wanted), expected, strict=True):
        assert gradient.abs().sum() > 0
        torch.testing.assert_close(found, gradient)


def test_a_prediction_of_no_weight_teaches_nothing():
    task = build(PredictsItsHistory(weights=[0.5, 0.0, 1.0, 0.0, 1.0, 1.0]))
    task(rows())[0].backward()
    assert task.model.cloze_XC.grad.abs().sum(1).gt(0).tolist() == [True, False, True, False, True, True]


@pytest.mark.parametrize("lengths", [LENGTHS, [0] * 5])
def test_without_cloze_predictions_the_rows_own_losses_are_left(lengths):
    batch = rows(lengths)
    none, alone = build(PredictsItsHistory([], [])), build(PredictsTargetsAlone())
    for task in (none, alone):
        loss, out = task(batch)
        assert torch.equal(out.auxiliary_B, torch.full((5,), 0.1))
        torch.testing.assert_close(loss.detach(), out.softmax_loss_B.mean() + 0.1)
    assert torch.equal(none(batch)[0], alone(batch)[0])


def test_the_mean_is_over_the_global_batch():
    task, batch = build(PredictsItsHistory(), world_size=2), rows()
    batch.global_rows = torch.tensor(20)
    own_B, cloze_X = plain_losses(task, batch)
    torch.testing.assert_close(task(batch)[0], (own_B.sum() + 0.5 + cloze_X.sum()) * 2 / 20)


def test_evaluation_knows_no_cloze():
    predicting, alone = (evaluate(build(model()), rows()) for model in (PredictsItsHistory, PredictsTargetsAlone))
    assert torch.equal(predicting.auxiliary_B, torch.zeros(5))
    for found, expected in zip(predicting, alone, strict=True):
        assert torch.equal(found, expected)


def test_the_sampled_softmax_refuses_a_model_that_predicts_its_history():
    with pytest.raises(
        ValueError, match=r"PredictsItsHistory predicts .* item_softmax='sampled' .*: use --model.loss.item-softmax full"
    ):
        build(PredictsItsHistory(), item_softmax="sampled")
    alone = PredictsTargetsAlone()
    alone.predicts_history = False
    assert build(alone, item_softmax="sampled").config.item_softmax == "sampled"
