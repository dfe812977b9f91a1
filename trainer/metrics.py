"""Exact metrics of binary predictions, gathered over ranks: AUC, logloss, calibration."""

import logging
import math

import torch
import torch.distributed as dist
import torch.nn.functional as F

from trainer.uneven_gather import gather_columns

log = logging.getLogger(__name__)


class BinaryMetrics:
    """Accumulates logits and labels of one rank; `compute` gathers all ranks' rows and looks at them at once.

    `update` only keeps references, so that a training step never waits for the GPU. Results don't depend on how rows are spread
    over ranks or on their order.

    Example::

        metrics = BinaryMetrics()
        metrics.update(logit_B, label_B)
        metrics.compute(process_group)["auc"]
    """

    def __init__(self) -> None:
        self._logits: list[torch.Tensor] = []
        self._labels: list[torch.Tensor] = []

    def update(self, logit_B: torch.Tensor, label_B: torch.Tensor) -> None:
        """Add the rows of one batch; ValueError where the shapes differ."""
        if logit_B.dim() != 1 or logit_B.shape != label_B.shape:
            raise ValueError(f"logits {tuple(logit_B.shape)} and labels {tuple(label_B.shape)}: expected two equal shapes [B]")
        self._logits.append(logit_B.detach())
        self._labels.append(label_B.detach())

    def reset(self) -> None:
        """Forget all rows."""
        self._logits.clear()
        self._labels.clear()

    def compute(self, process_group: dist.ProcessGroup | None = None) -> dict[str, float]:
        """Metrics over the rows of all ranks of `process_group` (None: of this process); a collective call, equal on every rank.

        Args:
            process_group: a group that carries CPU tensors (gloo).

        Returns:
            auc, auc_se (Hanley-McNeil), logloss, num_rows, base_rate (mean label) and calibration (mean prediction over mean
            label). What can't be computed is NaN, and the log says why.

        Raises:
            ValueError: on every rank, where a logit is not finite or a label is neither 0 nor 1.
        """
        logits, labels = _joined(self._logits), _joined(self._labels)
        logits, labels = gather_columns(torch.stack([logits, labels]), process_group)
        _check_values(logits, labels)
        positive, negative = logits[labels == 1].sort().values.double(), logits[labels == 0].sort().values.double()
        num_rows = len(positive) + len(negative)
        if num_rows == 0:
            log.warning("metrics over 0 rows: all of them are NaN")
            return dict.fromkeys(("auc", "auc_se", "logloss", "base_rate", "calibration"), math.nan) | {"num_rows": 0.0}
        if len(positive) == 0 or len(negative) == 0:
            log.warning(
                "AUC is NaN: all %d rows have label %d, and it compares positives with negatives", num_rows, len(positive) > 0
            )
        auc = area_under_curve(positive, negative)
        predicted = positive.sigmoid().sum() + negative.sigmoid().sum()
        return {
            "auc": auc,
            "auc_se": auc_standard_error(auc, num_positive=len(positive), num_negative=len(negative)),
            "logloss": float(F.softplus(-positive).sum() + F.softplus(negative).sum()) / num_rows,
            "num_rows": float(num_rows),
            "base_rate": len(positive) / num_rows,
            "calibration": float(predicted) / len(positive) if len(positive) else math.nan,
        }


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """All rows as float32 on the CPU; one copy from a GPU."""
    return torch.cat(parts).float().cpu() if parts else torch.empty(0)


def _check_values(logits: torch.Tensor, labels: torch.Tensor) -> None:
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(f"{int((~torch.isfinite(logits)).sum())} of {len(logits)} logits are NaN or infinite")
    if not bool(((labels == 0) | (labels == 1)).all()):
        odd = labels[(labels != 0) & (labels != 1)][0].item()
        raise ValueError(f"label {odd}: binary metrics need labels 0 or 1")


def area_under_curve(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """Exact ROC AUC: the share of (positive, negative) pairs that are ordered rightly, a tie counting one half.

    Args:
        positive: sorted scores of the positives, [P].
        negative: sorted scores of the negatives, [N].

    Returns:
        NaN where P or N is 0. Counts are integers, so the result is exact up to one division.
    """
    if len(positive) == 0 or len(negative) == 0:
        return math.nan
    below = torch.searchsorted(negative, positive, right=False).sum()
    below_or_equal = torch.searchsorted(negative, positive, right=True).sum()
    return int(below + below_or_equal) / (2 * len(positive) * len(negative))


def auc_standard_error(auc: float, *, num_positive: int, num_negative: int) -> float:
    """Standard error of an AUC by Hanley and McNeil (1982), from exponential score distributions; NaN where the AUC is."""
    if math.isnan(auc):
        return math.nan
    both_positive = auc / (2 - auc)
    both_negative = 2 * auc * auc / (1 + auc)
    variance = auc * (1 - auc) + (num_positive - 1) * (both_positive - auc * auc) + (num_negative - 1) * (both_negative - auc * auc)
    return math.sqrt(max(variance, 0.0) / (num_positive * num_negative))


def rela_impr(auc: float, base_auc: float) -> float:
    """Relative improvement over a base model, as a fraction: (auc - 0.5) / (base_auc - 0.5) - 1 (FIT eq. 22, which adds × 100 %).

    Raises:
        ValueError: the base model's AUC is 0.5, so that there is nothing to improve on relatively.
    """
    if base_auc == 0.5:
        raise ValueError("base_auc=0.5 is a random model; RelaImpr divides by base_auc - 0.5")
    return (auc - 0.5) / (base_auc - 0.5) - 1
