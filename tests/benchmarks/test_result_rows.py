"""Every result row says where it comes from, and a results file loses none."""

import multiprocessing
from pathlib import Path

import pytest
import torch

from benchmarks.result_rows import append_rows, read_rows, replace_rows, set_columns
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


def test_columns_of_one_row_are_set_and_what_others_wrote_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    append_rows(path, [{"recipe": recipe, "seed": seed, "auc": 0} for recipe in "ab" for seed in (0, 1)])
    (read,) = [row for row in read_rows(path) if (row["recipe"], row["seed"]) == ("a", "1")]
    set_columns(path, read, {"speed": "7"}, key=("recipe", "seed"))
    set_columns(path, read, {"auc": "9"}, key=("recipe", "seed"))  # what was read before knows no speed
    found = [(row["recipe"], row["seed"], row["auc"], row["speed"]) for row in read_rows(path)]
    assert found == [("a", "0", "0", ""), ("a", "1", "9", "7"), ("b", "0", "0", ""), ("b", "1", "0", "")]
    with pytest.raises(KeyError, match=r"no row has \['c'\] in \['recipe'\]"):
        set_columns(path, {"recipe": "c"}, {}, key=("recipe",))


def append_numbers(path: Path, first: int) -> None:
    for number in range(first, first + 25):
        append_rows(path, [{"number": number}])


def test_processes_that_write_at_the_same_time_lose_no_row(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    writers = [multiprocessing.get_context("fork").Process(target=append_numbers, args=(path, first)) for first in (0, 25)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(int(row["number"]) for row in read_rows(path)) == list(range(50))
    assert [file.name for file in tmp_path.iterdir()] == ["x.csv"]


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
