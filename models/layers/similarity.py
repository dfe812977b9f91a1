"""Late interaction: scorers that take the two towers' outputs to one logit (FIT section 4.2)."""

# B rows (score: any leading dimensions, which broadcast), C tower width, U user heads, V item heads, H either, P head width,
# D scorer width

import math

import torch
import torch.nn.functional as F
from torch import nn

from kernels.dispatch import uses_triton
from kernels.lss_score import LSSWeights, StoredItems, lss_score, score_stored, unsupported


class ScaledCosine(nn.Module):
    """What makes a logit of a cosine: e^s·(cos + b), learned.

    A bare cosine bounds the logit to [-1, 1] and the cross-entropy to at least 0.313. The scale is learned as a logarithm and the
    bias in units of the cosine, so that steps of 1e-3 move both; they start at 10 and −`start_cosine`.

    Args:
        start_cosine: a cosine whose logit starts at 0: 0.5 fits two ReLU towers, whose cosine is in [0, 1], and 0 signed vectors.
        device: where the parameters live.
    """

    def __init__(self, *, start_cosine: float = 0.5, device: torch.device | None = None) -> None:
        super().__init__()
        self.start_cosine = start_cosine
        self.log_scale = nn.Parameter(torch.empty((), device=device))
        self.bias = nn.Parameter(torch.empty((), device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 10, bias −start_cosine."""
        nn.init.constant_(self.log_scale, math.log(10.0))
        nn.init.constant_(self.bias, -self.start_cosine)

    @torch.jit.export
    def scaled(self, cosine_B: torch.Tensor) -> torch.Tensor:
        """[...] to [...] logits."""
        return self.log_scale.exp() * (cosine_B + self.bias)

    def log_values(self) -> dict[str, float]:
        """Scale and bias."""
        return {"scale": self.log_scale.exp().item(), "bias": self.bias.item()}


def sum_max(user_BUP: torch.Tensor, item_BVP: torch.Tensor) -> torch.Tensor:
    """FIT eq. 10: for each user head the largest dot product with an item head, summed; [..., U, P] and [..., V, P] to [...]."""
    return torch.matmul(user_BUP, item_BVP.transpose(-1, -2)).amax(-1).sum(-1)  # eq. 10


class DotProduct(ScaledCosine):
    """Cosine of the towers' outputs (eq. 2-3) with a learned scale and bias.

    Example::

        scorer = DotProduct()
        scorer(torch.randn(8, 128), torch.randn(8, 128))  # [8]
    """

    @torch.jit.export
    def project_user(self, user_BC: torch.Tensor) -> torch.Tensor:
        """[B, C] to [B, 1, C], L2-normalised (eq. 2)."""
        return F.normalize(user_BC, dim=1, eps=1e-6).unsqueeze(1)

    @torch.jit.export
    def project_item(self, item_BC: torch.Tensor) -> torch.Tensor:
        """[B, C] to [B, 1, C], L2-normalised (eq. 2)."""
        return F.normalize(item_BC, dim=1, eps=1e-6).unsqueeze(1)

    @torch.jit.export
    def score(self, user_B1C: torch.Tensor, item_B1C: torch.Tensor) -> torch.Tensor:
        """[..., 1, C] twice to [...] logits."""
        return self.scaled((user_B1C * item_B1C).sum(-1).squeeze(-1))  # eq. 3

    def forward(self, user_BC: torch.Tensor, item_BC: torch.Tensor) -> torch.Tensor:
        """[B, C] twice to [B] logits."""
        return self.score(self.project_user(user_BC), self.project_item(item_BC))


class MultiHead(nn.Module):
    """Base of the multi-head scorers: eq. 11-12 on the towers' outputs before any L2 norm.

    Args:
        input_dim: C.
        num_user_heads: U, the paper's H_u.
        num_item_heads: V, the paper's H_v.
        head_dim: P.
        device: where the parameters live.
    """

    def __init__(
        self,
        input_dim: int,
        *,
        num_user_heads: int = 2,
        num_item_heads: int = 2,
        head_dim: int = 64,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.user_heads = nn.Linear(input_dim, num_user_heads * head_dim, device=device)
        self.item_heads = nn.Linear(input_dim, num_item_heads * head_dim, device=device)

    @torch.jit.export
    def project_user(self, user_BC: torch.Tensor) -> torch.Tensor:
        """[B, C] to [B, U, P]."""
        return self.user_heads(user_BC).unflatten(1, (-1, self.head_dim))  # eq. 11

    @torch.jit.export
    def project_item(self, item_BC: torch.Tensor) -> torch.Tensor:
        """[B, C] to [B, V, P]."""
        return self.item_heads(item_BC).unflatten(1, (-1, self.head_dim))  # eq. 12


class SumMax(MultiHead):
    """Eq. 10: for each user head the best item head, summed (FIT's "w SumMax" ablation).

    Example::

        scorer = SumMax(128)
        scorer(torch.randn(8, 128), torch.randn(8, 128))  # [8]
    """

    @torch.jit.export
    def score(self, user_BUP: torch.Tensor, item_BVP: torch.Tensor) -> torch.Tensor:
        """[..., U, P] and [..., V, P] to [...] logits."""
        return sum_max(user_BUP, item_BVP)

    def forward(self, user_BC: torch.Tensor, item_BC: torch.Tensor) -> torch.Tensor:
        """[B, C] twice to [B] logits."""
        return self.score(self.project_user(user_BC), self.project_item(item_BC))


class FlattenFC(MultiHead):
    """Eq. 17: a fully connected layer on the flattened similarity matrix (FIT's "w FC" ablation); ReLU between, b3 ∈ R^d.

    Args beyond those of MultiHead: hidden_dim is d, the width of the layer.

    Example::

        scorer = FlattenFC(128)
        scorer(torch.randn(8, 128), torch.randn(8, 128))  # [8]
    """

    def __init__(
        self,
        input_dim: int,
        *,
        num_user_heads: int = 2,
        num_item_heads: int = 2,
        head_dim: int = 64,
        hidden_dim: int = 16,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(input_dim, num_user_heads=num_user_heads, num_item_heads=num_item_heads, head_dim=head_dim, device=device)
        self.hidden = nn.Linear(num_user_heads * num_item_heads, hidden_dim, device=device)
        self.output = nn.Linear(hidden_dim, 1, bias=False, device=device)

    @torch.jit.export
    def score(self, user_BUP: torch.Tensor, item_BVP: torch.Tensor) -> torch.Tensor:
        """[..., U, P] and [..., V, P] to [...] logits."""
        similarity_BX = torch.matmul(user_BUP, item_BVP.transpose(-1, -2)).flatten(-2)
        return self.output(torch.relu(self.hidden(similarity_BX))).squeeze(-1)  # eq. 17

    def forward(self, user_BC: torch.Tensor, item_BC: torch.Tensor) -> torch.Tensor:
        """[B, C] twice to [B] logits."""
        return self.score(self.project_user(user_BC), self.project_item(item_BC))


class LSS(MultiHead):
    """The Lightweight Similarity Scorer, eq. 13-16: row-wise and column-wise layers on the U×V similarity matrix.

    Args beyond those of MultiHead: hidden_dim is d, the width of both layers.

    Example::

        scorer = LSS(128)
        scorer(torch.randn(8, 128), torch.randn(8, 128))  # [8]
    """

    def __init__(
        self,
        input_dim: int,
        *,
        num_user_heads: int = 2,
        num_item_heads: int = 2,
        head_dim: int = 64,
        hidden_dim: int = 16,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(input_dim, num_user_heads=num_user_heads, num_item_heads=num_item_heads, head_dim=head_dim, device=device)
        self.row = nn.Linear(num_item_heads, hidden_dim, device=device)
        self.column = nn.Linear(num_user_heads, hidden_dim, device=device)
        self.output_DD = nn.Parameter(torch.empty(hidden_dim, hidden_dim, device=device))
        self.kernel_backend: str = "auto"
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight w of eq. 16 as nn.Linear initialises a layer with d² inputs."""
        bound = 1 / self.output_DD.shape[0]
        nn.init.uniform_(self.output_DD, -bound, bound)

    @torch.jit.export
    def score(self, user_BUP: torch.Tensor, item_BVP: torch.Tensor) -> torch.Tensor:
        """[..., U, P] and [..., V, P] to [...] logits."""
        return lss_score(
            user_BUP,
            item_BVP,
            self.row.weight,
            self.row.bias,
            self.column.weight,
            self.column.bias,
            self.output_DD,
            self.kernel_backend,
        )  # eq. 13-16

    def picks_in_kernel(self, user_BNUP: torch.Tensor) -> bool:
        """Whether `score_picked` takes these vectors: where a kernel runs, and no gradient is wanted."""
        return uses_triton(self.kernel_backend, user_BNUP, unsupported=unsupported(user_BNUP, self._weights()))

    def score_picked(self, user_BNUP: torch.Tensor, index_BK: torch.Tensor, item_BKVP: torch.Tensor) -> torch.Tensor:
        """As gathering each candidate's user vector by its index and `score`, in one launch: float32 [B, K]."""
        items = StoredItems(item_BKVP.flatten(2).flatten(0, 1), None, index_BK.flatten())
        candidate_BK = torch.arange(index_BK.numel(), device=index_BK.device).view_as(index_BK)
        return score_stored(user_BNUP, items, candidate_BK, self._weights(), self.kernel_backend)

    def _weights(self) -> LSSWeights:
        return LSSWeights(self.row.weight, self.row.bias, self.column.weight, self.column.bias, self.output_DD)

    def forward(self, user_BC: torch.Tensor, item_BC: torch.Tensor) -> torch.Tensor:
        """[B, C] twice to [B] logits."""
        return self.score(self.project_user(user_BC), self.project_item(item_BC))
