"""A task is what the trainer steps: embeddings, model and loss in one module."""

# B rows of this rank's batch, K candidates (the targets, then the shared negatives), M items of the catalogue, C vector width,
# J behaviours of all histories, X numbers of noise, or of cloze predictions

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import fx, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dataloaders.batch import Batch, Catalogue
from kernels.dispatch import Backend
from kernels.row_noise import normal_of_rows
from kernels.target_attention import row_index
from models.embeddings import FeatureEmbeddings
from models.losses import binary_cross_entropy, full_softmax, mixed_log_expected_count, sampled_softmax
from models.ranking import ItemsOfUsers, target_ranks
from models.types import ItemInputs, MatchForward, MatchOut, TrainOut, UserInputs

ItemSoftmax = Literal["full", "sampled"]
EVALUATION_SEED = 20_250_401
"""Of the noise in evaluation; the same for every run, so that two runs differ by what they learned alone."""


class PreRankingTask(nn.Module):
    """Score one item per row and learn from its label (FIT eq. 21) and, in training, from the model's further losses.

    The loss is the sum over this rank's rows times world_size over the rows of the global batch, so that averaging gradients over
    ranks gives the mean over the global batch even where ranks have unequal shares, and world size 1 gives the plain mean.

    Args:
        embeddings: ids to vectors.
        model: `forward(users, items, label_B) -> ScoreForward`, `schedule`, `log_values`; its logits don't depend on the labels.
        world_size: ranks whose gradients are averaged.

    Raises:
        ValueError: world_size is below 1.

    Example::

        task = build_task(FITConfig(), schema=schema)
        loss, out = task(batch)
    """

    def __init__(self, embeddings: FeatureEmbeddings, *, model: nn.Module, world_size: int = 1) -> None:
        super().__init__()
        if world_size < 1:
            raise ValueError(f"PreRankingTask(world_size={world_size}), expected at least 1")
        self.embeddings = embeddings
        self.model = model
        self.world_size = world_size

    def forward(self, batch: Batch) -> tuple[torch.Tensor, TrainOut]:
        """The loss (scalar, see above) and the detached outputs."""
        users, items = self.embeddings(batch.pooled, batch.sequence)
        found = self.model(users, items, batch.label_B)
        auxiliary_B = found.auxiliary_B.float() if self.training else torch.zeros_like(batch.label_B)
        total = binary_cross_entropy(found.logit_B, batch.label_B) + auxiliary_B.sum()
        loss = total * (self.world_size / batch.global_rows)
        return loss, TrainOut(loss.detach(), found.logit_B.detach().float(), auxiliary_B.detach(), batch.label_B, batch.row_id_B)


@dataclass(frozen=True, kw_only=True)
class MatchingLossConfig:
    """The softmax over the catalogue that all matching models learn from (T2Diff eq. 24), and what ranks in evaluation.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    item_softmax: ItemSoftmax = "full"
    """`full`: exact, every item is a candidate; tables are replicated. `sampled`: the other rows' targets and the loader's shared
    negatives (`loader.negatives.kind shared`) are candidates, with logQ correction; for sharded tables and large catalogues."""
    chunk_items: int = 1024
    """Items whose scores are held at once; a CPU is fastest with 256 to 1024, a GPU with more."""
    mask_history: bool = False
    """Whether the items of a row's own history are left out of its ranking in evaluation; False: they compete with the target."""

    def __post_init__(self) -> None:
        if self.item_softmax not in get_args(ItemSoftmax):
            raise ValueError(f"MatchingLossConfig.item_softmax={self.item_softmax!r}, expected one of {get_args(ItemSoftmax)}")
        if self.chunk_items < 1:
            raise ValueError(f"MatchingLossConfig.chunk_items={self.chunk_items}, expected at least 1")


class MatchingTask(nn.Module):
    """Tell each row's next item from all others; in evaluation, rank it among them.

    The loss is scaled as in PreRankingTask. With a sampled softmax a rank's candidates are those of its own rows. Evaluation needs
    `encode_catalogue` first; its noise is a function of the row alone, so that ranks and batch sizes change no metric.

    Args:
        embeddings: ids to vectors.
        model: `forward(users, items, noise_BX, uniform_B) -> MatchForward`, `user_vectors`, `item_vectors`, `schedule`,
            `log_values`, `training_noise_size`, `serving_noise_size`, `predicts_history` (whether it makes cloze predictions).
        catalogue: every item.
        item_key: the feature with the target's id, a sequence feature.
        config: the loss.
        world_size: ranks whose gradients are averaged.

    Raises:
        ValueError: world_size is below 1, the item's id is no sequence feature, or a model with cloze predictions is to use the
            sampled softmax.

    Example::

        task = build_task(T2DiffConfig(), schema=schema, catalogue=read_catalogue(folder, schema))
        loss, out = task(batch)
    """

    def __init__(
        self,
        embeddings: FeatureEmbeddings,
        *,
        model: nn.Module,
        catalogue: Catalogue,
        item_key: str,
        config: MatchingLossConfig,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        if world_size < 1:
            raise ValueError(f"MatchingTask(world_size={world_size}), expected at least 1")
        self.embeddings, self.model, self.config, self.world_size = embeddings, model, config, world_size
        if config.item_softmax != "full" and model.predicts_history:
            raise ValueError(
                f"{type(model).__name__} predicts behaviours of the history too, and the candidates of item_softmax="
                f"{config.item_softmax!r} are those of the rows' targets: use --model.loss.item-softmax full"
            )
        self._item_key = item_key
        self.kernel_backend: Backend = "auto"
        self.leaks_target = False
        """Evaluation with the training form of the user tower, which may see the target: what the leak check compares with."""
        self.seen_items: tuple[str, ItemsOfUsers] | None = None
        """Name of the user's feature, and items of each user that are left out of its rankings in evaluation, whatever its history;
        None: as `config.mask_history` says."""
        self._history_key = embeddings.history_of(item_key)
        self._pooled_keys, self._sequence_keys = catalogue.pooled.keys(), catalogue.sequence.keys()
        # buffers, so that they follow the module to its device; data, so no part of a checkpoint
        self.register_buffer("_pooled_ids", catalogue.pooled.values(), persistent=False)
        self.register_buffer("_pooled_lengths", catalogue.pooled.lengths(), persistent=False)
        self.register_buffer("_sequence_ids", catalogue.sequence.values(), persistent=False)
        self.register_buffer("_sequence_lengths", catalogue.sequence.lengths(), persistent=False)
        self.register_buffer("_log_q_M", catalogue.log_q_M, persistent=False)
        self._item_MC: torch.Tensor | None = None

    def forward(self, batch: Batch) -> tuple[torch.Tensor, MatchOut]:
        """The loss (scalar, see above) and the detached outputs.

        Raises:
            RuntimeError: in evaluation before `encode_catalogue`.
        """
        users, items = self.embeddings(batch.pooled, batch.sequence)
        num_rows = batch.num_rows
        users = _rows(users, num_rows)
        candidate_K = batch.sequence[self._item_key].values()
        target_B = candidate_K[:num_rows]
        targets = ItemInputs(items.attributes_BA[:num_rows], items.item_BD[:num_rows])
        if not self.training:
            loss_B, rank_B = self._ranked(users, targets, target_B, batch)
            auxiliary_B = torch.zeros_like(loss_B)
        else:
            # methods of a tensor, since torch.randn takes none of the symbols that TorchRec's pipeline traces this with
            noise_BX = items.item_BD.new_empty((num_rows, self.model.training_noise_size)).normal_()
            found = self.model(users, targets, noise_BX, items.item_BD.new_empty(num_rows).uniform_())
            rank_B, auxiliary_B = torch.zeros_like(target_B), found.auxiliary_B
            if self.config.item_softmax == "full":
                loss_B, cloze_B = self._full_losses(found, target_B, users, batch.sequence[self._history_key].values())
                auxiliary_B = auxiliary_B + cloze_B
            else:
                loss_B = _sampled_loss(found.user_BC, self.model.item_vectors(items), candidate_K, self._log_q_M)
        loss = (loss_B.sum() + auxiliary_B.sum()) * (self.world_size / batch.global_rows)
        return loss, MatchOut(loss.detach(), loss_B.detach(), auxiliary_B.detach(), rank_B)

    def _full_losses(
        self, found: MatchForward, target_B: torch.Tensor, users: UserInputs, history_id_J: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Softmax loss of each row's target, and its weighted cloze losses summed up, in one pass over the catalogue; [B] each."""
        query_XC = torch.cat([found.user_BC, found.cloze_XC])
        cloze_id_X = torch.cat([history_id_J, target_B]).index_select(0, found.cloze_place_X)
        target_X = torch.cat([target_B, cloze_id_X])
        loss_X = self._full_softmax(query_XC, self._catalogue_vectors(), target_X)
        num_rows = target_B.shape[0]
        row_J = row_index(users.history_lengths_B, history_id_J.shape[0])
        row_X = torch.cat([row_J, torch.arange(num_rows, device=row_J.device)]).index_select(0, found.cloze_place_X)
        cloze_X = loss_X[num_rows:] * found.cloze_weight_X
        return loss_X[:num_rows], cloze_X.new_zeros(num_rows).index_add(0, row_X, cloze_X)

    @property
    def num_items(self) -> int:
        """M."""
        return len(self._log_q_M)

    def train(self, mode: bool = True) -> "MatchingTask":
        """As nn.Module.train; training forgets the catalogue's vectors, which its first step makes stale."""
        if mode:
            self._item_MC = None
        return super().train(mode)

    @torch.no_grad()
    def encode_catalogue(self) -> torch.Tensor:
        """e_i of every item by the current weights, [M, C], kept for evaluation; a collective call where tables are sharded.

        Raises:
            RuntimeError: in training mode, whose item vectors are not those that are served.
        """
        if self.training:
            raise RuntimeError("encode_catalogue is for evaluation mode: call eval() first")
        self._item_MC = self._catalogue_vectors()
        return self._item_MC

    def user_vectors(self, batch: Batch) -> torch.Tensor:
        """e_u of the batch's rows in the serving form, [B, C]."""
        users, _ = self.embeddings(batch.pooled, batch.sequence)
        return self._serve(_rows(users, batch.num_rows), batch)

    def _serve(self, users: UserInputs, batch: Batch) -> torch.Tensor:
        noise_BX = normal_of_rows(batch.row_id_B, self.model.serving_noise_size, seed=EVALUATION_SEED)
        return self.model.user_vectors(users, noise_BX)

    def _full_softmax(self, user_BC: torch.Tensor, item_MC: torch.Tensor, target_B: torch.Tensor) -> torch.Tensor:
        return full_softmax(user_BC, item_MC, target_B, chunk_items=self.config.chunk_items, backend=self.kernel_backend)

    def _catalogue_vectors(self) -> torch.Tensor:
        """[M, C]."""
        stride = self.num_items
        pooled = KeyedJaggedTensor(self._pooled_keys, self._pooled_ids, lengths=self._pooled_lengths, stride=stride)
        sequence = KeyedJaggedTensor(self._sequence_keys, self._sequence_ids, lengths=self._sequence_lengths, stride=stride)
        _, items = self.embeddings(pooled, sequence)
        return self.model.item_vectors(items)

    def _ranked(
        self, users: UserInputs, targets: ItemInputs, target_B: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and rank of each row's target among all items."""
        if self._item_MC is None:
            raise RuntimeError("MatchingTask evaluates against item vectors: call encode_catalogue() after eval()")
        if self.leaks_target:
            noise_BX = normal_of_rows(batch.row_id_B, self.model.training_noise_size, seed=EVALUATION_SEED)
            # in float64, where no normal number rounds to a probability of 1, which picks no step
            uniform_B = torch.special.ndtr(normal_of_rows(batch.row_id_B, 1, seed=EVALUATION_SEED + 1).squeeze(1).double())
            user_BC = self.model(users, targets, noise_BX, uniform_B).user_BC
        else:
            user_BC = self._serve(users, batch)
        loss_B = self._full_softmax(user_BC, self._item_MC, target_B)
        item_J, length_B = self._left_out(batch)
        return loss_B, target_ranks(user_BC, self._item_MC, target_B, seen_ids_J=item_J, seen_lengths_B=length_B)

    def _left_out(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor] | tuple[None, None]:
        """Items that do not compete, [J], and how many are each row's, [B]."""
        if self.seen_items is not None:
            user_key, items = self.seen_items
            return items.of(batch.pooled[user_key].values()[: batch.num_rows])
        if not self.config.mask_history:
            return None, None
        history = batch.sequence[self._history_key]
        return history.values(), history.lengths()[: batch.num_rows]


def _sampled_loss(
    user_BC: torch.Tensor, candidate_KC: torch.Tensor, candidate_K: torch.Tensor, log_q_M: torch.Tensor
) -> torch.Tensor:
    """Sampled softmax: the targets of this rank's rows and the shared negatives behind them are everybody's candidates; [B]."""
    num_rows = user_BC.shape[0]
    log_count_K = mixed_log_expected_count(
        candidate_K, log_q_M, num_in_batch=num_rows - 1, num_uniform=candidate_K.shape[0] - num_rows
    )
    return sampled_softmax(
        user_BC,
        candidate_KC[:num_rows],
        candidate_KC,
        target_B=candidate_K[:num_rows],
        candidate_K=candidate_K,
        log_expected_count_K=log_count_K,
    )


# TorchRec's pipeline traces the task with symbols to find its lookups; checks of numbers have to stay out of that
fx.wrap("_sampled_loss")


def _rows(users: UserInputs, num_rows: int) -> UserInputs:
    """Without the item-only rows at the end, whose histories are empty."""
    return UserInputs(users.profile_BU[:num_rows], users.history_JD, users.history_lengths_B[:num_rows], users.context_JF)
