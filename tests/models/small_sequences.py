"""Random histories, and changes of them, for the tests of models that read a history alone."""

import copy

import torch

from models.types import InputDims, ItemInputs, MatchForward, UserInputs
from tests.models.synthetic import random_inputs

DIMS = InputDims(profile=3, attributes=0, position=8, history_len=6, context=(("hist_time_lag", 9), ("hist_new_session", 2)))
LENGTHS = [0, 6, 2, 1, 0, 4]
STARTS = [0, 0, 6, 8, 9, 9]
"""First behaviour of each row."""


def histories(lengths: list[int] | None = None, *, seed: int = 0) -> tuple[UserInputs, ItemInputs]:
    lengths = LENGTHS if lengths is None else lengths
    return random_inputs(len(lengths), seed=seed, history_lengths=lengths, dims=DIMS)


def with_another(users: UserInputs, behaviour: int) -> UserInputs:
    """The same rows, one of whose behaviours has another vector."""
    history_JD = users.history_JD.clone()
    history_JD[behaviour] += torch.linspace(-1.5, 2.0, history_JD.shape[1])  # a layer norm would take a plain shift away
    return users._replace(history_JD=history_JD)


def shortened(users: UserInputs, row: int, length: int) -> UserInputs:
    """The oldest `length` behaviours of one row, as a row by itself."""
    start = int(users.history_lengths_B[:row].sum())
    return UserInputs(
        users.profile_BU[row : row + 1],
        users.history_JD[start : start + length],
        torch.tensor([length]),
        users.context_JF[start : start + length],
    )


def trained(model: torch.nn.Module, users: UserInputs, items: ItemInputs, *, seed: int = 0) -> MatchForward:
    """What forward returns, with noise of its own."""
    generator = torch.Generator().manual_seed(seed)
    num_rows = len(users.history_lengths_B)
    noise_BX = torch.randn(num_rows, model.training_noise_size, generator=generator)
    return model(users, items, noise_BX, torch.rand(num_rows, generator=generator))


def served(model: torch.nn.Module, users: UserInputs) -> torch.Tensor:
    """User vectors of a model that needs no noise."""
    assert model.serving_noise_size == 0
    return model.user_vectors(users, torch.empty(len(users.history_lengths_B), 0))


def random_weights(model: torch.nn.Module, *, std: float = 0.4) -> torch.nn.Module:
    """The model in evaluation mode with weights large enough that everything shows in its outputs."""
    generator = torch.Generator().manual_seed(3)
    changed = copy.deepcopy(model).eval()
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return changed
