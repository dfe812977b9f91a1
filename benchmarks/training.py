"""Training speed: the trainer against the same model in a plain PyTorch loop with nn.Embedding, in one run.

    python -m benchmarks.training                                              # fit_ml1m and fit_ml1m_adam
    python -m benchmarks.training --recipes fit_ml1m --data data/demo --negatives none --steps 10 --rounds 3

Both train on the same batches of the same loader, on one rank, taking turns, and by the same rules: fused Adam for the dense
parameters, the recipe's optimizer for the tables. The trainer runs that one within fbgemm's backward (sharding.kind=planner) or as
a dense optimizer (replicated). The plain loop runs it on dense gradients: row-wise Adagrad takes no others, and Adam on sparse ones
is another rule. The ratio is that of the medians over rounds.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import nn
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from benchmarks.result_rows import append_rows
from dataloaders.schema import Schema
from models import build_task
from models.embeddings import EmbeddingConfig
from models.types import InputDims, ItemInputs, UserInputs
from trainer.build import training_loader
from trainer.cli import one_screen_errors, parse_run_config
from trainer.config import RunConfig
from trainer.console import console, metrics_table
from trainer.optim import OptimizerConfig
from trainer.process_group import Ranks, distributed
from trainer.provenance import provenance
from trainer.tables import Kind
from trainer.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to time."""

    recipes: tuple[str, ...] = ("fit_ml1m", "fit_ml1m_adam")
    """One row each."""
    data: Path | None = None
    """Another data set than the recipe's."""
    negatives: str | None = None
    """Another kind of negatives than the recipe's, for data of another task."""
    batch_size: int | None = None
    """Another batch size than the recipe's."""
    steps: int = 20
    """Optimizer steps in a round."""
    rounds: int = 7
    """Rounds of each, in turn; the first is a warm-up and not counted."""
    out: Path = Path("benchmarks/results/training.csv")
    """Where to append the rows."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rounds < 2:
            raise ValueError(f"steps={self.steps}, rounds={self.rounds}: expected steps >= 1, rounds >= 2 (the first warms up)")


class PlainEmbeddings(nn.Module):
    """What FeatureEmbeddings computes, with nn.Embedding and nn.EmbeddingBag alone: the loop that a newcomer would write."""

    def __init__(self, schema: Schema, *, config: EmbeddingConfig) -> None:
        super().__init__()
        self._pooled = schema.pooled_features
        self._pairs = [(h, i) for h in schema.side("history") for i in schema.side("item") if i.space == h.space and not i.is_list]
        self.bags = nn.ModuleDict({f.table: nn.EmbeddingBag(f.vocab_size, config.dim, mode="mean") for f in self._pooled})
        self.tables = nn.ModuleDict({h.table: nn.Embedding(h.vocab_size, config.dim) for h, _ in self._pairs})
        for weight in self.parameters():
            nn.init.normal_(weight, std=config.init_std)
        user, item = [[(f.name, config.dim) for f in self._pooled if f.side == side] for side in ("user", "item")]
        self.dims = InputDims(
            profile=config.dim * len(user),
            attributes=config.dim * len(item),
            position=config.dim * len(self._pairs),
            history_len=max(history.max_len for history, _ in self._pairs),
            profile_fields=tuple(user),
            attribute_fields=tuple(item),
            position_fields=tuple((one.name, config.dim) for _, one in self._pairs),
        )

    def forward(self, pooled: KeyedJaggedTensor, sequence: KeyedJaggedTensor) -> tuple[UserInputs, ItemInputs]:
        """As FeatureEmbeddings.forward."""
        vectors: dict[str, list[torch.Tensor]] = {"user": [], "item": []}
        for feature in self._pooled:
            ids = pooled[feature.name]
            vectors[feature.side].append(self.bags[feature.table](ids.values(), ids.offsets()[:-1]))
        history = [self.tables[h.table](sequence[h.name].values()) for h, _ in self._pairs]
        item = [self.tables[i.table](sequence[i.name].values()) for _, i in self._pairs]
        lengths_B = sequence[self._pairs[0][0].name].lengths().long()
        context_JF = lengths_B.new_empty(history[0].shape[0], 0)
        users = UserInputs(torch.cat(vectors["user"], dim=1), torch.cat(history, dim=1), lengths_B, context_JF)
        return users, ItemInputs(torch.cat(vectors["item"], dim=1), torch.cat(item, dim=1))


def plain_optimizers(task: nn.Module, embeddings: PlainEmbeddings, *, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Fused Adam over everything but the tables, and the tables' own rules on dense gradients."""
    tables = {id(parameter) for parameter in embeddings.parameters()}
    dense = [parameter for parameter in task.parameters() if id(parameter) not in tables]
    return [
        torch.optim.Adam(dense, lr=config.learning_rate, eps=config.eps, weight_decay=config.weight_decay, fused=True),
        _table_optimizer(list(embeddings.bags.parameters()), kind="pooled", config=config),
        _table_optimizer(list(embeddings.tables.parameters()), kind="sequence", config=config),
    ]


def _table_optimizer(parameters: list[nn.Parameter], *, kind: Kind, config: OptimizerConfig) -> torch.optim.Optimizer:
    rate, eps, decay = config.table_learning_rate(kind), config.eps, config.embedding_decay
    match config.table_optimizer(kind):
        case "adam":
            return torch.optim.Adam(parameters, lr=rate, eps=eps, weight_decay=decay, fused=True)
        case "rowwise_adagrad":
            return RowWiseAdagrad(parameters, lr=rate, eps=eps, weight_decay=decay)
        case "adagrad":
            return torch.optim.Adagrad(parameters, lr=rate, eps=eps, weight_decay=decay, fused=True)
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, fused=True)


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    with one_screen_errors(), tempfile.TemporaryDirectory() as folder, distributed() as ranks:
        for recipe in arguments.recipes:
            config = parse_run_config(_overrides(recipe, arguments=arguments, runs=Path(folder)))
            append_rows(arguments.out, [measure(config, arguments=arguments, ranks=ranks)])


def _overrides(recipe: str, *, arguments: Arguments, runs: Path) -> list[str]:
    words = ["--recipe", recipe, "--runs", str(runs)]
    words += ["--data", str(arguments.data)] if arguments.data else []
    words += ["--loader.negatives.kind", arguments.negatives] if arguments.negatives else []
    return words + (["--loader.batch-size", str(arguments.batch_size)] if arguments.batch_size else [])


def measure(config: RunConfig, *, arguments: Arguments, ranks: Ranks) -> dict[str, str]:
    """Time one recipe, print the comparison, and return its row."""
    trainer = Trainer(config, ranks=ranks)
    seconds = compare(trainer, arguments=arguments)
    step = {name: statistics.median(rounds) for name, rounds in seconds.items()}
    rate = {name: config.loader.batch_size / value for name, value in step.items()}
    ratios = [plain / own for plain, own in zip(seconds["plain"], seconds["trainer"], strict=True)]
    shown = {name: {"samples/s": rate[name], "ms/step": 1000 * step[name]} for name in step}
    optimizers = f"{config.optimizer.dense}, tables {config.optimizer.table_optimizer('sequence')}"
    title = f"{config.recipe} ({optimizers}), batch {config.loader.batch_size}, {torch.get_num_threads()} thread(s)"
    console.print(metrics_table(title, shown))
    ratio = f"{rate['trainer'] / rate['plain']:.3f}"
    console.print(f"trainer / plain PyTorch loop: {ratio} ({min(ratios):.3f} .. {max(ratios):.3f} over {len(ratios)} rounds)")
    return {
        "recipe": config.recipe,
        "dataset": trainer.schema.name,
        "batch_size": str(config.loader.batch_size),
        "threads": str(torch.get_num_threads()),
        "device": ranks.device.type,
        "sharding": config.sharding.kind,
        "optimizer": optimizers,
        "plain_table_gradients": "dense",
        "plain_samples_per_second": f"{rate['plain']:.0f}",
        "trainer_samples_per_second": f"{rate['trainer']:.0f}",
        "ratio": ratio,
        "ratio_least": f"{min(ratios):.3f}",
        "ratio_most": f"{max(ratios):.3f}",
        "steps": str(arguments.steps),
        "rounds": str(len(ratios)),
        "seed": str(config.seed),
        **provenance(),
    }


def compare(trainer: Trainer, *, arguments: Arguments) -> dict[str, list[float]]:
    """Seconds per step of each counted round of the plain loop and of the trainer."""
    loops = {"plain": _plain_loop(trainer), "trainer": trainer_loop(trainer)}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(arguments.rounds):
        for name, loop in loops.items():
            started = time.perf_counter()
            for _ in range(arguments.steps):
                next(loop)
            if trainer.ranks.device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append((time.perf_counter() - started) / arguments.steps)
    return {name: values[1:] for name, values in seconds.items()}


def _plain_loop(trainer: Trainer) -> Iterator[None]:
    config, ranks = trainer.config, trainer.ranks
    task = build_task(config.model, schema=trainer.schema, embeddings=config.embeddings)
    task.embeddings = embeddings = PlainEmbeddings(trainer.schema, config=config.embeddings)
    task.to(ranks.device).train()
    optimizers = plain_optimizers(task, embeddings, config=config.optimizer)
    loader = training_loader(config, schema=trainer.schema, ranks=ranks)
    step = 0
    while True:
        for batch in loader:
            task.model.schedule(step, trainer.steps_per_epoch)
            loss, _ = task(batch.to(ranks.device, non_blocking=True))
            task.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            step += 1
            yield


def trainer_loop(trainer: Trainer) -> Iterator[None]:
    """An optimizer step each time, without end."""
    pipeline, batches = trainer.pipeline(), trainer.batches()
    while True:
        trainer.train_step(pipeline, batches)
        yield


if __name__ == "__main__":
    main()
