from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dataloaders.errors import DataError
from dataloaders.prepare.ml100k import Ml100kConfig, prepare_ml100k
from dataloaders.schema import Schema

RATINGS = "9\t20\t3\t90\n9\t10\t5\t100\n4\t20\t4\t50\n9\t30\t1\t100\n4\t10\t1\t60\n9\t20\t2\t300\n4\t30\t5\t70\n"
"""In time: user 9 rates 20, 10, 30 (a tie with 10, later in the file), 20 again; user 4 rates 20, 10, 30."""


def prepare(folder: Path, ratings: str = RATINGS) -> Path:
    (folder / "u.data").write_text(ratings)
    prepare_ml100k(Ml100kConfig(raw=folder, out=folder / "out"))
    return folder / "out"


def test_the_rows_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    out = prepare(tmp_path)
    found = {split: pq.read_table(out / split).to_pylist() for split in ("train", "validation", "test")}
    brief = {
        split: sorted((row["row_id"], row["user"], row["hist_item"], row["item"]) for row in rows) for split, rows in found.items()
    }
    assert brief["train"] == [(1, 1, [1], 0)]  # user 4's second rating is the validation row, its first has no history
    assert brief["validation"] == [(3, 1, [1, 0], 2), (4, 0, [1], 0)]
    assert brief["test"] == [(5, 1, [1, 0, 2], 1), (6, 0, [1, 0], 2)]
    assert found["test"][1]["hist_time_lag"] == [8, 8, 8]  # 210, 200 and 200 s: 2^7 to 2^8 - 1
    assert Schema.load(out).num_rows == {"train": 1, "validation": 2, "test": 2}


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"u\.data, line 2: '9::10::5::100' is malformed .*user, item, rating \(1 to 5\) and seconds"
    ):
        prepare(tmp_path, RATINGS.replace("9\t10\t5\t100", "9::10::5::100"))


def test_a_missing_file_is_told_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"u\.data: no such file; pass --download, or fetch https://files\.grouplens\.org/.*ml-100k\.zip"
    ):
        prepare_ml100k(Ml100kConfig(raw=tmp_path, out=tmp_path / "out"))
