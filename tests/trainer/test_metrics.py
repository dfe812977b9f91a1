import logging
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from trainer.metrics import BinaryMetrics, auc_standard_error, rela_impr


def computed(logits: list[float] | torch.Tensor, labels: list[int] | torch.Tensor, *, batch: int = 100) -> dict[str, float]:
    metrics = BinaryMetrics()
    logit_B, label_B = torch.as_tensor(logits, dtype=torch.float32), torch.as_tensor(labels, dtype=torch.float32)
    for start in range(0, len(logit_B), batch):
        metrics.update(logit_B[start : start + batch], label_B[start : start + batch])
    return metrics.compute()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40))
def test_auc_and_logloss_equal_scikit_learn_with_many_ties(rows: list[tuple[int, bool]]) -> None:
    logits, labels = [row[0] / 2 for row in rows], [int(row[1]) for row in rows]
    found = computed(logits, labels, batch=7)
    probability = 1 / (1 + np.exp(-np.array(logits)))
    assert found["logloss"] == pytest.approx(log_loss(labels, probability, labels=[0, 1]), rel=1e-12)
    assert found["base_rate"] == pytest.approx(np.mean(labels), abs=1e-15)
    if len(set(labels)) == 2:
        assert found["auc"] == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)
        assert found["calibration"] == pytest.approx(probability.sum() / sum(labels), rel=1e-12)


def test_two_ranks_with_unequal_or_no_rows_compute_what_one_process_does(on_two_ranks: dict) -> None:
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(1001, generator=random).round(decimals=1)
    labels = (torch.rand(1001, generator=random) < logits.sigmoid()).float()
    alone = computed(logits, labels)
    assert on_two_ranks["metrics"] == [alone, alone]
    assert alone["auc"] == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)


@pytest.mark.parametrize("label", [0, 1])
def test_auc_of_one_class_is_nan_and_the_log_says_why(label: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = computed([0.0, 1.0], [label, label])
    assert math.isnan(found["auc"])
    assert math.isnan(found["auc_se"])
    assert f"all 2 rows have label {label}" in caplog.text
    assert found["logloss"] == pytest.approx(log_loss([label] * 2, [0.5, 1 / (1 + math.exp(-1))], labels=[0, 1]), rel=1e-6)


def test_no_rows_give_nan_and_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    found = BinaryMetrics().compute()
    assert found["num_rows"] == 0
    assert all(math.isnan(value) for name, value in found.items() if name != "num_rows")
    assert "0 rows" in caplog.text


def test_logloss_of_extreme_logits_is_finite() -> None:
    assert computed([200.0, -200.0], [0, 1])["logloss"] == pytest.approx(200.0)


def test_update_detaches_and_reset_forgets() -> None:
    metrics = BinaryMetrics()
    metrics.update(torch.tensor([5.0, 1.0], requires_grad=True), torch.tensor([0.0, 1.0]))
    assert metrics.compute()["auc"] == 0.0
    metrics.reset()
    metrics.update(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    assert metrics.compute()["auc"] == 1.0


@pytest.mark.parametrize(
    ("logits", "labels", "word"),
    [
        ([math.nan, 0.0], [0, 1], "1 of 2 logits"),
        ([math.inf], [1], "infinite"),
        ([0.0], [0.5], "label 0.5"),
        ([0.0], [1, 0], "equal"),
    ],
)
def test_rows_that_would_spoil_the_metrics_are_refused(logits: list[float], labels: list[float], word: str) -> None:
    metrics = BinaryMetrics()
    with pytest.raises(ValueError, match=word):  # noqa: PT012  (shapes are checked at once, values when they are gathered)
        metrics.update(torch.tensor(logits), torch.tensor(labels, dtype=torch.float32))
        metrics.compute()


def test_standard_error_is_the_spread_of_the_auc_over_samples() -> None:
    random = np.random.default_rng(0)
    aucs, positives, negatives = [], 60, 140
    for _ in range(400):
        scores = np.concatenate([random.exponential(3.0, positives), random.exponential(1.0, negatives)])
        aucs.append(roc_auc_score([1] * positives + [0] * negatives, scores))
    assert auc_standard_error(0.75, num_positive=positives, num_negative=negatives) == pytest.approx(np.std(aucs), rel=0.12)


def test_rela_impr_is_fit_equation_22() -> None:
    assert rela_impr(0.9225, 0.8695) == pytest.approx(0.1434, abs=5e-5)
    assert rela_impr(0.8, 0.8) == 0
    with pytest.raises(ValueError, match="random model"):
        rela_impr(0.7, 0.5)


def test_a_million_rows_take_a_few_seconds_at_most() -> None:
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(1_000_000, generator=random)
    labels = (torch.rand(1_000_000, generator=random) < logits.sigmoid()).float()
    started = time.perf_counter()
    found = computed(logits, labels, batch=100_000)
    assert time.perf_counter() - started < 10
    assert found["calibration"] == pytest.approx(1, abs=0.01)
