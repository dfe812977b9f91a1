"""Training speed: the sharded trainer against the same model in a plain PyTorch loop with nn.Embedding, in one run.

    python -m benchmarks.training --recipe fit_ml1m
    python -m benchmarks.training --recipe fit_ml1m --data data/demo --steps 10 --rounds 3

Both train on the same batches of the same loader, on one rank, taking turns; the ratio is that of the medians over rounds.
"""

import dataclasses
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from benchmarks.result_rows import append_rows
from models import build_task
from models.types import InputDims, ItemInputs, UserInputs
from trainer.cli import one_screen_errors, parse_run_config
from trainer.console import console, metrics_table
from trainer.process_group import Ranks, distributed
from trainer.provenance import provenance
from trainer.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to time."""

    recipe: str = "fit_ml1m"
    data: Path | None = None
    """Another data set than the recipe's."""
    batch_size: int | None = None
    """Another batch size than the recipe's."""
    steps: int = 20
    """Optimizer steps in a round."""
    rounds: int = 7
    """Rounds of each, in turn; the first is a warm-up and not counted."""
    out: Path = Path("benchmarks/results/training.csv")
    """Where to append the row."""


class PlainEmbeddings(nn.Module):
    """What FeatureEmbeddings computes, with nn.Embedding and nn.EmbeddingBag alone: the loop that a newcomer would write."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        schema, dim = trainer.schema, trainer.config.embeddings.dim
        self._pooled = schema.pooled_features
        self._pairs = [(h, i) for h in schema.side("history") for i in schema.side("item") if i.space == h.space and not i.is_list]
        self.bags = nn.ModuleDict({f.space: nn.EmbeddingBag(f.vocab_size, dim, mode="mean") for f in self._pooled})
        self.tables = nn.ModuleDict({h.space: nn.Embedding(h.vocab_size, dim) for h, _ in self._pairs})
        sides = [feature.side for feature in self._pooled]
        self.dims = InputDims(
            profile=dim * sides.count("user"), attributes=dim * sides.count("item"), position=dim * len(self._pairs)
        )

    def forward(self, pooled: KeyedJaggedTensor, sequence: KeyedJaggedTensor) -> tuple[UserInputs, ItemInputs]:
        """As FeatureEmbeddings.forward."""
        vectors: dict[str, list[torch.Tensor]] = {"user": [], "item": []}
        for feature in self._pooled:
            ids = pooled[feature.name]
            vectors[feature.side].append(self.bags[feature.space](ids.values(), ids.offsets()[:-1]))
        history = [self.tables[h.space](sequence[h.name].values()) for h, _ in self._pairs]
        item = [self.tables[i.space](sequence[i.name].values()) for _, i in self._pairs]
        lengths_B = sequence[self._pairs[0][0].name].lengths().long()
        users = UserInputs(torch.cat(vectors["user"], dim=1), torch.cat(history, dim=1), lengths_B)
        return users, ItemInputs(torch.cat(vectors["item"], dim=1), torch.cat(item, dim=1))


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    with one_screen_errors(), tempfile.TemporaryDirectory() as folder, distributed() as ranks:
        overrides = ["--recipe", arguments.recipe, "--runs", folder]
        overrides += ["--data", str(arguments.data)] if arguments.data else []
        config = parse_run_config(overrides)
        if arguments.batch_size:
            config = dataclasses.replace(config, loader=dataclasses.replace(config.loader, batch_size=arguments.batch_size))
        trainer = Trainer(config, ranks=ranks)
        rows = compare(trainer, arguments=arguments, ranks=ranks)
    shown = {name: {"samples/s": values["samples_per_second"], "ms/step": values["step_ms"]} for name, values in rows.items()}
    ratio = rows["sharded"]["samples_per_second"] / rows["plain"]["samples_per_second"]
    console.print(
        metrics_table(f"{arguments.recipe}, batch {config.loader.batch_size}, {torch.get_num_threads()} thread(s)", shown)
    )
    console.print(f"sharded trainer / plain PyTorch loop: {ratio:.3f}")
    row = {
        "recipe": arguments.recipe,
        "dataset": trainer.schema.name,
        "batch_size": str(config.loader.batch_size),
        "threads": str(torch.get_num_threads()),
        "plain_samples_per_second": f"{rows['plain']['samples_per_second']:.0f}",
        "sharded_samples_per_second": f"{rows['sharded']['samples_per_second']:.0f}",
        "ratio": f"{ratio:.3f}",
        "steps": str(arguments.steps),
        "rounds": str(arguments.rounds),
        **provenance(),
    }
    append_rows(arguments.out, [row])


def compare(trainer: Trainer, *, arguments: Arguments, ranks: Ranks) -> dict[str, dict[str, float]]:
    """Samples per second and milliseconds per step of both, the median over rounds."""
    loops = {"plain": _plain_loop(trainer, ranks), "sharded": _sharded_loop(trainer)}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(arguments.rounds):
        for name, loop in loops.items():
            started = time.perf_counter()
            for _ in range(arguments.steps):
                next(loop)
            if ranks.device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append((time.perf_counter() - started) / arguments.steps)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    batch_size = trainer.config.loader.batch_size
    return {name: {"samples_per_second": batch_size / value, "step_ms": 1000 * value} for name, value in medians.items()}


def _plain_loop(trainer: Trainer, ranks: Ranks):
    embeddings = PlainEmbeddings(trainer)
    task = build_task(trainer.config.model, schema=trainer.schema, embeddings=trainer.config.embeddings)
    task.embeddings = embeddings
    task.to(ranks.device).train()
    optimizer = torch.optim.Adam(task.parameters(), lr=trainer.config.optimizer.learning_rate)
    step = 0
    while True:
        for batch in trainer.new_train_loader():
            task.model.schedule(step, trainer.steps_per_epoch)
            loss, _ = task(batch.to(ranks.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            yield


def _sharded_loop(trainer: Trainer):
    pipeline, batches = trainer.pipeline(), trainer.batches()
    while True:
        trainer.train_step(pipeline, batches)
        yield


if __name__ == "__main__":
    main()
