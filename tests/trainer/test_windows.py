import dataclasses
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from dataloaders.errors import DataError
from dataloaders.schema import Schema
from tests.trainer.small_matching import small_t2diff, windows_of_test_split, write_windows
from trainer import evaluate as evaluate_command
from trainer.build import evaluation_loader, sharded_task
from trainer.cli import parse_run_config
from trainer.config import RunConfig
from trainer.errors import UserError
from trainer.evaluation import LoadedRun, evaluate, load_run
from trainer.process_group import Ranks, distributed
from trainer.results import read_results
from trainer.windows import Ids, _begins_session, evaluate_windows, read_windows


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    with distributed("cpu") as joined:
        yield joined


def prepared_id(movie: int) -> int:
    """Dense ids follow the sorted raw ones, and every movie is rated."""
    return (movie - 7) // 3


class Form(NamedTuple):
    """How a windows file names items."""

    item: Callable[[int], int]
    padding: int


FORMS: dict[Ids, Form] = {"raw": Form(int, 0), "prepared": Form(prepared_id, -1)}


def lines_of(ids: Ids, *, times: bool = True) -> list[list[int]]:
    return windows_of_test_split(item=FORMS[ids].item, padding=FORMS[ids].padding, times=times)


@pytest.mark.parametrize("ids", FORMS)
def test_the_test_split_as_windows_gives_the_metrics_of_the_split(
    matching_run: RunConfig, ranks: Ranks, tmp_path: Path, ids: Ids
) -> None:
    data = matching_run.data
    path = write_windows(tmp_path / "windows.csv", lines_of(ids))
    loaded = load_run(matching_run, run=matching_run.run_dir, data=data, ranks=ranks)
    found = evaluate_windows(loaded, read_windows(path, data=data, ids=ids), data=data, ranks=ranks)
    assert found == read_results(matching_run.run_dir)["metrics"]["test"]


def test_windows_hold_short_and_full_histories() -> None:
    lengths = [sum(item != -1 for item in line[1:51]) for line in lines_of("prepared", times=False)]
    assert min(lengths) < 5
    assert lengths.count(50) == 10


def untrained(config: RunConfig, ranks: Ranks) -> LoadedRun:
    schema = Schema.load(config.data)
    sharded = sharded_task(config, schema=schema, ranks=ranks)
    sharded.module.eval()
    return LoadedRun(sharded, schema, 0)


def test_times_between_behaviours_follow_from_the_times(small_matching: Path, ranks: Ranks, tmp_path: Path) -> None:
    config = parse_run_config(["--recipe", "hstu_ml1m", "--data", str(small_matching), "--runs", str(tmp_path)])
    loaded = untrained(config, ranks)
    for layer in loaded.sharded.task.model.layers:
        torch.nn.init.normal_(layer.time_bias_V, std=3.0)  # so that ranks depend on them
    found = evaluate_windows(
        loaded,
        read_windows(write_windows(tmp_path / "w.csv", lines_of("raw")), data=small_matching, ids="raw"),
        data=small_matching,
        ranks=ranks,
    )
    loader = evaluation_loader(config, folder=small_matching / "test", schema=loaded.schema, ranks=ranks)
    assert found == evaluate(loaded.sharded, loader, ranks=ranks)


@pytest.mark.parametrize(
    ("recipe", "request_time", "words"),
    [
        ("hstu_ml1m", "1", r"windows\.csv, line 2: its times go back, expected the oldest first"),
        ("t2diff_ml1m", str(10**17), r"windows\.csv: a time lag of \d+ s exceeds 2\^32 s; expected time stamps in seconds"),
    ],
)
def test_times_that_no_behaviours_have_are_bad_data(
    small_matching: Path, ranks: Ranks, tmp_path: Path, recipe: str, request_time: str, words: str
) -> None:
    config = parse_run_config(["--recipe", recipe, "--data", str(small_matching), "--runs", str(tmp_path)])
    path = tmp_path / "windows.csv"
    path.write_text("".join(line + "\n" for line in changed(103, request_time)(_text(lines_of("raw"))[:4])))
    with pytest.raises(DataError, match=words):
        evaluate_windows(
            untrained(config, ranks), read_windows(path, data=small_matching, ids="raw"), data=small_matching, ranks=ranks
        )


def test_a_model_that_knows_items_alone_needs_no_times(small_matching: Path, ranks: Ranks, tmp_path: Path) -> None:
    config = small_t2diff(small_matching, tmp_path, "--model.attention.session", "last_k", "--model.attention.time-lag", "None")
    items = dataclasses.replace(config.embeddings, features=("hist_item", "item"), dim=16)
    config = dataclasses.replace(config, embeddings=items)
    loaded = untrained(config, ranks)
    loader = evaluation_loader(config, folder=small_matching / "test", schema=loaded.schema, ranks=ranks)
    path = write_windows(tmp_path / "windows.csv", lines_of("raw", times=False))
    windows = read_windows(path, data=small_matching, ids="raw")
    assert windows.time_BH is None
    found = evaluate_windows(loaded, windows, data=small_matching, ranks=ranks)
    assert found == evaluate(loaded.sharded, loader, ranks=ranks)


def test_the_silence_that_begins_a_session_is_that_of_the_preparation(
    matching_run: RunConfig, ranks: Ranks, tmp_path: Path
) -> None:
    data = shutil.copytree(matching_run.data, tmp_path / "data")
    preparation = data / "preparation.json"
    text = preparation.read_text()
    assert text.count('"session_gap_minutes": 5.0') == 1
    preparation.write_text(text.replace('"session_gap_minutes": 5.0', '"session_gap_minutes": 30.0'))
    loaded = load_run(matching_run, run=matching_run.run_dir, data=data, ranks=ranks)
    windows = read_windows(write_windows(tmp_path / "windows.csv", lines_of("raw")), data=data, ids="raw")
    expected = read_results(matching_run.run_dir)["metrics"]["test"]
    assert evaluate_windows(loaded, windows, data=data, ranks=ranks)["loss"] != expected["loss"]
    preparation.unlink()
    with pytest.raises(UserError, match=r"preparation\.json does not tell what silence begins a session"):
        evaluate_windows(loaded, windows, data=data, ranks=ranks)


def test_a_session_begins_with_a_window_and_after_a_long_silence_whatever_the_padding_holds() -> None:
    valid_BH = np.array([[False, False, True, True, True], [True, True, True, True, True]])
    time_BH = np.array([[0, 95, 100, 110, 121], [100, 111, 121, 132, 132]])
    assert _begins_session(valid_BH, time_BH, gap_seconds=10)[:, 2:].tolist() == [[1, 0, 1], [0, 1, 0]]
    assert _begins_session(valid_BH, time_BH, gap_seconds=10)[1, :2].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (("user", "hist_item", "hist_time_lag", "hist_new_session", "item"), "windows carry no user features"),
        (("hist_item", "hist_time_lag", "hist_new_session", "item"), "give times in each line"),
    ],
)
def test_what_a_model_needs_and_windows_lack_is_named(
    small_matching: Path, ranks: Ranks, tmp_path: Path, features: tuple[str, ...], words: str
) -> None:
    config = small_t2diff(small_matching, tmp_path, "--embeddings.dim", "16")
    config = dataclasses.replace(config, embeddings=dataclasses.replace(config.embeddings, features=features))
    path = write_windows(tmp_path / "windows.csv", lines_of("raw", times=False)[:3])
    windows = read_windows(path, data=small_matching, ids="raw")
    with pytest.raises(UserError, match=words):
        evaluate_windows(untrained(config, ranks), windows, data=small_matching, ranks=ranks)


def changed(value: int, text: str, *, line: int = 2) -> Callable[[list[str]], list[str]]:
    """Writes `text` in place of a value, both counted from 1."""

    def change(lines: list[str]) -> list[str]:
        words = lines[line - 1].split(",")
        words[value - 1] = text
        return [*lines[: line - 1], ",".join(words), *lines[line:]]

    return change


MALFORMED: dict[str, tuple[Ids, Callable[[list[str]], list[str]], str]] = {
    "too few values": ("raw", lambda lines: [lines[0], lines[1][:20]], r"line 2: \d+ values, expected 103 as in line 1"),
    "too many values": ("raw", lambda lines: [lines[0] + ",7"], "line 1: 104 values, expected 52, or 103 with times"),
    "a line without times": ("raw", lambda lines: [lines[0], ",".join(lines[1].split(",")[:52])], "line 2: 52 values"),
    "an empty line": ("raw", lambda lines: [lines[0], "", lines[1]], "line 2: 1 values"),
    "an empty file": ("raw", lambda _: [], "the file is empty"),
    "a header": ("raw", lambda lines: [",".join(["user"] * 103), *lines], "line 1, value 1: 'user', expected an integer"),
    "a fraction": ("raw", changed(50, "7.5"), "line 2, value 50: '7.5', expected an integer"),
    "a comment": ("raw", changed(52, "7#"), "line 2, value 52: '7#', expected an integer"),
    "a huge number": ("raw", changed(52, "9" * 19), "line 2, value 52: '9999999999999999999', expected an integer"),
    "an unknown raw item": ("raw", changed(51, "8"), r"line 2, value 51: item 8, expected one of .*vocabularies\.json"),
    "a negative raw item": ("raw", changed(51, "-1"), "line 2, value 51: item -1, expected one of"),
    "an unknown prepared item": ("prepared", changed(51, "90"), r"line 2, value 51: item 90, expected one of \[0, 90\), or -1"),
    "a raw target that is padding": ("raw", changed(52, "0"), "line 2, value 52: item 0, expected one of"),
    "a prepared target that is padding": ("prepared", changed(52, "-1"), "line 2, value 52: item -1, expected one of"),
    "padding after a behaviour": ("prepared", changed(51, "-1"), "line 2: padding after a behaviour"),
    "raw padding after a behaviour": ("raw", changed(51, "0"), "line 2: padding after a behaviour"),
    "prepared ids read as raw ones": (
        "raw",
        lambda _: _text(lines_of("prepared")),
        r"line 1, value \d+: item -?\d+, expected one of .*--ids raw",
    ),
}


def _text(lines: list[list[int]]) -> list[str]:
    return [",".join(map(str, line)) for line in lines]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_bad_data_that_names_line_and_value(small_matching: Path, tmp_path: Path, name: str) -> None:
    ids, change, words = MALFORMED[name]
    path = tmp_path / "windows.csv"
    path.write_text("".join(line + "\n" for line in change(_text(lines_of(ids))[:4])))
    with pytest.raises(DataError, match=words) as caught:
        read_windows(path, data=small_matching, ids=ids)
    assert str(path) in str(caught.value)


def test_bytes_that_are_no_text_are_bad_data(small_matching: Path, tmp_path: Path) -> None:
    (tmp_path / "windows.csv").write_bytes(b"\xff\xfe1,2")
    with pytest.raises(DataError, match="expected lines of integers"):
        read_windows(tmp_path / "windows.csv", data=small_matching, ids="raw")


@pytest.mark.parametrize(
    ("vocabulary", "words"), [(None, "--ids prepared"), ('{"item": ["B000"]}', "--ids prepared"), ('{"item": [0, 7]}', "padding")]
)
def test_raw_ids_need_a_vocabulary_of_integers_other_than_padding(
    small_matching: Path, tmp_path: Path, vocabulary: str | None, words: str
) -> None:
    shutil.copy(small_matching / "schema.json", tmp_path)
    if vocabulary is not None:
        (tmp_path / "vocabularies.json").write_text(vocabulary)
    path = write_windows(tmp_path / "windows.csv", lines_of("raw")[:2])
    with pytest.raises(DataError, match=rf"vocabularies\.json: .*{words}"):
        read_windows(path, data=tmp_path, ids="raw")


def command(monkeypatch: pytest.MonkeyPatch, run: Path, *arguments: str) -> int:
    """Exit code of `python -m trainer.evaluate`."""
    monkeypatch.setattr(sys, "argv", ["evaluate", "--run", str(run), *arguments])
    try:
        evaluate_command.main()
    except SystemExit as left:
        return left.code
    return 0


def test_the_command_prints_the_metrics_of_windows_and_the_protocol(
    matching_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_windows(tmp_path / "mine.csv", lines_of("prepared"))
    assert command(monkeypatch, matching_run.run_dir, "--windows", str(path), "--ids", "prepared") == 0
    printed = capsys.readouterr().out
    recall = read_results(matching_run.run_dir)["metrics"]["test"]["recall@20"]
    assert any(line.split("│")[1:3] == [" recall@20    ", f" {recall:8.5g} "] for line in printed.splitlines() if "│" in line)
    assert "among all 90 items" in printed
    assert "rows: mine.csv 120" in printed


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("1,2,3\n", 3, "DataError: "),
        (None, 2, "UserError: --windows "),
        ("".join(line + "\n" for line in _text(lines_of("raw", times=False))), 2, "UserError: the model uses "),
    ],
)
def test_the_command_leaves_with_the_code_of_the_error(
    matching_run: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    code: int,
    words: str,
) -> None:
    path = tmp_path / "windows.csv"
    if content is not None:
        path.write_text(content)
    assert command(monkeypatch, matching_run.run_dir, "--windows", str(path)) == code
    assert words in capsys.readouterr().err
