"""Every result row says where it comes from, and a results file loses none."""

from pathlib import Path

import pytest
import torch

from benchmarks.result_rows import append_rows, read_rows, replace_rows
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


def test_rows_with_other_columns_widen_the_file_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    append_rows(path, [{"name": "a", "value": 1}])
    append_rows(path, [{"name": "b", "speed": 2}])
    assert path.read_text() == "name,value,speed\na,1,\nb,,2\n"
    assert read_rows(path) == [{"name": "a", "value": "1", "speed": ""}, {"name": "b", "value": "", "speed": "2"}]


def test_a_row_takes_the_place_of_the_one_with_the_same_key_only(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    old = [{"recipe": recipe, "seed": seed, "auc": 0} for recipe in "ab" for seed in (0, 1)]
    replace_rows(path, old, key=("recipe", "seed"))
    replace_rows(path, [{"recipe": "a", "seed": 1, "auc": 9}], key=("recipe", "seed"))
    found = [(row["recipe"], row["seed"], row["auc"]) for row in read_rows(path)]
    assert sorted(found) == [("a", "0", "0"), ("a", "1", "9"), ("b", "0", "0"), ("b", "1", "0")]
    with pytest.raises(ValueError, match=r"lacks the columns \['seed'\]"):
        replace_rows(path, [{"recipe": "a"}], key=("recipe", "seed"))


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise ZeroDivisionError

    path = tmp_path / "x.csv"
    append_rows(path, [{"name": "a"}])
    with pytest.raises(ZeroDivisionError):
        append_rows(path, [{"name": "b"}, {"name": Unprintable()}])
    assert path.read_text() == "name\na\n"


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "x.csv") == []
