"""What every matching model is to models.tasks.MatchingTask and to the export, with the answers that most of them give."""

# B rows, M items, C width of user and item vectors, L places of the padded history (newest last), D width of a behaviour,
# X numbers of noise

from abc import ABC, abstractmethod

import torch
from torch import nn

from models.layers.every_position import at_every_position
from models.layers.padding import valid_places
from models.types import InputDims, ItemInputs, MatchForward, UserInputs, without_cloze


class MatchingModel(nn.Module, ABC):
    """A user tower and an item tower whose vectors meet in a dot product.

    By default it draws no noise, predicts each row's target alone, and an item's vector is its embedding.

    Args:
        dims: widths of the inputs.

    Raises:
        ValueError: the inputs lack a history whose id space the item shares.
    """

    def __init__(self, dims: InputDims) -> None:
        super().__init__()
        if dims.position == 0 or dims.history_len == 0:
            raise ValueError(f"{type(self).__name__} needs a history whose id space the item shares, but the inputs are {dims}")
        self.history_len: int = dims.history_len
        """L."""
        self.predicts_history: bool = False
        """Whether `forward` makes cloze predictions."""
        self.serving_noise_size: int = 0
        """X of user_vectors' noise."""
        self.training_noise_size: int = 0
        """X of forward's noise."""

    def forward(self, users: UserInputs, items: ItemInputs, noise_BX: torch.Tensor, uniform_B: torch.Tensor) -> MatchForward:  # noqa: ARG002  (the contract)
        """User vectors of B rows whose next behaviour is known, and what else is to be learned from them.

        Args:
            users: B rows.
            items: the target of each row.
            noise_BX: standard normal [B, training_noise_size].
            uniform_B: in [0, 1).
        """
        return without_cloze(self.user_vectors(users, noise_BX), uniform_B * 0.0)

    @abstractmethod
    def user_vectors(self, users: UserInputs, noise_BX: torch.Tensor) -> torch.Tensor:
        """The serving form: vectors of B users, [B, C], with standard normal noise [B, serving_noise_size]."""

    @torch.jit.export
    def item_vectors(self, items: ItemInputs) -> torch.Tensor:
        """Vectors of M items, [M, C]: their embeddings."""
        return items.item_BD

    def schedule(self, step: int, steps_per_epoch: int) -> None:
        """Nothing of this model follows the step."""

    def log_values(self) -> dict[str, float]:
        """Nothing of this model is worth a log entry."""
        return {}


class CausalModel(MatchingModel):
    """A matching model whose output at each behaviour sees what is no newer; the newest one's output is the user vector.

    Args:
        dims: widths of the inputs.
        all_positions: whether every behaviour of a history is to be predicted from those before it, beside the target.
    """

    def __init__(self, dims: InputDims, *, all_positions: bool) -> None:
        super().__init__(dims)
        self.predicts_history = all_positions

    def forward(self, users: UserInputs, items: ItemInputs, noise_BX: torch.Tensor, uniform_B: torch.Tensor) -> MatchForward:  # noqa: ARG002  (the contract)
        """User vectors of B rows, and with `all_positions` what finds the behaviours of their histories; see MatchingModel."""
        if not self.predicts_history:
            return without_cloze(self.user_vectors(users, noise_BX), uniform_B * 0.0)
        valid_BL = valid_places(users.history_lengths_B, self.history_len)
        output_BLD = self.outputs(users, valid_BL, self.history_len)
        user_BD = output_BLD[:, -1].masked_fill(~valid_BL[:, -1:], 0.0)
        return at_every_position(user_BD, output_BLD[valid_BL], users.history_lengths_B)

    @torch.jit.export
    def user_vectors(self, users: UserInputs, noise_BX: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  (the contract)
        """The newest behaviours' outputs, [B, D], 0 without a history; the noise [B, 0] is of no use to it."""
        valid_BL = valid_places(users.history_lengths_B, self.history_len)
        return self.outputs(users, valid_BL, 1).squeeze(1).masked_fill(~valid_BL[:, -1:], 0.0)

    @abstractmethod
    def outputs(self, users: UserInputs, valid_BL: torch.Tensor, asking: int) -> torch.Tensor:
        """What comes out at the newest `asking` places, [B, asking, D].

        Args:
            users: B rows.
            valid_BL: bool, places that hold a behaviour.
            asking: places that are looked at.
        """
