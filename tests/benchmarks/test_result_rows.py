"""Every result row says where it comes from, and a results file keeps one header."""

from pathlib import Path

import pytest
import torch

from benchmarks.result_rows import append_rows
from trainer.provenance import provenance


def test_facts_are_complete_non_empty_strings() -> None:
    facts = provenance()
    assert list(facts) == ["date", "commit", "cpu", "cores", "gpu", "python", "torch", "torchrec", "fbgemm"]
    assert all(isinstance(fact, str) and fact for fact in facts.values())
    assert facts["torch"] == torch.__version__
    assert facts["torchrec"][0].isdigit()
    assert facts["fbgemm"][0].isdigit()


def test_rows_are_appended_under_one_header(tmp_path: Path) -> None:
    path = tmp_path / "results" / "x.csv"
    append_rows(path, [{"name": "a", "value": 1}])
    append_rows(path, [{"name": "b, c", "value": 2}, {"name": "d", "value": 3}])
    append_rows(path, [])
    assert path.read_text() == 'name,value\na,1\n"b, c",2\nd,3\n'


def test_rows_of_another_shape_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    append_rows(path, [{"name": "a", "value": 1}])
    with pytest.raises(ValueError, match=r"the header is \['name', 'value'\], the row has \['name', 'speed'\]"):
        append_rows(path, [{"name": "b", "value": 2}, {"name": "c", "speed": 2}])
    assert path.read_text() == "name,value\na,1\n"
