"""The towers' fully connected layers (FIT eq. 1)."""

# B rows, I input width, C output width

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from models.layers.norm import BatchNorm

Norm = Literal["batch", "layer", "none"]


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """Shape of a tower; both towers of a model share it.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    hidden_dims: tuple[int, ...] = (300, 300, 128)
    """Width of each layer; the last is the tower's output C."""
    norm: Norm = "batch"
    """Between a linear layer and its activation."""
    dropout: float = 0.0
    """Share of activations dropped in training after each layer but the last."""
    last_activation: bool = True
    """Whether the last layer has norm and ReLU too, as eq. 1 says; False ends the tower in its linear map."""

    def __post_init__(self) -> None:
        if not self.hidden_dims or min(self.hidden_dims) < 1:
            raise ValueError(f"TowerConfig.hidden_dims={self.hidden_dims}, expected at least one width, each at least 1")
        if self.norm not in get_args(Norm):
            raise ValueError(f"TowerConfig.norm={self.norm!r}, expected one of {get_args(Norm)}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"TowerConfig.dropout={self.dropout}, expected 0 <= dropout < 1")


class Tower(nn.Module):
    """FIT eq. 1: linear, norm, ReLU, dropout, for each width of the config.

    Args:
        config: the layers.
        input_dim: I.
        device: where the parameters live.

    Example::

        Tower(TowerConfig(), input_dim=80)(torch.randn(2048, 80))  # [2048, 128]
    """

    def __init__(self, config: TowerConfig, *, input_dim: int, device: torch.device | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.ends: list[int] = []
        """Place in `layers` of the last module of each width."""
        for depth, output_dim in enumerate(config.hidden_dims):
            last = depth == len(config.hidden_dims) - 1
            bare = last and not config.last_activation
            # batch norm subtracts a bias again; its own shift is the b of eq. 1
            layers.append(nn.Linear(input_dim, output_dim, bias=bare or config.norm != "batch", device=device))
            if not bare:
                layers += _norm(config.norm, output_dim, device)
                layers.append(nn.ReLU())
            if config.dropout > 0 and not last:
                layers.append(nn.Dropout(config.dropout))
            self.ends.append(len(layers) - 1)
            input_dim = output_dim
        self.layers = nn.Sequential(*layers)

    def forward(self, input_BI: torch.Tensor) -> torch.Tensor:
        """[B, I] to [B, C]."""
        return self.layers(input_BI)

    def every_layer(self, input_BI: torch.Tensor) -> list[torch.Tensor]:
        """What comes out of each width's layers, the first one's first, [B, width] each; the last is what `forward` returns."""
        outputs: list[torch.Tensor] = []
        hidden_BX = input_BI
        for place, layer in enumerate(self.layers):
            hidden_BX = layer(hidden_BX)
            if place in self.ends:
                outputs.append(hidden_BX)
        return outputs


def _norm(norm: Norm, num_channels: int, device: torch.device | None) -> list[nn.Module]:
    if norm == "batch":
        return [BatchNorm(num_channels, device=device)]
    if norm == "layer":
        return [nn.LayerNorm(num_channels, device=device)]
    return []
