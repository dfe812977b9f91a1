"""Tiny schemas with every kind of feature, random batches and catalogues of them, and random inputs of a model."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dataloaders.batch import Batch, Catalogue
from dataloaders.schema import Feature, Schema
from models import ModelSpec, build_task
from models.embeddings import EmbeddingConfig
from models.tasks import MatchingLossConfig, MatchingTask, PreRankingTask
from models.types import InputDims, ItemInputs, MatchOut, TrainOut, UserInputs

SCHEMA = Schema(
    name="synthetic",
    features=(
        Feature(name="user", side="user", space="user", vocab_size=50),
        Feature(name="tags", side="user", space="tag", vocab_size=7, max_len=3, min_len=0),
        Feature(name="hist_item", side="history", space="item", vocab_size=40, max_len=6, min_len=0),
        Feature(name="hist_category", side="history", space="category", vocab_size=9, max_len=6, min_len=0),
        Feature(name="hist_time_lag", side="history", space="time_lag", vocab_size=5, max_len=6, min_len=0),
        Feature(name="item", side="item", space="item", vocab_size=40),
        Feature(name="category", side="item", space="category", vocab_size=9),
        Feature(name="shop", side="item", space="shop", vocab_size=11),
        Feature(name="item_tags", side="item", space="tag", vocab_size=7, max_len=3, min_len=1),
    ),
    user_key="user",
    item_key="item",
)
NEXT_ITEM_SCHEMA = dataclasses.replace(
    SCHEMA,
    name="synthetic/next_item",
    features=(
        *[dataclasses.replace(feature, max_len=12) if feature.side == "history" else feature for feature in SCHEMA.features],
        Feature(name="hist_new_session", side="history", space="new_session", vocab_size=2, max_len=12, min_len=0),
        Feature(name="hist_time_gap", side="history", space="time_gap", vocab_size=40, max_len=12, min_len=0),
    ),
    task="next_item",
)


def random_batch(
    num_rows: int,
    *,
    seed: int = 0,
    schema: Schema = SCHEMA,
    history_lengths: list[int] | None = None,
    shared_items: int = 0,
) -> Batch:
    """Random ids, random labels; histories of the given lengths, else random ones; `shared_items` item-only rows follow."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(feature.max_len for feature in schema.side("history"))
    lengths = _history_lengths(num_rows, longest, generator, history_lengths)
    return Batch(
        pooled=_jagged(schema.pooled_features, lengths, generator, shared_items),
        sequence=_jagged(schema.sequence_features, lengths, generator, shared_items),
        label_B=torch.randint(0, 2, (num_rows,), generator=generator).float(),
        row_id_B=torch.arange(num_rows),
        global_rows=torch.tensor(num_rows),
    )


def catalogue_of(schema: Schema = NEXT_ITEM_SCHEMA) -> Catalogue:
    """Every item once, in the order of the ids; its other features, and how often it is chosen, are random."""
    generator = torch.Generator().manual_seed(0)
    num_items = schema.feature(schema.item_key).vocab_size
    no_history = torch.zeros(0, dtype=torch.int64)
    sequence = _jagged(schema.sequence_features, no_history, generator, num_items)
    sequence[schema.item_key].values().copy_(torch.arange(num_items))  # a view of the values of all features
    share_M = torch.rand(num_items, generator=generator) + 0.1
    return Catalogue(
        pooled=_jagged(schema.pooled_features, no_history, generator, num_items),
        sequence=sequence,
        log_q_M=(share_M / share_M.sum()).log(),
    )


def _history_lengths(num_rows: int, longest: int, generator: torch.Generator, given: list[int] | None) -> torch.Tensor:
    if given is None:
        return torch.randint(0, longest + 1, (num_rows,), generator=generator)
    return torch.tensor(given, dtype=torch.int64)


def _jagged(
    features: tuple[Feature, ...], history_lengths: torch.Tensor, generator: torch.Generator, item_only: int
) -> KeyedJaggedTensor:
    num_rows = len(history_lengths)
    values, counts = [], []
    for feature in features:
        count = torch.randint(feature.min_len, feature.max_len + 1, (num_rows,), generator=generator)
        count = history_lengths if feature.side == "history" else count
        if item_only:
            more = torch.randint(feature.min_len, feature.max_len + 1, (item_only,), generator=generator)
            count = torch.cat([count, more if feature.side == "item" else torch.zeros_like(more)])
        counts.append(count)
        values.append(torch.randint(0, feature.vocab_size, (int(count.sum()),), generator=generator))
    return KeyedJaggedTensor(
        keys=[feature.name for feature in features],
        values=torch.cat(values),
        lengths=torch.cat(counts).to(torch.int32),
        stride=num_rows + item_only,
    )


def take(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some rows of a batch, in that order, as a batch of their own."""

    def jagged(source: KeyedJaggedTensor) -> KeyedJaggedTensor:
        parts = {name: feature.to_dense() for name, feature in source.to_dict().items()}
        taken = [parts[name][row] for name in source.keys() for row in rows]  # noqa: SIM118  (a KeyedJaggedTensor is no dict)
        lengths = torch.tensor([len(ids) for ids in taken], dtype=torch.int32)
        values = torch.cat([*taken, torch.zeros(0, dtype=torch.int64)])
        return KeyedJaggedTensor(keys=source.keys(), values=values, lengths=lengths, stride=len(rows))

    return Batch(
        pooled=jagged(batch.pooled),
        sequence=jagged(batch.sequence),
        label_B=batch.label_B[list(rows)],
        row_id_B=batch.row_id_B[list(rows)],
        global_rows=torch.tensor(len(rows)),
    )


DIMS = InputDims(
    profile=32,
    attributes=16,
    position=32,
    history_len=6,
    context=(("hist_time_lag", 5),),
    profile_fields=(("user", 16), ("tags", 16)),
    attribute_fields=(("shop", 16),),
    position_fields=(("item", 16), ("category", 16)),
)


def random_inputs(
    num_rows: int, *, seed: int = 0, history_lengths: list[int] | None = None, dims: InputDims = DIMS
) -> tuple[UserInputs, ItemInputs]:
    """Random vectors and context of widths `dims`."""
    generator = torch.Generator().manual_seed(seed)
    lengths = _history_lengths(num_rows, dims.history_len, generator, history_lengths)
    num_positions = int(lengths.sum())
    users = UserInputs(
        torch.randn(num_rows, dims.profile, generator=generator),
        torch.randn(num_positions, dims.position, generator=generator),
        lengths,
        torch.cat([torch.randint(0, size, (num_positions, 1), generator=generator) for _, size in dims.context], dim=1),
    )
    items = ItemInputs(
        torch.randn(num_rows, dims.attributes, generator=generator), torch.randn(num_rows, dims.position, generator=generator)
    )
    return users, items


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    """What the models that one task class trains are tested with."""

    schema: Schema
    embeddings: EmbeddingConfig
    dims: InputDims
    """Of random_inputs for the bare model."""

    def batch(self, num_rows: int, *, seed: int = 0, history_lengths: list[int] | None = None, shared_items: int = 0) -> Batch:
        """Random rows of the kind's schema."""
        return random_batch(num_rows, seed=seed, schema=self.schema, history_lengths=history_lengths, shared_items=shared_items)


KINDS = {
    PreRankingTask: TaskKind(schema=SCHEMA, embeddings=EmbeddingConfig(dim=16), dims=DIMS),
    # the defaults of matching models are for item vectors of width 32 without pooled item features
    MatchingTask: TaskKind(
        schema=NEXT_ITEM_SCHEMA,
        embeddings=EmbeddingConfig(
            dim=16,
            init_std=0.1,
            features=(
                "user",
                "item",
                "category",
                *(f"hist_{name}" for name in ("item", "category", "time_lag", "new_session", "time_gap")),
            ),
        ),
        dims=InputDims(
            profile=16,
            attributes=0,
            position=32,
            history_len=12,
            context=(("hist_time_lag", 5), ("hist_new_session", 2), ("hist_time_gap", 40)),
        ),
    ),
}


def build(
    spec: ModelSpec, *, loss: MatchingLossConfig | None = None, device: torch.device | None = None
) -> PreRankingTask | MatchingTask:
    """The task of a model with its defaults; `loss` is another one for a matching model."""
    kind = KINDS[spec.task_class]
    config = spec.config_class() if loss is None else spec.config_class(loss=loss)
    catalogue = catalogue_of(kind.schema) if spec.task_class is MatchingTask else None
    return build_task(config, schema=kind.schema, embeddings=kind.embeddings, catalogue=catalogue, device=device)


def call(spec: ModelSpec, model: nn.Module, users: UserInputs, items: ItemInputs) -> tuple[torch.Tensor, ...]:
    """What the model returns for rows with a target; noise and dropout are the same in every call."""
    torch.manual_seed(0)
    if spec.task_class is PreRankingTask:
        return tuple(model(users, items, torch.arange(items.item_BD.shape[0]) % 2.0))
    num_rows = items.item_BD.shape[0]
    return tuple(model(users, items, torch.randn(num_rows, model.training_noise_size), torch.rand(num_rows)))


def unused_tables(spec: ModelSpec) -> tuple[str, ...]:
    """How the names of those tables begin that a task has and its model leaves alone: user features, for one of histories alone."""
    kind = KINDS[spec.task_class]
    users, items = random_inputs(4, dims=kind.dims)
    users = users._replace(profile_BU=users.profile_BU.requires_grad_())
    outputs = call(spec, spec.model_class(spec.config_class(), dims=kind.dims), users, items)
    sum(tensor.square().sum() for tensor in outputs if tensor.requires_grad).backward()
    return ("embeddings.pooled.",) if users.profile_BU.grad is None else ()


def predicts_history(spec: ModelSpec) -> bool:
    """Whether a model makes cloze predictions by its defaults, for which it needs the full softmax."""
    if spec.task_class is PreRankingTask:
        return False
    dims = KINDS[spec.task_class].dims
    return spec.model_class(spec.config_class(), dims=dims, device=torch.device("meta")).predicts_history


def evaluate(task: PreRankingTask | MatchingTask, batch: Batch) -> TrainOut | MatchOut:
    """The task's outputs in evaluation."""
    task.eval()
    if isinstance(task, MatchingTask):
        task.encode_catalogue()
    with torch.no_grad():
        return task(batch)[1]


def random_statistics(module: nn.Module, *, seed: int = 0) -> nn.Module:
    """`module` in evaluation mode with batch statistics and Dice slopes away from their start, so that tests see them."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in list(module.named_buffers()) + list(module.named_parameters()):
        if name.endswith("running_mean"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
        elif name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif name.endswith("alpha_C"):
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * 0.5)
    return module.eval()
