"""The modules that an artefact holds: towers over plain tensors, around a run's model, that script."""

# B rows, U user features, F context features, H histories, J history positions of a batch, D embedding width, X numbers of noise,
# N meta queries (1 without them), K candidates, M items, I item features, P vector width

import torch
from torch import nn

from kernels.row_noise import normal_of_rows
from models.types import ItemInputs, ItemVectors, UserInputs
from trainer.export.lookups import PooledLookup, SequenceLookup


class PreRankingUsers(nn.Module):
    """A pre-ranking model's users: every vector of each, [B, N, H_u, P]; takes no noise."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, users: UserInputs, noise_BX: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  (as MatchingUsers)
        """[B, N, H_u, P]."""
        return self.model.all_user_vectors(users)


class MatchingUsers(nn.Module):
    """A matching model's users: one vector each, [B, 1, 1, C]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, users: UserInputs, noise_BX: torch.Tensor) -> torch.Tensor:
        """[B, 1, 1, C]."""
        return self.model.user_vectors(users, noise_BX)[:, None, None]


class PreRankingItems(nn.Module):
    """A pre-ranking model's items: query index and vectors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: ItemInputs) -> ItemVectors:
        """Index [M] and [M, H_v, P]."""
        return self.model.item_vectors(items)


class MatchingItems(nn.Module):
    """A matching model's items: one vector each, and an index of 0."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: ItemInputs) -> ItemVectors:
        """Zeros [M] and [M, 1, C]."""
        vector_MC = self.model.item_vectors(items)
        return ItemVectors(torch.zeros(vector_MC.shape[0], dtype=torch.int64, device=vector_MC.device), vector_MC.unsqueeze(1))


class PreRankingScorer(nn.Module):
    """Scores by the model's own late interaction."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, user_BNHP: torch.Tensor, index_BK: torch.Tensor, item_BKHP: torch.Tensor) -> torch.Tensor:
        """Users, and the index and the vectors of K items each, to float32 [B, K]."""
        return self.model.score_candidates(user_BNHP, index_BK, item_BKHP)


class DotScorer(nn.Module):
    """Scores by the dot product, in float64 and rounded once as in models.ranking, so that equal vectors have equal scores."""

    def forward(self, user_B11C: torch.Tensor, index_BK: torch.Tensor, item_BK1C: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """As PreRankingScorer.forward; the index, all 0, is not looked at."""
        return (user_B11C[:, 0].double() * item_BK1C[:, :, 0].double()).sum(2).float()


class VectorUserTower(nn.Module):
    """The user tower over looked-up vectors: what remains where tables are served elsewhere.

    Inputs are those that the model uses. The columns of the others, which it does not look at, are filled with zeros.

    Args:
        users: PreRankingUsers or MatchingUsers.
        profile_column_U: for each user feature of the model its place among the inputs, or their number where it is no input.
        context_column_F: the same for its context features.
        dim: D.
        max_history: most behaviours of a row.
        check_lengths: whether longer histories raise; without, they are not noticed.
    """

    def __init__(
        self,
        users: nn.Module,
        *,
        profile_column_U: torch.Tensor,
        context_column_F: torch.Tensor,
        dim: int,
        max_history: int,
        check_lengths: bool,
    ) -> None:
        super().__init__()
        self.users = users
        self.dim, self.max_history, self.check_lengths = dim, max_history, check_lengths
        self.noise_size: int = getattr(users.model, "serving_noise_size", 0)
        self.register_buffer("profile_column_U", profile_column_U)
        self.register_buffer("context_column_F", context_column_F)

    def forward(
        self,
        user_vectors: torch.Tensor,
        history_vectors: torch.Tensor,
        history_lengths: torch.Tensor,
        context: torch.Tensor,
        noise: torch.Tensor,
    ) -> torch.Tensor:
        """The users' vectors, float32 [B, N, H_u, P].

        Args:
            user_vectors: float [B, sum of widths], mean vector of each user feature that is an input.
            history_vectors: float [J, sum of widths], one row per behaviour, oldest first, row after row of the batch.
            history_lengths: int64 [B], sums to J.
            context: int64 [J, F], ids of the context features that are inputs.
            noise: standard normal, float32 [B, X].

        Raises:
            ValueError: a history is longer than the longest that the model knows.
        """
        if self.check_lengths and bool(((history_lengths < 0) | (history_lengths > self.max_history)).any()):
            raise ValueError(f"a history is longer than {self.max_history} behaviours; send the newest ones")
        num_rows = history_lengths.shape[0]
        given_BUD = user_vectors.reshape(num_rows, user_vectors.shape[1] // self.dim, self.dim)
        profile_BUD = torch.cat([given_BUD, given_BUD.new_zeros(num_rows, 1, self.dim)], dim=1)
        context_JF = torch.cat([context, context.new_zeros(context.shape[0], 1)], dim=1)
        users = UserInputs(
            profile_BUD.index_select(1, self.profile_column_U).flatten(1),
            history_vectors,
            history_lengths,
            context_JF.index_select(1, self.context_column_F),
        )
        return self.users(users, noise)

    @torch.jit.export
    def seeded(
        self,
        user_vectors: torch.Tensor,
        history_vectors: torch.Tensor,
        history_lengths: torch.Tensor,
        context: torch.Tensor,
        row_id: torch.Tensor,
        seed: int,
    ) -> torch.Tensor:
        """As forward, with the noise that belongs to each row's id (int64 [B]) under `seed`."""
        noise = normal_of_rows(row_id, self.noise_size, seed)
        return self.forward(user_vectors, history_vectors, history_lengths, context, noise)


class UserTower(nn.Module):
    """The user tower over ids.

    Args:
        tower: over vectors.
        pooled: of the user features.
        sequence: of the histories that are looked up.
        pair_row_H: rows of history_values that are looked up, in the model's order.
        context_row_F: rows of history_values that reach the model as ids.
    """

    def __init__(
        self,
        tower: VectorUserTower,
        *,
        pooled: PooledLookup,
        sequence: SequenceLookup,
        pair_row_H: torch.Tensor,
        context_row_F: torch.Tensor,
    ) -> None:
        super().__init__()
        self.tower, self.pooled, self.sequence = tower, pooled, sequence
        self.noise_size: int = tower.noise_size
        self.register_buffer("pair_row_H", pair_row_H)
        self.register_buffer("context_row_F", context_row_F)

    def forward(
        self,
        user_values: torch.Tensor,
        user_lengths: torch.Tensor,
        history_values: torch.Tensor,
        history_lengths: torch.Tensor,
        noise: torch.Tensor,
    ) -> torch.Tensor:
        """The users' vectors, float32 [B, N, H_u, P].

        Args:
            user_values: int64, ids of the user features: all rows of the first feature, then all of the second, …
            user_lengths: int64 [U, B], how many of them are each feature's and row's.
            history_values: int64 [H, J], ids of the histories, oldest first, row after row of the batch.
            history_lengths: int64 [B], sums to J.
            noise: standard normal, float32 [B, X].

        Raises:
            ValueError: an id is outside its vocabulary, or a history is too long.
        """
        return self.tower(
            self.pooled(user_values, user_lengths).flatten(1),
            self.sequence(history_values.index_select(0, self.pair_row_H)),
            history_lengths,
            history_values.index_select(0, self.context_row_F).t(),
            noise,
        )

    @torch.jit.export
    def seeded(
        self,
        user_values: torch.Tensor,
        user_lengths: torch.Tensor,
        history_values: torch.Tensor,
        history_lengths: torch.Tensor,
        row_id: torch.Tensor,
        seed: int,
    ) -> torch.Tensor:
        """As forward, with the noise that belongs to each row's id (int64 [B]) under `seed`."""
        noise = normal_of_rows(row_id, self.noise_size, seed)
        return self.forward(user_values, user_lengths, history_values, history_lengths, noise)


class VectorItemTower(nn.Module):
    """The item tower over looked-up vectors.

    Args:
        items: PreRankingItems or MatchingItems.
        attribute_column_I: places of the pooled features among the inputs, in the model's order.
        pair_column_H: places of the features that the histories share.
        dim: D.
    """

    def __init__(self, items: nn.Module, *, attribute_column_I: torch.Tensor, pair_column_H: torch.Tensor, dim: int) -> None:
        super().__init__()
        self.items, self.dim = items, dim
        self.register_buffer("attribute_column_I", attribute_column_I)
        self.register_buffer("pair_column_H", pair_column_H)

    def forward(self, item_vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Float [M, sum of widths], the mean vector of each item feature, to query index int64 [M] and float32 [M, H_v, P]."""
        given_MID = item_vectors.reshape(item_vectors.shape[0], item_vectors.shape[1] // self.dim, self.dim)
        inputs = ItemInputs(
            given_MID.index_select(1, self.attribute_column_I).flatten(1), given_MID.index_select(1, self.pair_column_H).flatten(1)
        )
        index_M, vector_MHP = self.items(inputs)
        return index_M, vector_MHP


class ItemTower(nn.Module):
    """The item tower over ids.

    Args:
        tower: over vectors.
        pooled: of the item features.
    """

    def __init__(self, tower: VectorItemTower, *, pooled: PooledLookup) -> None:
        super().__init__()
        self.tower, self.pooled = tower, pooled

    def forward(self, item_values: torch.Tensor, item_lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids as in UserTower.forward, lengths int64 [I, M], to query index int64 [M] and float32 [M, H_v, P].

        Raises:
            ValueError: an id is outside its vocabulary.
        """
        return self.tower(self.pooled(item_values, item_lengths).flatten(1))
