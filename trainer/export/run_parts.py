"""A loaded run as the exporter sees it: model, tables, and which inputs the model looks at."""

# B rows, J history positions, U user features, F context features, D embedding width, X numbers of noise

from typing import NamedTuple

import torch
from torch import nn

from dataloaders.schema import Feature, Schema
from models.embeddings import FeatureEmbeddings, InputColumns
from models.tasks import EVALUATION_SEED, MatchingTask
from models.types import InputDims, UserInputs
from trainer.errors import UserError
from trainer.evaluation import LoadedRun
from trainer.export.signature import InputFeature, StoreContent, Task, UserSignature
from trainer.export.towers import (
    DotScorer,
    MatchingItems,
    MatchingUsers,
    PreRankingItems,
    PreRankingScorer,
    PreRankingUsers,
)
from trainer.tables import find_tables

PROBE_ROWS = 16
NEEDED = {"pre_ranking": ("all_user_vectors", "item_vectors", "score_candidates"), "matching": ("user_vectors", "item_vectors")}


class RunParts(NamedTuple):
    """What a run's artefact is made from; everything on the CPU, in eval mode."""

    task: Task
    model: nn.Module
    embeddings: FeatureEmbeddings
    schema: Schema
    weights: dict[str, torch.Tensor]
    """Table name to float [rows, D]; the embeddings' own parameters."""
    user_names: tuple[str, ...]
    """User features that the model looks at, in schema order."""
    history_names: tuple[str, ...]
    """History features that the model looks at, in schema order."""
    users: nn.Module
    """UserInputs and noise to [B, N, H_u, P]."""
    items: nn.Module
    """ItemInputs to ItemVectors."""
    scorer: nn.Module
    """Users, index and items to [B, K]."""

    @property
    def columns(self) -> InputColumns:
        """The features behind the model's inputs."""
        return self.embeddings.columns

    @property
    def dims(self) -> InputDims:
        """Widths of the model's inputs."""
        return self.embeddings.dims

    @property
    def dim(self) -> int:
        """D, of every table."""
        return next(iter(self.weights.values())).shape[1]

    @property
    def noise_size(self) -> int:
        """X."""
        return getattr(self.model, "serving_noise_size", 0)

    @property
    def store_content(self) -> StoreContent:
        """What the item store holds."""
        return "inputs" if getattr(self.model, "single_tower", False) else "vectors"

    @property
    def seed(self) -> int:
        """Of the noise: evaluation's."""
        return EVALUATION_SEED

    @property
    def item_names(self) -> tuple[str, ...]:
        """Item features of the item tower, in schema order."""
        used = {*self.columns.item, *(item for _, item in self.columns.pairs)}
        return tuple(feature.name for feature in self.schema.side("item") if feature.name in used)


@torch.no_grad()
def run_parts(loaded: LoadedRun) -> RunParts:
    """The parts of a run that `trainer.evaluation.load_run` has loaded on the CPU in one process.

    Raises:
        UserError: the model lacks a method that serving needs.
    """
    module, schema = loaded.sharded.task, loaded.schema
    model, embeddings = module.model, module.embeddings
    task: Task = "matching" if isinstance(module, MatchingTask) else "pre_ranking"
    missing = [name for name in NEEDED[task] if not hasattr(model, name)]
    if missing:
        raise UserError(
            f"{type(model).__name__} has no {', '.join(missing)}, which a {task} model is served by; it can't be exported"
        )
    users: nn.Module = MatchingUsers(model) if task == "matching" else PreRankingUsers(model)
    profile, context = used_inputs(users.eval(), embeddings)
    history = {*(history for history, _ in embeddings.columns.pairs), *context}
    return RunParts(
        task=task,
        model=model,
        embeddings=embeddings,
        schema=schema,
        weights={table.name: module.get_parameter(table.parameter_name).detach() for table in find_tables(module)},
        user_names=tuple(feature.name for feature in schema.side("user") if feature.name in profile),
        history_names=tuple(feature.name for feature in schema.side("history") if feature.name in history),
        users=users,
        items=(MatchingItems(model) if task == "matching" else PreRankingItems(model)).eval(),
        scorer=(DotScorer() if task == "matching" else PreRankingScorer(model)).eval(),
    )


@torch.no_grad()
def used_inputs(users: nn.Module, embeddings: FeatureEmbeddings) -> tuple[set[str], set[str]]:
    """(user features, context features) whose values change a user's vectors; the rest need not be sent to a server.

    Tried rather than declared, so that a model need not know of it: random rows, and the same with one feature redrawn.
    """
    columns, dims = embeddings.columns, embeddings.dims
    generator = torch.Generator().manual_seed(0)
    rows = _random_users(dims, generator)
    noise_BX = torch.randn(PROBE_ROWS, getattr(users.model, "serving_noise_size", 0), generator=generator)
    expected = users(rows, noise_BX)
    profile, context = set(), set()
    width = dims.profile // max(1, len(columns.user))
    for place, name in enumerate(columns.user):
        profile_BU = rows.profile_BU.clone()
        profile_BU[:, place * width : (place + 1) * width] = torch.randn(PROBE_ROWS, width, generator=generator)
        if not torch.equal(users(rows._replace(profile_BU=profile_BU), noise_BX), expected):
            profile.add(name)
    for place, (name, num_ids) in enumerate(dims.context):
        context_JF = rows.context_JF.clone()
        context_JF[:, place] = torch.randint(num_ids, (len(context_JF),), generator=generator)
        if not torch.equal(users(rows._replace(context_JF=context_JF), noise_BX), expected):
            context.add(name)
    return profile, context


def _random_users(dims: InputDims, generator: torch.Generator) -> UserInputs:
    """Random rows, half of them with full histories."""
    lengths_B = torch.randint(dims.history_len + 1, (PROBE_ROWS,), generator=generator)
    lengths_B[::2] = dims.history_len
    total = int(lengths_B.sum())
    ids = [torch.randint(num_ids, (total,), generator=generator) for _, num_ids in dims.context]
    return UserInputs(
        torch.randn(PROBE_ROWS, dims.profile, generator=generator),
        torch.randn(total, dims.position, generator=generator),
        lengths_B,
        torch.stack(ids, dim=1) if ids else torch.zeros(total, 0, dtype=torch.int64),
    )


@torch.no_grad()
def user_signature(parts: RunParts) -> UserSignature:
    """What the user tower takes and gives; the shape is that of one user without history."""
    dims = parts.dims
    nobody = UserInputs(
        torch.zeros(1, dims.profile),
        torch.zeros(0, dims.position),
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(0, len(dims.context), dtype=torch.int64),
    )
    _, num_queries, heads, width = parts.users(nobody, torch.zeros(1, parts.noise_size)).shape
    return UserSignature(
        features=input_features(parts, parts.user_names),
        history=input_features(parts, parts.history_names),
        noise_size=parts.noise_size,
        seed=parts.seed,
        num_queries=num_queries,
        heads=heads,
        width=width,
    )


def input_features(parts: RunParts, names: tuple[str, ...]) -> tuple[InputFeature, ...]:
    """The signature of these features."""
    context = set(parts.columns.context)
    return tuple(_input(parts.schema.feature(name), looked_up=name not in context) for name in names)


def _input(feature: Feature, *, looked_up: bool) -> InputFeature:
    return InputFeature(
        name=feature.name,
        vocab_size=feature.vocab_size,
        max_len=feature.max_len,
        min_len=feature.min_len,
        is_list=feature.is_list,
        table=feature.table if looked_up else None,
    )
