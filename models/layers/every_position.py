"""Learning at every position of a history: the model's output at each behaviour is to find the next one (SASRec section III-E)."""

# B rows, J behaviours of all histories, C width of the user vectors, X behaviours that have one before them in their row

import torch

from models.types import MatchForward


def at_every_position(user_BC: torch.Tensor, output_JC: torch.Tensor, lengths_B: torch.Tensor) -> MatchForward:
    """Cloze predictions of all behaviours but the first of each row, each by the output at the behaviour before it.

    Args:
        user_BC: user vectors, the output at each row's newest behaviour, which is to find the target.
        output_JC: a causal model's output at every behaviour.
        lengths_B: int64, behaviours of each row; they sum to J.
    """
    num_behaviours = output_JC.shape[0]
    later_J = torch.ones(num_behaviours + 1, dtype=torch.bool, device=lengths_B.device)
    # a row without behaviours marks the first of the next row, or the place after the last
    later_J = later_J.index_fill(0, torch.cumsum(lengths_B, 0) - lengths_B, False)[:num_behaviours]
    place_X = later_J.nonzero().squeeze(1)
    query_XC = output_JC.index_select(0, place_X - 1)
    return MatchForward(user_BC, torch.zeros_like(user_BC[:, 0]), query_XC, place_X, torch.ones_like(query_XC[:, 0]))
