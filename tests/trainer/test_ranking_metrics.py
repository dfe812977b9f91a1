import logging
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score, top_k_accuracy_score
from torchmetrics.functional.retrieval import (
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_recall,
    retrieval_reciprocal_rank,
)

from models.ranking import target_ranks
from trainer.ranking_metrics import CUTOFFS, NAMES, RankingMetrics


def computed(ranks: torch.Tensor, losses: torch.Tensor, *, batch: int = 100) -> dict[str, float]:
    metrics = RankingMetrics()
    for start in range(0, len(ranks), batch):
        metrics.update(ranks[start : start + batch], losses[start : start + batch])
    return metrics.compute()


@pytest.fixture(scope="module")
def scored() -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    """Scores of 90 users and 130 items, the targets, and the metrics of their ranks."""
    random = torch.Generator().manual_seed(8)
    item_MC = torch.randn(130, 6, generator=random)
    target_B = torch.randint(130, (90,), generator=random)
    user_BC = 0.4 * item_MC[target_B] + torch.randn(90, 6, generator=random)  # so that many a target stands near the top
    ranks = target_ranks(user_BC, item_MC, target_B)
    return user_BC @ item_MC.t(), target_B, computed(ranks, torch.ones(90))


def test_metrics_equal_a_loop_over_rows() -> None:
    random = torch.Generator().manual_seed(2)
    ranks, losses = torch.randint(1, 150, (333,), generator=random), torch.rand(333, generator=random)
    found = computed(ranks, losses, batch=50)
    for k in CUTOFFS:
        hits = [rank for rank in ranks.tolist() if rank <= k]
        assert found[f"recall@{k}"] == found[f"hr@{k}"] == len(hits) / 333
        assert found[f"mrr@{k}"] == pytest.approx(sum(1 / rank for rank in hits) / 333, rel=1e-12)
        assert found[f"ndcg@{k}"] == pytest.approx(sum(math.log(2) / math.log(1 + rank) for rank in hits) / 333, rel=1e-12)
    assert found["mrr"] == pytest.approx(np.mean(1 / ranks.numpy()), rel=1e-12)
    assert found["loss"] == pytest.approx(losses.double().mean().item(), rel=1e-12)
    assert found["num_rows"] == 333
    assert set(found) == {*NAMES, "num_rows"}


def test_metrics_equal_scikit_learn_on_random_scores(scored: tuple) -> None:
    score_BM, target_B, found = scored
    relevant_BM = torch.nn.functional.one_hot(target_B, score_BM.shape[1])
    assert found["mrr"] == pytest.approx(label_ranking_average_precision_score(relevant_BM, score_BM), rel=1e-6)
    for k in CUTOFFS:
        accuracy = top_k_accuracy_score(target_B, score_BM, k=k, labels=np.arange(score_BM.shape[1]))
        assert found[f"recall@{k}"] == pytest.approx(accuracy, rel=1e-12)
        assert found[f"ndcg@{k}"] == pytest.approx(ndcg_score(relevant_BM, score_BM, k=k, ignore_ties=True), rel=1e-12)


def test_metrics_equal_torchmetrics_on_random_scores(scored: tuple) -> None:
    score_BM, target_B, found = scored
    relevant_BM = torch.nn.functional.one_hot(target_B, score_BM.shape[1])
    rows = list(zip(score_BM, relevant_BM, strict=True))
    assert found["mrr"] == pytest.approx(np.mean([retrieval_reciprocal_rank(*row).item() for row in rows]), rel=1e-6)
    for k in (1, 20):
        for name, oracle in (("recall", retrieval_recall), ("hr", retrieval_hit_rate), ("ndcg", retrieval_normalized_dcg)):
            expected = np.mean([oracle(*row, top_k=k).item() for row in rows])
            assert found[f"{name}@{k}"] == pytest.approx(expected, rel=1e-6), (name, k)


def test_two_ranks_with_unequal_or_no_rows_compute_what_one_process_does(on_two_ranks: dict) -> None:
    random = torch.Generator().manual_seed(5)
    alone = computed(torch.randint(1, 60, (777,), generator=random), torch.rand(777, generator=random))
    assert on_two_ranks["ranking_metrics"] == [alone, alone]


def test_no_rows_give_nan_and_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = RankingMetrics().compute()
    assert found.pop("num_rows") == 0
    assert set(found) == set(NAMES)
    assert all(math.isnan(value) for value in found.values())
    assert "0 rows" in caplog.text


def test_the_standard_error_is_the_spread_of_the_recall_over_samples() -> None:
    random = torch.Generator().manual_seed(6)
    samples = [computed(torch.randint(1, 81, (200,), generator=random), torch.zeros(200)) for _ in range(200)]
    spread = np.std([found["recall@20"] for found in samples])
    assert computed(torch.arange(1, 81).repeat(3)[:200], torch.zeros(200))["recall@20_se"] == pytest.approx(spread, rel=0.2)


def test_ranks_beyond_what_float32_holds_are_counted_exactly() -> None:
    rank = 2**30 + 1
    assert computed(torch.tensor([rank]), torch.zeros(1))["mrr"] == 1 / rank


def test_update_detaches_and_reset_forgets() -> None:
    metrics = RankingMetrics()
    metrics.update(torch.tensor([1]), torch.ones(1, requires_grad=True))
    assert metrics.compute()["recall@1"] == 1
    metrics.reset()
    metrics.update(torch.tensor([2]), torch.ones(1))
    assert metrics.compute()["recall@1"] == 0


@pytest.mark.parametrize(
    ("ranks", "losses", "word"),
    [([0, 1], [1.0, 1.0], "rank 0"), ([1, 1], [math.nan, 1.0], "1 of 2 losses"), ([1], [1.0, 2.0], "equal shapes")],
)
def test_rows_that_would_spoil_the_metrics_are_refused(ranks: list[int], losses: list[float], word: str) -> None:
    metrics = RankingMetrics()
    with pytest.raises(ValueError, match=word):  # noqa: PT012  (shapes are checked at once, values when they are gathered)
        metrics.update(torch.tensor(ranks), torch.tensor(losses))
        metrics.compute()
