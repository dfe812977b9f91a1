"""FIT's Meta Query Module: a learned matrix stands in for the item in the user tower (section 4.1)."""

# B rows, N meta queries, D width of an item's attributes

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import nn

QueryAttention = Literal["literal", "scaled", "softmax", "none"]
Selection = Literal["soft", "hard", "soft_no_temperature"]


@dataclass(frozen=True, kw_only=True)
class MetaQueryConfig:
    """The item meta matrix, how it is mixed and how a query is picked in training; evaluation always takes the hard query.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    num_queries: int = 64
    """N."""
    query_attention: QueryAttention = "literal"
    """Eq. 5: `literal` (QQᵀ)Q; `scaled` (QQᵀ/N)Q; `softmax` softmax(QQᵀ/√D)Q; `none` Q itself (ablation)."""
    selection: Selection = "soft"
    """In training: `soft` eq. 7 with the decaying τ; `hard` the argmax row (ablation); `soft_no_temperature` τ = 1 (ablation)."""
    decay_epochs: float = 1.0
    """Epochs until τ has decayed; the threshold of eq. 23 is this many epochs' optimizer steps."""
    min_temperature: float = 0.001
    """Smallest τ of eq. 23."""

    def __post_init__(self) -> None:
        if self.num_queries < 1:
            raise ValueError(f"MetaQueryConfig.num_queries={self.num_queries}, expected at least 1")
        if self.query_attention not in get_args(QueryAttention):
            raise ValueError(
                f"MetaQueryConfig.query_attention={self.query_attention!r}, expected one of {get_args(QueryAttention)}"
            )
        if self.selection not in get_args(Selection):
            raise ValueError(f"MetaQueryConfig.selection={self.selection!r}, expected one of {get_args(Selection)}")
        if self.decay_epochs <= 0:
            raise ValueError(f"MetaQueryConfig.decay_epochs={self.decay_epochs}, expected more than 0")
        if not 0 < self.min_temperature <= 1:
            raise ValueError(f"MetaQueryConfig.min_temperature={self.min_temperature}, expected 0 < min_temperature <= 1")


def temperature_at(step: int, threshold: float, *, minimum: float = 0.001) -> float:
    """Eq. 23: τ after `step` optimizer steps; linear from 1 to `minimum`, reached at `threshold` steps.

    Raises:
        ValueError: step is negative or threshold is not positive.
    """
    if step < 0 or threshold <= 0:
        raise ValueError(f"temperature_at(step={step}, threshold={threshold}), expected step >= 0 and threshold > 0")
    return max(min(1.0, 1.0 - step / threshold), minimum)  # eq. 23


class MetaQueryOutput(NamedTuple):
    """What the module says about B items."""

    query_BD: torch.Tensor
    """float32 [B, D]: the soft query in training, the hard query in evaluation."""
    index_B: torch.Tensor
    """int64 [B]: eq. 8, 0-based."""
    similarity: torch.Tensor
    """float32 scalar, detached: eq. 24, mean cosine of soft and hard query over the rows (1 for no rows)."""


class MetaQuery(nn.Module):
    """The item meta matrix Q, its query group Q* (eq. 5), and the selection of a query by an item (eq. 6-8).

    Everything inside runs in float64: it is small, and neither autocast nor TF32 touches it, forward or backward.

    Args:
        config: see MetaQueryConfig.
        dim: D.
        device: where the parameters live.

    Example::

        queries = MetaQuery(MetaQueryConfig(), dim=32).eval()
        queries(torch.randn(2048, 32)).index_B  # int64 [2048] in [0, 64)
    """

    def __init__(self, config: MetaQueryConfig, *, dim: int, device: torch.device | None = None) -> None:
        super().__init__()
        self.query_attention: str = config.query_attention
        self.selection: str = config.selection
        self.decay_epochs = config.decay_epochs
        self.min_temperature = config.min_temperature
        self.meta_ND = nn.Parameter(torch.empty(config.num_queries, dim, device=device))
        # both follow from the step or the last batch, so neither is saved
        self.register_buffer("temperature", torch.ones((), device=device), persistent=False)
        self.register_buffer("similarity", torch.ones((), device=device), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming-uniform Q (section 5.1.4), τ = 1."""
        nn.init.kaiming_uniform_(self.meta_ND)
        nn.init.ones_(self.temperature)
        nn.init.ones_(self.similarity)

    def set_step(self, step: int, *, steps_per_epoch: int) -> None:
        """Set τ for the optimizer step `step` (counted from 0 over the whole training)."""
        if self.selection == "soft":
            self.temperature.fill_(temperature_at(step, self.decay_epochs * steps_per_epoch, minimum=self.min_temperature))

    def query_group(self) -> torch.Tensor:
        """Q* of eq. 5, float32 [N, D]."""
        return self._query_group().float()

    def forward(self, item_BD: torch.Tensor) -> MetaQueryOutput:
        """Pick a query for each item's attribute vector e_c, [B, D]."""
        group_ND = self._query_group()
        score_BN = torch.matmul(item_BD.double(), group_ND.t())
        index_B = score_BN.argmax(1)  # eq. 8: softmax keeps the order
        hard_BD = group_ND.index_select(0, index_B)
        if not self.training:
            return MetaQueryOutput(hard_BD.float(), index_B, torch.ones_like(self.similarity))
        soft_BD = torch.matmul(torch.softmax(score_BN / self.temperature, dim=1), group_ND)  # eq. 6, 7
        cosine_B = F.cosine_similarity(soft_BD.detach(), hard_BD.detach(), dim=1)  # eq. 24
        similarity = cosine_B.mean().float() if cosine_B.shape[0] > 0 else torch.ones_like(self.similarity)
        self.similarity.copy_(similarity)
        query_BD = hard_BD if self.selection == "hard" else soft_BD
        return MetaQueryOutput(query_BD.float(), index_B, similarity)

    def _query_group(self) -> torch.Tensor:
        meta_ND = self.meta_ND.double()
        if self.query_attention == "none":
            return meta_ND
        affinity_NN = torch.matmul(meta_ND, meta_ND.t())
        if self.query_attention == "scaled":
            affinity_NN = affinity_NN / meta_ND.shape[0]
        elif self.query_attention == "softmax":
            affinity_NN = torch.softmax(affinity_NN / meta_ND.shape[1] ** 0.5, dim=1)
        return torch.matmul(affinity_NN, meta_ND)  # eq. 5

    def log_values(self) -> dict[str, float]:
        """τ, the query similarity of the last training batch (eq. 24) and the Frobenius norm of Q*; reads the device."""
        with torch.no_grad():
            norm = torch.linalg.vector_norm(self._query_group()).item()
        return {"temperature": self.temperature.item(), "query_similarity": self.similarity.item(), "query_norm": norm}
