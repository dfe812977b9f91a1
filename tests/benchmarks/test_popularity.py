from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.popularity import popularity_auc, popularity_row
from dataloaders.parquet_reader import ParquetReader
from dataloaders.parquet_writer import split_types, write_split
from dataloaders.prepare.ml1m import Ml1mConfig, prepare_ml1m
from dataloaders.schema import Schema
from tests.dataloaders.prepare.tiny_ml1m import write_random_raw
from tests.dataloaders.small_dataset import SCHEMA, make_rows, to_columns


def test_popularity_auc_is_that_of_scikit_learn_over_all_row_groups_ties_included(tmp_path: Path) -> None:
    rows, _ = make_rows(300)
    write_split(tmp_path / "test", SCHEMA, to_columns(rows), rows_per_group=64, rows_per_file=128)
    frequency_I = np.random.default_rng(0).integers(0, 5, SCHEMA.feature("item").vocab_size)
    expected = roc_auc_score([row["label"] for row in rows], [frequency_I[row["item"]] for row in rows])
    assert popularity_auc(tmp_path / "test", SCHEMA, frequency_I=frequency_I) == pytest.approx(expected, abs=1e-12)


def test_popularity_counts_training_positives_only(tmp_path: Path) -> None:
    prepare_ml1m(Ml1mConfig(raw=write_random_raw(tmp_path / "raw"), out=tmp_path / "ml1m"))
    schema = Schema.load(tmp_path / "ml1m")

    def items_and_labels(split: str) -> tuple[np.ndarray, np.ndarray]:
        reader = ParquetReader.of_split(tmp_path / "ml1m" / split, types=split_types(schema))
        groups = [reader.read(position).scalars for position in range(len(reader.groups))]
        return tuple(np.concatenate([group[name] for group in groups]) for name in ("item", "label"))

    counts = np.bincount(items_and_labels("train")[0], minlength=schema.feature("item").vocab_size)
    item, label = items_and_labels("test")
    assert float(popularity_row(tmp_path / "ml1m")["test_auc"]) == pytest.approx(roc_auc_score(label, counts[item]), abs=1e-6)
