"""Ranking metrics of one relevant item per row, gathered over ranks: recall, MRR, NDCG, and the mean loss."""

import logging
import math

import torch
import torch.distributed as dist

from trainer.uneven_gather import gather_columns

log = logging.getLogger(__name__)
CUTOFFS = (1, 2, 5, 10, 20, 50, 100)
ERROR_CUTOFF = 20
"""Where recall's standard error is told."""
NAMES = (*(f"{name}@{k}" for k in CUTOFFS for name in ("recall", "hr", "mrr", "ndcg")), "mrr", "loss", f"recall@{ERROR_CUTOFF}_se")


class RankingMetrics:
    """Accumulates one rank's target ranks and losses; `compute` gathers all ranks' rows and looks at them at once.

    `update` only keeps references, so that evaluation never waits for the GPU. Results don't depend on how rows are spread over
    ranks or on their order.

    Example::

        metrics = RankingMetrics()
        metrics.update(target_ranks(user_BC, item_MC, target_B), loss_B)
        metrics.compute(process_group)["recall@20"]
    """

    def __init__(self) -> None:
        self._ranks: list[torch.Tensor] = []
        self._losses: list[torch.Tensor] = []

    def update(self, rank_B: torch.Tensor, loss_B: torch.Tensor) -> None:
        """Add the rows of one batch: `models.ranking.target_ranks` and a loss each; ValueError where the shapes differ."""
        if rank_B.dim() != 1 or rank_B.shape != loss_B.shape:
            raise ValueError(f"ranks {tuple(rank_B.shape)} and losses {tuple(loss_B.shape)}: expected two equal shapes [B]")
        self._ranks.append(rank_B.detach())
        self._losses.append(loss_B.detach())

    def reset(self) -> None:
        """Forget all rows."""
        self._ranks.clear()
        self._losses.clear()

    def compute(self, process_group: dist.ProcessGroup | None = None) -> dict[str, float]:
        """Metrics over the rows of all ranks of `process_group` (None: of this process); a collective call, equal on every rank.

        Args:
            process_group: a group that carries CPU tensors (gloo).

        Returns:
            For K in CUTOFFS recall@K, hr@K (hit rate: the same with one relevant item), mrr@K (mean of 1/rank, 0 beyond K) and
            ndcg@K (mean of 1/log2(1 + rank), 0 beyond K); mrr without a cutoff; loss, the mean; recall@20_se, the binomial standard
            error; num_rows. Over 0 rows all others are NaN, and the log says so.

        Raises:
            ValueError: on every rank, where a rank is below 1 or a loss is not finite.
        """
        rows_2B = self._gathered(process_group)
        # sorted, so that rounding in the sums does not depend on the order of the rows
        rank_B, loss_B = rows_2B.sort(dim=1).values
        num_rows = rank_B.shape[0]
        _check_values(rank_B, loss_B)
        if num_rows == 0:
            log.warning("ranking metrics over 0 rows: all of them are NaN")
            return dict.fromkeys(NAMES, math.nan) | {"num_rows": 0.0}
        reciprocal_B, gain_B = 1 / rank_B, 1 / torch.log2(1 + rank_B)
        found: dict[str, float] = {}
        for k in CUTOFFS:
            hits = int((rank_B <= k).sum())  # the first rows: ranks are sorted
            found[f"recall@{k}"] = found[f"hr@{k}"] = hits / num_rows
            found[f"mrr@{k}"] = float(reciprocal_B[:hits].sum()) / num_rows
            found[f"ndcg@{k}"] = float(gain_B[:hits].sum()) / num_rows
        recall = found[f"recall@{ERROR_CUTOFF}"]
        return found | {
            "mrr": float(reciprocal_B.sum()) / num_rows,
            "loss": float(loss_B.sum()) / num_rows,
            f"recall@{ERROR_CUTOFF}_se": math.sqrt(recall * (1 - recall) / num_rows),
            "num_rows": float(num_rows),
        }

    def found(self, k: int, process_group: dist.ProcessGroup | None = None) -> torch.Tensor:
        """Float64 [R]: 1 for each row whose target is among the first k, else 0; ranks one after another. A collective call."""
        return (self._gathered(process_group)[0] <= k).double()

    def _gathered(self, process_group: dist.ProcessGroup | None) -> torch.Tensor:
        """Ranks and losses of all rows, [2, R]."""
        return gather_columns(torch.stack([_joined(self._ranks), _joined(self._losses)]), process_group)


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """All rows on the CPU, one copy from a GPU; float64 holds every rank and every float32 loss."""
    return torch.cat(parts).cpu().double() if parts else torch.empty(0, dtype=torch.float64)


def _check_values(rank_B: torch.Tensor, loss_B: torch.Tensor) -> None:
    if bool((rank_B < 1).any()):
        raise ValueError(f"rank {int(rank_B[rank_B < 1][0])}: ranks count from 1, as models.ranking.target_ranks does")
    if not bool(torch.isfinite(loss_B).all()):
        raise ValueError(f"{int((~torch.isfinite(loss_B)).sum())} of {len(loss_B)} losses are NaN or infinite")
