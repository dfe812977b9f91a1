"""What small item vectors and 8-bit tables cost: `python -m benchmarks.export_accuracy --run DIR`.

A run is exported in every form, and each artefact, its TorchScript towers and its item store, scores the run's test split.
"""

# B rows of a batch, M items of the catalogue, C vector width, K candidates

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import tyro

from benchmarks.readme import RESULTS, ROOT, replace_section
from benchmarks.result_rows import read_rows, replace_rows
from benchmarks.trained_runs import machine
from dataloaders.batch import Batch
from dataloaders.negatives import NegativeConfig
from dataloaders.schema import Schema
from models.losses import full_softmax
from models.ranking import target_ranks
from models.tasks import MatchingLossConfig
from trainer.build import evaluation_loader
from trainer.cli import one_screen_errors, parse_run_config
from trainer.config import RunConfig
from trainer.console import console
from trainer.export.artefact import Artefact
from trainer.export.config import ExportConfig
from trainer.export.export import export_run
from trainer.export.requests import UserTensors
from trainer.export.signature import TableForm, UserSignature, VectorType
from trainer.metrics import BinaryMetrics
from trainer.process_group import Ranks, distributed
from trainer.provenance import provenance
from trainer.ranking_metrics import RankingMetrics

ROWS_AT_ONCE = 64
"""A tower of N queries holds N attention layers for each of a row's behaviours."""
KEY = ("config", "dataset", "split", "tables", "vectors")


class Form(NamedTuple):
    """Of an artefact."""

    tables: TableForm
    vectors: VectorType


FORMS = (
    Form("inside", "float32"),
    Form("inside", "float16"),
    Form("inside", "int8"),
    Form("quantised", "float32"),
    Form("quantised", "int8"),
)
"""The first one is what the others are compared with."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Which run."""

    run: Path
    """Folder of the run (holds config.json and checkpoints/)."""
    split: str = "test"
    """Split of its data set."""
    out: Path = RESULTS / "export_accuracy.csv"
    """Where to write the rows, in place of older ones of the same run."""


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    with one_screen_errors():
        config = parse_run_config(["--config", str(arguments.run / "config.json")])
        with distributed("cpu") as ranks:
            rows = measure(config, run=arguments.run, split=arguments.split, forms=FORMS, ranks=ranks)
        replace_rows(arguments.out, rows, key=KEY)
        console.print(render(rows))
    if arguments.out == RESULTS / "export_accuracy.csv":
        replace_section(ROOT / "README.md", "export_accuracy", render(read_rows(arguments.out)))


def measure(config: RunConfig, *, run: Path, split: str, forms: Sequence[Form], ranks: Ranks) -> list[dict[str, str]]:
    """A row for each form: the metric, and what it differs by from that of the first form."""
    rows, first = [], None
    for form in forms:
        with tempfile.TemporaryDirectory() as folder:
            options = ExportConfig(run=run, out=Path(folder) / "artefact", tables=form.tables, vectors=form.vectors)
            export_run(options, config, ranks=ranks)
            artefact = Artefact(options.out)
            found = accuracy(artefact, config, split=split, ranks=ranks)
            size = sum(file.bytes for file in artefact.manifest.files.values())
        metric = "recall@20" if artefact.manifest.origin.task == "matching" else "auc"
        first = found[metric] if first is None else first
        rows.append(
            {
                "recipe": config.recipe,
                "seed": str(config.seed),
                "dataset": Schema.load(config.data).name,
                "split": split,
                "rows": f"{found['num_rows']:.0f}",
                "step": str(artefact.manifest.origin.step),
                "tables": form.tables,
                "vectors": form.vectors,
                "bytes_per_item": f"{artefact.manifest.store.bytes_per_item:g}",
                "artefact_mib": f"{size / 2**20:.2f}",
                "metric": metric,
                "value": f"{found[metric]:.6f}",
                "standard_error": f"{found[f'{metric}_se']:.6f}",
                "change": f"{found[metric] - first:+.6f}",
                "loss": f"{found['loss']:.6f}",
                "max_score_error": f"{artefact.manifest.store.max_score_error:.3g}",
                "config": config.fingerprint[:12],
                **provenance(),
            }
        )
    return rows


@torch.no_grad()
def accuracy(artefact: Artefact, config: RunConfig, *, split: str, ranks: Ranks) -> dict[str, float]:
    """The run's metrics over a split, with scores by the artefact alone; `loss` is the logloss, or the softmax loss."""
    schema = Schema.load(artefact.folder)
    few = dataclasses.replace(
        config.loader, batch_size=max(ROWS_AT_ONCE, config.loader.lanes), negatives=NegativeConfig(kind="none")
    )
    here = dataclasses.replace(config, loader=few)
    batches = iter(evaluation_loader(here, folder=config.data / split, schema=schema, ranks=ranks))
    if artefact.manifest.origin.task == "matching":
        return _matching(artefact, batches, schema=schema, loss=config.model.loss)
    return _pre_ranking(artefact, batches, schema=schema)


def _pre_ranking(artefact: Artefact, batches: Iterator[Batch], *, schema: Schema) -> dict[str, float]:
    metrics = BinaryMetrics()
    for batch in batches:
        user_BNHP = artefact.user_vectors(batch_users(batch, artefact.manifest.user))
        index_B, item_BHP = artefact.store.gather(_item_ids(batch, schema).tolist())
        metrics.update(artefact.scorer(user_BNHP, index_B.unsqueeze(1), item_BHP.unsqueeze(1))[:, 0], batch.label_B)
    found = metrics.compute()
    return found | {"loss": found["logloss"]}


def _matching(artefact: Artefact, batches: Iterator[Batch], *, schema: Schema, loss: MatchingLossConfig) -> dict[str, float]:
    metrics = RankingMetrics()
    item_MC = artefact.store.gather(slice(None)).item_BHP[:, 0]
    space = schema.feature(schema.item_key).space
    history = next(feature.name for feature in schema.side("history") if feature.space == space)
    for batch in batches:
        user_BC = artefact.user_vectors(batch_users(batch, artefact.manifest.user))[:, 0, 0]
        target_B, seen = _item_ids(batch, schema), batch.sequence[history]
        left_out = {"seen_ids_J": seen.values(), "seen_lengths_B": seen.lengths()} if loss.mask_history else {}
        rank_B = target_ranks(user_BC, item_MC, target_B, **left_out)
        metrics.update(rank_B, full_softmax(user_BC, item_MC, target_B, chunk_items=loss.chunk_items))
    return metrics.compute()


def batch_users(batch: Batch, signature: UserSignature) -> UserTensors:
    """The users of a batch as an artefact's user tower takes them."""
    users = [batch.pooled[feature.name] for feature in signature.features]
    histories = [batch.sequence[feature.name] for feature in signature.history]
    none, num_rows = torch.zeros(0, dtype=torch.int64), batch.num_rows
    num_positions = histories[0].values().shape[0] if histories else 0
    return UserTensors(
        torch.cat([none, *(user.values() for user in users)]),
        torch.cat([none, *(user.lengths().long() for user in users)]).reshape(len(users), num_rows),
        torch.cat([none, *(history.values() for history in histories)]).reshape(len(histories), num_positions),
        histories[0].lengths().long() if histories else torch.zeros(num_rows, dtype=torch.int64),
        batch.row_id_B,
    )


def _item_ids(batch: Batch, schema: Schema) -> torch.Tensor:
    """int64 [B]: each row's item."""
    keyed = batch.sequence if schema.item_key in batch.sequence.keys() else batch.pooled  # noqa: SIM118  (no dict)
    return keyed[schema.item_key].values()


def render(rows: Sequence[dict[str, str]]) -> str:
    """Markdown: storage and accuracy of each run's forms."""
    lines = ["| run | tables | item vectors | bytes / item | metric | value | change |", "|---" * 7 + "|"]
    lines += [
        f"| {row['recipe']}, seed {row['seed']} | {row['tables']} | {row['vectors']} | {row['bytes_per_item']} | {row['metric']} "
        f"| {float(row['value']):.5f} ± {float(row['standard_error']):.5f} | {float(row['change']):+.5f} |"
        for row in rows
    ]
    data = "; ".join(dict.fromkeys(f"{row['dataset']}, {row['split']}, {int(row['rows']):,} rows" for row in rows))
    return "\n".join([*lines, "", f"Scored by the artefacts themselves. Data: {data}. {machine(rows)}"])


if __name__ == "__main__":
    main()
