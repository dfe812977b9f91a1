"""What becomes of a user's history: mean pooling (FIT eq. 18) or DIN's activation unit (eq. 19)."""

# B rows, J history positions of the batch, D width of a position, C and E hidden widths, N queries

import math

import torch
from torch import nn

from kernels.target_attention import AttentionWeights, first_layer, row_index, target_attention, target_attention_all, weighted_sum
from models.layers.norm import Dice


def mean_pool(history_JD: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
    """Eq. 18, the mean of each row's history: [J, D] and int64 [B] to [B, D]; 0 for an empty history."""
    row_J = row_index(lengths_B, history_JD.shape[0])
    weight_J = lengths_B.index_select(0, row_J).to(history_JD.dtype).reciprocal()
    return weighted_sum(history_JD, weight_J, row_J, lengths_B.shape[0])


class DinUnit(nn.Module):
    """DIN's weighted pooling of the history by a query (eq. 19): raw weights a(e, q) from an MLP on [e, q, e − q, e∘q].

    Args:
        dim: D.
        hidden_dims: C and E; FIT's attention has 64 and 16 units.
        device: where the parameters live.

    Example::

        unit = DinUnit(32)
        unit(torch.randn(5, 32), torch.tensor([2, 0, 3]), torch.randn(3, 32))  # [3, 32]; row 1 is 0
    """

    def __init__(self, dim: int, *, hidden_dims: tuple[int, int] = (64, 16), device: torch.device | None = None) -> None:
        super().__init__()
        width1, width2 = hidden_dims
        self.weight1_C4D = nn.Parameter(torch.empty(width1, 4 * dim, device=device))
        self.bias1_C = nn.Parameter(torch.empty(width1, device=device))
        self.dice1 = Dice(width1, device=device)
        self.linear2 = nn.Linear(width1, width2, device=device)
        self.dice2 = Dice(width2, device=device)
        self.linear3 = nn.Linear(width2, 1, device=device)
        self.kernel_backend: str = "auto"
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The first layer as nn.Linear initialises it."""
        nn.init.kaiming_uniform_(self.weight1_C4D, a=math.sqrt(5))
        bound = 1 / math.sqrt(self.weight1_C4D.shape[1])
        nn.init.uniform_(self.bias1_C, -bound, bound)

    def weights(self) -> AttentionWeights:
        """The network with its running statistics, for the kernel."""
        return AttentionWeights(
            self.weight1_C4D,
            self.bias1_C,
            self.dice1.weights(),
            self.linear2.weight,
            self.linear2.bias,
            self.dice2.weights(),
            self.linear3.weight,
            self.linear3.bias,
        )

    def forward(self, history_JD: torch.Tensor, lengths_B: torch.Tensor, query_BD: torch.Tensor) -> torch.Tensor:
        """History [J, D] with int64 lengths [B] and one query per row [B, D] to [B, D]; exactly 0 for an empty history."""
        if not self.training:
            return target_attention(history_JD, lengths_B, query_BD, self.weights(), self.kernel_backend)
        # batch statistics need the whole batch (of all ranks) between the layers, so training goes layer by layer
        row_J = row_index(lengths_B, history_JD.shape[0])
        hidden_JC = first_layer(history_JD, query_BD, row_J, self.weight1_C4D, self.bias1_C)
        hidden_JE = self.linear2(self.dice1(hidden_JC))
        weight_J = self.linear3(self.dice2(hidden_JE)).squeeze(1)
        return weighted_sum(history_JD, weight_J, row_J, lengths_B.shape[0])

    @torch.jit.export
    def all_queries(self, history_JD: torch.Tensor, lengths_B: torch.Tensor, query_ND: torch.Tensor) -> torch.Tensor:
        """Every row against every query, with running statistics: [J, D], int64 [B], [N, D] to [B, N, D]."""
        return target_attention_all(history_JD, lengths_B, query_ND, self.weights(), self.kernel_backend)
