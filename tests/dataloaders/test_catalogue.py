"""The catalogue: row i describes item i and nobody, with the share of training positives."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dataloaders.catalogue import read_catalogue
from dataloaders.errors import DataError
from tests.dataloaders.small_dataset import NUM_ITEMS, SCHEMA, SmallDataset, key_values, to_columns, write_small_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> SmallDataset:
    return write_small_dataset(tmp_path, 300)


def test_row_i_describes_item_i_and_no_user_or_history(dataset: SmallDataset) -> None:
    catalogue = read_catalogue(dataset.folder, SCHEMA)
    assert catalogue.num_items == NUM_ITEMS
    for keyed, features in ((catalogue.pooled, SCHEMA.pooled_features), (catalogue.sequence, SCHEMA.sequence_features)):
        assert keyed.keys() == [feature.name for feature in features]
        assert keyed.stride() == NUM_ITEMS
        assert (keyed.values().dtype, keyed.lengths().dtype) == (torch.int64, torch.int32)
        for feature in features:
            if feature.side == "item":
                expected = [item[feature.name] if feature.is_list else [item[feature.name]] for item in dataset.items]
            else:
                expected = [[]] * NUM_ITEMS
            assert key_values(keyed, feature.name) == expected
    assert key_values(catalogue.sequence, "item") == [[item] for item in range(NUM_ITEMS)]


def test_log_q_is_each_items_share_of_the_training_positives(dataset: SmallDataset) -> None:
    log_q_M = read_catalogue(dataset.folder, SCHEMA).log_q_M
    count_M = np.zeros(NUM_ITEMS)
    for row in dataset.rows.values():
        count_M[row["item"]] += row["label"] == 1
    assert log_q_M.dtype == torch.float32
    torch.testing.assert_close(log_q_M.exp(), torch.from_numpy(count_M / count_M.sum()).float())
    assert log_q_M.unique().numel() > 2


def test_bad_training_rows_count_for_nothing_when_skipped_and_raise_otherwise(dataset: SmallDataset) -> None:
    rows = [row | {"label": 1.0} for row in list(dataset.rows.values())[:10]]
    rows[4]["item"] = 400
    for path in dataset.train.iterdir():
        path.unlink()
    pq.write_table(pa.table(to_columns(rows)), dataset.train / "part-0.parquet")
    log_q_M = read_catalogue(dataset.folder, SCHEMA, bad_rows="skip").log_q_M
    never = set(range(NUM_ITEMS)) - {row["item"] for row in rows}
    assert torch.all(log_q_M[sorted(never)] == -torch.inf)
    assert log_q_M.exp().sum().item() == pytest.approx(1)
    with pytest.raises(DataError, match=r"row 4 .*column 'item': id too large: 400"):
        read_catalogue(dataset.folder, SCHEMA)


def test_a_data_set_without_items_or_train_is_an_error_that_names_what_is_missing(dataset: SmallDataset) -> None:
    for path in dataset.train.iterdir():
        path.unlink()
    with pytest.raises(DataError, match="train"):
        read_catalogue(dataset.folder, SCHEMA)
    (dataset.folder / "items.parquet").unlink()
    with pytest.raises(DataError, match=r"items\.parquet"):
        read_catalogue(dataset.folder, SCHEMA)
