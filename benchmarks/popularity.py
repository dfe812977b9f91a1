"""The baseline without a model: score an item by how often it was a positive in training."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.paper.cells import POPULARITY
from dataloaders.negatives import item_frequencies
from dataloaders.parquet_reader import ParquetReader
from dataloaders.parquet_writer import split_types
from dataloaders.schema import Schema
from trainer.metrics import area_under_curve
from trainer.provenance import provenance


def popularity_row(data: Path) -> dict[str, str]:
    """The row of benchmarks/results for the data set in `data`; it has no logloss, for counts are no probabilities.

    Raises:
        DataError: a split is missing or broken.
    """
    schema = Schema.load(data)
    frequency_I = item_frequencies(data / "train", schema)
    auc = {name: popularity_auc(data / name, schema, frequency_I=frequency_I) for name in schema.num_rows if name != "train"}
    return {
        "recipe": POPULARITY,
        "seed": "",
        "dataset": schema.name,
        "num_ranks": "",
        "test_auc": f"{auc['test']:.6f}",
        "test_rows": str(schema.num_rows["test"]),
        "test_popularity_auc": f"{auc['test_popularity']:.6f}" if "test_popularity" in auc else "",
        "validation_auc": f"{auc['validation']:.6f}",
        "num_parameters": "0",
        "config": schema.identity[:12],
        **provenance(),
    }


def popularity_auc(folder: Path, schema: Schema, *, frequency_I: np.ndarray) -> float:
    """Exact AUC over the rows of a split's folder, each scored by its item's entry of `frequency_I`."""
    names = (schema.label, schema.item_key)
    reader = ParquetReader.of_split(folder, types={name: split_types(schema)[name] for name in names})
    groups = [reader.read(position) for position in range(len(reader.groups))]
    label_B, item_B = (np.concatenate([group.scalars[name] for group in groups]) for name in names)
    score_B = torch.from_numpy(frequency_I[item_B])
    positive_B = torch.from_numpy(label_B > 0.5)
    return area_under_curve(score_B[positive_B].sort().values, score_B[~positive_B].sort().values)
