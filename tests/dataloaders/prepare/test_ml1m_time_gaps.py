import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dataloaders.prepare.ml1m import Ml1mConfig, prepare_ml1m
from dataloaders.prepare.protocols import ProtocolConfig
from dataloaders.schema import Schema
from tests.dataloaders.prepare.tiny_ml1m import write_raw


def rows_of(folder: Path, split: str) -> list[dict]:
    return pq.read_table(folder / split).to_pylist()


def test_next_item_tells_the_times_between_behaviours_if_asked_to(tmp_path: Path) -> None:
    raw, out = write_raw(tmp_path / "raw"), tmp_path / "out"
    prepare_ml1m(Ml1mConfig(raw=raw, out=tmp_path / "without", task="next_item"))
    prepare_ml1m(Ml1mConfig(raw=raw, out=out, task="next_item", time_gaps=True))
    of_test = rows_of(out, "test")
    found = {row["row_id"]: row.pop("hist_time_gap") for row in of_test}
    # user 1 at 90, 100, 100 s and then 200, user 2 at 50, 60, 70 s and then 80
    ten, hundred = (1 + int(8 * np.log2(seconds)) for seconds in (10, 100))
    assert (found[5], found[8]) == ([ten, 0, hundred], [ten, ten, ten])
    assert of_test == rows_of(tmp_path / "without", "test")  # but for them nothing differs
    vocabulary = json.loads((out / "vocabularies.json").read_text())["time_gap"]
    assert len(vocabulary) == Schema.load(out).feature("hist_time_gap").vocab_size
    with pytest.raises(ValueError, match="time_gaps with task=rating, expected task=next_item"):
        Ml1mConfig(raw=raw, out=out, task="rating", time_gaps=True)
    with pytest.raises(ValueError, match="time_gaps with split=user_windows"):
        Ml1mConfig(raw=raw, out=out, task="next_item", protocol=ProtocolConfig(split="user_windows"), time_gaps=True)
