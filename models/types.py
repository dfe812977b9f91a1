"""The NamedTuples of plain tensors that cross the model boundary; they script, and export and C++ see the same shapes."""

# B rows, J all history positions of the batch (jagged), D embedding width of one position (all its attributes), F context features,
# U width of the pooled user features, A width of the pooled item features, N meta queries (1 without them), H heads, P head width,
# X cloze predictions

from dataclasses import dataclass
from typing import NamedTuple

import torch


class UserInputs(NamedTuple):
    """What the user tower sees of B users, embeddings already looked up."""

    profile_BU: torch.Tensor
    """float [B, U]: pooled user features, concatenated in schema order."""
    history_JD: torch.Tensor
    """float [J, D]: one vector per past behaviour, oldest first, rows one after another."""
    history_lengths_B: torch.Tensor
    """int64 [B]: behaviours of each row; sums to J; 0 for a new user."""
    context_JF: torch.Tensor
    """int64 [J, F]: ids of the history features that no item feature answers to (e.g. time lag), in schema order; F may be 0."""


class ItemInputs(NamedTuple):
    """What the item tower sees of B items, embeddings already looked up."""

    attributes_BA: torch.Tensor
    """float [B, A]: pooled item features (e.g. genres), concatenated in schema order; A may be 0."""
    item_BD: torch.Tensor
    """float [B, D]: e_c of FIT eq. 4, the item's attributes that behaviours have too, in the history's order."""


class ItemVectors(NamedTuple):
    """What the item store keeps of B items (FIT section 4.3.2)."""

    index_B: torch.Tensor
    """int64 [B]: eq. 8, the item's row among a user's N vectors; 0 for models without meta queries."""
    item_BHP: torch.Tensor
    """float [B, H, P]: the item's vector for the scorer."""


class ScoreForward(NamedTuple):
    """What a pre-ranking model returns for rows of a user and an item."""

    logit_B: torch.Tensor
    """float [B]."""
    auxiliary_B: torch.Tensor
    """float [B]: each row's further losses with their weights, e.g. λ_1·L_u + λ_2·L_v + λ_3·L_CA of DAT; 0 without any. What is one
    number for a batch is that number in each of its rows, so that the mean over rows is it again."""


def without_auxiliary(logit_B: torch.Tensor) -> ScoreForward:
    """What a model returns that learns from its logits alone."""
    return ScoreForward(logit_B, torch.zeros_like(logit_B))


class MatchForward(NamedTuple):
    """What a matching model returns in training."""

    user_BC: torch.Tensor
    """float [B, C]: e_u of T2Diff eq. 22."""
    auxiliary_B: torch.Tensor
    """float [B]: each row's further losses with their weights, e.g. λ·L_KL of T2Diff eq. 25; 0 without any."""
    cloze_XC: torch.Tensor
    """float [X, C]: queries for behaviours of the history, as for the hidden ones in BERT4Rec, or for the targets once more, as by
    ContrastVAE's second view; X may be 0."""
    cloze_place_X: torch.Tensor
    """int64 [X]: what each of them is to find: one of the J behaviours of history_JD, or, at J + b, the target of row b."""
    cloze_weight_X: torch.Tensor
    """float [X]: what each one's softmax loss counts beside its row's own, which counts 1."""


def without_cloze(user_BC: torch.Tensor, auxiliary_B: torch.Tensor) -> MatchForward:
    """What a model returns that predicts each row's target alone."""
    none_X = auxiliary_B[:0]
    return MatchForward(user_BC, auxiliary_B, user_BC[:0], none_X.long(), none_X)


class MatchOut(NamedTuple):
    """What MatchingTask returns beside the loss; detached."""

    loss: torch.Tensor
    """float32 scalar: this rank's part of the global batch's mean loss, times the world size (what is backpropagated)."""
    softmax_loss_B: torch.Tensor
    """float32 [B]: T2Diff eq. 24 of each row."""
    auxiliary_B: torch.Tensor
    """float32 [B]: the model's further losses, those of its cloze predictions among them; 0 in evaluation."""
    rank_B: torch.Tensor
    """int64 [B]: place of the target among all items, from 1, ties counted against the model; 0 in training."""


class TrainOut(NamedTuple):
    """What PreRankingTask returns beside the loss; detached."""

    loss: torch.Tensor
    """float32 scalar: this rank's part of the global batch's mean loss, times the world size (what is backpropagated)."""
    logit_B: torch.Tensor
    """float32 [B]."""
    auxiliary_B: torch.Tensor
    """float32 [B]: the model's further losses; 0 in evaluation."""
    label_B: torch.Tensor
    """float32 [B]."""
    row_id_B: torch.Tensor
    """int64 [B]."""


@dataclass(frozen=True, kw_only=True)
class InputDims:
    """Widths of the tensors in UserInputs and ItemInputs; they follow from the schema and the embedding dimension.

    Raises:
        ValueError: a width is negative, or fields are not as wide as their tensor.
    """

    profile: int
    """U of profile_BU."""
    attributes: int
    """A of attributes_BA; 0 when every item feature is shared with the history."""
    position: int
    """D of history_JD and item_BD; 0 without a history."""
    history_len: int = 0
    """Most behaviours of a row."""
    context: tuple[tuple[str, int], ...] = ()
    """(name, number of ids) of each column of context_JF."""
    profile_fields: tuple[tuple[str, int], ...] = ()
    """(user feature, width) of the columns of profile_BU, in their order; () where they are not known, which no data set's are."""
    attribute_fields: tuple[tuple[str, int], ...] = ()
    """The same of attributes_BA."""
    position_fields: tuple[tuple[str, int], ...] = ()
    """The same of item_BD and history_JD; the name is the item feature's."""

    def __post_init__(self) -> None:
        for name in ("profile", "attributes", "position", "history_len"):
            if getattr(self, name) < 0:
                raise ValueError(f"InputDims.{name}={getattr(self, name)}, expected at least 0")
        for name, width in (("profile", self.profile), ("attribute", self.attributes), ("position", self.position)):
            fields = getattr(self, f"{name}_fields")
            if fields and sum(field_width for _, field_width in fields) != width:
                raise ValueError(f"InputDims.{name}_fields={fields}, expected widths that sum up to {width}")

    @property
    def user_fields(self) -> tuple[tuple[str, int], ...]:
        """(name, width) of profile_BU's fields and then of the pooled history's; ValueError where the fields are not known."""
        self._check_known("profile", self.profile, self.profile_fields)
        self._check_known("position", self.position, self.position_fields)
        return (*self.profile_fields, *((f"history of {name}", width) for name, width in self.position_fields))

    @property
    def item_fields(self) -> tuple[tuple[str, int], ...]:
        """(name, width) of attributes_BA's fields and then of item_BD's; ValueError where the fields are not known."""
        self._check_known("attribute", self.attributes, self.attribute_fields)
        self._check_known("position", self.position, self.position_fields)
        return (*self.attribute_fields, *self.position_fields)

    def _check_known(self, name: str, width: int, fields: tuple[tuple[str, int], ...]) -> None:
        if width > 0 and not fields:
            raise ValueError(f"InputDims.{name}_fields=(), but the model weights fields: name those of the {width} columns")

    def context_column(self, wanted: str | None, *, named_by: str, without: str) -> int:
        """The column of context_JF with history feature `wanted`, -1 for None.

        Args:
            wanted: its name.
            named_by: the config field that names it.
            without: what the config has to say to do without it.

        Raises:
            ValueError: there is no such column.
        """
        if wanted is None:
            return -1
        names = [name for name, _ in self.context]
        if wanted not in names:
            raise ValueError(
                f"{named_by}={wanted!r} is no history feature of the inputs, which have {names}; "
                f"prepare the data with it, name another one, or do without ({without})"
            )
        return names.index(wanted)
