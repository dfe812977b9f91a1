"""Weights of whole fields, from all fields of a row: COLD's squeeze-and-excitation block, and IntTower's lighter one.

COLD is "COLD: Towards the Next Generation of Pre-Ranking System" (DLP-KDD 2020), IntTower "IntTower: The Next Generation of
Two-Tower Model for Pre-Ranking System" (CIKM 2022).
"""

# B rows, M fields, X width of all fields beside each other

import torch
from torch import nn

from models.layers.norm import BatchNorm


class SqueezeExcitation(nn.Module):
    """COLD's feature selection block: s = σ(W [e_1, …, e_M] + b) and v_m = s_m·e_m; a weight comes from all of the row.

    It also selects fields (`select`), those whose weights were largest on average over the last training batches. Where `sees_all`
    is False, and in evaluation always, the others are 0, and weights don't depend on them.

    Args:
        widths: of the M fields; their sum is X.
        device: where the parameters live.

    Example::

        SqueezeExcitation([16, 16, 32])(torch.randn(8, 64))  # [8, 64]
    """

    def __init__(self, widths: list[int], *, device: torch.device | None = None) -> None:
        super().__init__()
        self.widths = widths
        self.sees_all: bool = True
        """Whether training takes the fields that are not kept, too."""
        self.excitation = nn.Linear(sum(widths), len(widths), device=device)
        # a norm for the sake of its running mean alone, which is that of all ranks' rows
        self.statistics = BatchNorm(len(widths), affine=False, device=device)
        self.register_buffer("kept_M", torch.empty(len(widths), device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All fields are kept; no weights seen."""
        nn.init.ones_(self.kept_M)
        self.statistics.reset_running_stats()

    def weights(self, field_BX: torch.Tensor) -> torch.Tensor:
        """Each field's s, [B, M], between 0 and 1."""
        return torch.sigmoid(self.excitation(field_BX))

    def forward(self, field_BX: torch.Tensor) -> torch.Tensor:
        """v_1 … v_M beside each other, [B, X]."""
        if not (self.training and self.sees_all):
            field_BX = field_BX * over_fields(self.kept_M.unsqueeze(0), self.widths)
        weight_BM = self.weights(field_BX)
        if self.training:
            self.statistics(weight_BM.detach())
        return field_BX * over_fields(weight_BM, self.widths)

    def mean_weights(self) -> list[float]:
        """Mean of each field's weight over the last training batches, 0 for one that is not kept; M numbers."""
        return (self.statistics.running_mean * self.kept_M).tolist()

    @torch.no_grad()
    def select(self, num_fields: int) -> None:
        """Keep the `num_fields` fields of the largest mean weight."""
        best = self.statistics.running_mean.topk(num_fields).indices
        self.kept_M.zero_().index_fill_(0, best, 1.0)


class LightSE(nn.Module):
    """IntTower's Light-SE module: k = softmax(W z + b) with z_m the mean of e_m, and e_m + k_m·e_m.

    One layer of M² weights, where squeeze-and-excitation has two; fields compete, and the residual keeps what a weight of nearly 0
    would drop.

    Args:
        widths: of the M fields; their sum is X.
        device: where the parameters live.

    Example::

        LightSE([16, 16, 32])(torch.randn(8, 64))  # [8, 64]
    """

    def __init__(self, widths: list[int], *, device: torch.device | None = None) -> None:
        super().__init__()
        self.widths = widths
        self.excitation = nn.Linear(len(widths), len(widths), device=device)

    def weights(self, field_BX: torch.Tensor) -> torch.Tensor:
        """Each field's k, [B, M]; a row's sum is 1."""
        mean_BM = torch.stack([part.mean(1) for part in field_BX.split(self.widths, dim=1)], dim=1)
        return torch.softmax(self.excitation(mean_BM), dim=1)

    def forward(self, field_BX: torch.Tensor) -> torch.Tensor:
        """Each field by its weight and its residual, [B, X]."""
        return field_BX + field_BX * over_fields(self.weights(field_BX), self.widths)


def over_fields(value_BM: torch.Tensor, widths: list[int]) -> torch.Tensor:
    """Each field's value at each of its columns: [B, M] to [B, X]."""
    columns = value_BM.split(1, dim=1)
    return torch.cat([columns[place].expand(-1, width) for place, width in enumerate(widths)], dim=1)
