"""The matching demo's data set has the drift that its page describes, and truth.json says what can be reached."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dataloaders.loader import Dataloader, LoaderConfig
from dataloaders.prepare.common import run_command
from dataloaders.prepare.synthetic_sequences import (
    BREAK_SECONDS,
    SESSION_GAP_SECONDS,
    STEP_SECONDS,
    SyntheticSequencesConfig,
    Walks,
    draw_walks,
    prepare_synthetic_sequences,
    target_chances,
)
from dataloaders.schema import Schema, content_id_of

SMALL = SyntheticSequencesConfig(
    out=Path("unused"), num_users=2_000, num_items=110, num_categories=12, behaviours_per_user=(4, 9), drifts=(-3, 1, 2)
)


def prepare(out: Path, **changes) -> Path:
    prepare_synthetic_sequences(dataclasses.replace(SMALL, out=out, **changes))
    return out


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("synthetic_sequences") / "small")


@pytest.fixture(scope="module")
def walks() -> Walks:
    return draw_walks(SMALL)


def binomial_error(share: float, count: int) -> float:
    return math.sqrt(share * (1 - share) / count)


def test_steps_follow_the_sessions_drift_as_often_as_configured_and_else_fall_anywhere(walks: Walks) -> None:
    same_user = np.flatnonzero(walks.user_N[1:] == walks.user_N[:-1]) + 1
    category_N = walks.item_N % SMALL.num_categories
    # the step that is left when the drift is taken away, on the circle
    rest = (category_N[same_user] - category_N[same_user - 1] - np.array(SMALL.drifts)[walks.drift_N[same_user]]) % 12
    share_C = np.bincount(rest, minlength=12) / len(rest)
    expected_C = np.full(12, (1 - SMALL.drift_share) / 12)
    expected_C[0] += SMALL.drift_share
    for found, expected in zip(share_C, expected_C, strict=True):
        assert abs(found - expected) < 4 * binomial_error(expected, len(rest))


def test_a_drift_lasts_a_session_and_sessions_draw_theirs_alike(walks: Walks) -> None:
    inside = np.flatnonzero(~walks.begins_session_N)
    assert np.array_equal(walks.drift_N[inside], walks.drift_N[inside - 1])
    first_S = np.bincount(walks.drift_N[walks.begins_session_N], minlength=3)
    assert np.abs(first_S / first_S.sum() - 1 / 3).max() < 4 * binomial_error(1 / 3, first_S.sum())


def test_sessions_break_as_often_as_configured_and_time_shows_where(walks: Walks) -> None:
    first_N = np.append(True, walks.user_N[1:] != walks.user_N[:-1])
    assert walks.begins_session_N[first_N].all()
    share, later = SMALL.session_break_share, ~first_N
    assert abs(walks.begins_session_N[later].mean() - share) < 4 * binomial_error(share, later.sum())
    silence_N = np.diff(walks.time_N, prepend=0)
    for begins, bounds in ((True, BREAK_SECONDS), (False, STEP_SECONDS)):
        chosen = silence_N[later & (walks.begins_session_N == begins)]
        assert bounds[0] <= chosen.min() < chosen.max() <= bounds[1]
    assert STEP_SECONDS[1] < SESSION_GAP_SECONDS < BREAK_SECONDS[0]


def test_items_of_a_category_are_drawn_by_their_popularity(walks: Walks) -> None:
    found = np.bincount(walks.item_N, minlength=110)[5::12]  # category 5 has the items 5, 17, ... 101
    weight = np.arange(1.0, 10.0) ** -SMALL.popularity_exponent
    for count, share in zip(found, weight / weight.sum(), strict=True):
        assert abs(count / found.sum() - share) < 4 * binomial_error(share, found.sum())


def test_chances_of_a_state_sum_to_one_and_a_drift_sends_its_share_one_step_on(walks: Walks) -> None:
    chance_SCI = target_chances(SMALL)
    assert chance_SCI.shape == (4, 12, 110)
    assert chance_SCI.sum(axis=2) == pytest.approx(1)
    into_SC12 = np.stack([chance_SCI[:, :, np.arange(110) % 12 == category].sum(axis=2) for category in range(12)], axis=2)
    assert into_SC12[0, 2, 11] == pytest.approx(0.9 + 0.1 / 12)  # drift -3 from category 2
    assert into_SC12[0, 2, 3] == pytest.approx(0.1 / 12)
    assert into_SC12[3, 2, [11, 3, 4]] == pytest.approx(0.3 + 0.1 / 12)
    # behaviours that follow category 2 in a session of drift 1
    previous = np.flatnonzero((walks.item_N[:-1] % 12 == 2) & ~walks.begins_session_N[1:] & (walks.drift_N[1:] == 1))
    found_I = np.bincount(walks.item_N[previous + 1], minlength=110) / len(previous)
    assert np.abs(found_I - chance_SCI[1, 2]).max() < 4 * binomial_error(chance_SCI[1, 2].max(), len(previous))


def targets(folder: Path) -> list[dict[str, object]]:
    """Rows of validation and test."""
    return pl.concat([pl.read_parquet(folder / split) for split in ("validation", "test")]).to_dicts()


SHARE_I = [
    (n + 1) ** -0.5 / sum((k + 1) ** -0.5 for k in range(10 if c < 2 else 9)) for n, c in (divmod(i, 12) for i in range(110))
]
"""Chance of an item within its category; categories 0 and 1 have ten items, the others nine."""


def chances(row: dict[str, object], *, know_drift: bool) -> list[float]:
    """Chance of every item, for one who sees the row's history and maybe its true drift; a plain loop."""
    previous, chance_of = row["hist_category"][-1], dict.fromkeys(range(12), 0.1 / 12)
    known = know_drift and not row["true_begins_session"]
    for drift in (row["true_drift"],) if known else SMALL.drifts:
        chance_of[(previous + drift) % 12] += 0.9 / (1 if known else 3)
    return [chance_of[item % 12] * SHARE_I[item] for item in range(110)]


def best(chance_I: list[float], cutoff: int) -> list[int]:
    return sorted(range(110), key=lambda item: -chance_I[item])[:cutoff]


@pytest.mark.parametrize("cutoff", [10, 20])
def test_truth_is_the_chance_of_the_best_lists_and_agrees_with_their_hits_on_the_written_rows(small: Path, cutoff: int) -> None:
    truth = json.loads((small / "truth.json").read_text())
    rows = targets(small)
    known = [chances(row, know_drift=True) for row in rows]
    unknown = [chances(row, know_drift=False) for row in rows]
    # what a list can expect, by the chances of one who knows as much as truth assumes; the list
    lists = {
        "best_recall@{}": [(chance_I, best(chance_I, cutoff)) for chance_I in known],
        "best_recall@{}_without_drift": [(chance_I, best(chance_I, cutoff)) for chance_I in unknown],
        "popularity_recall@{}": [(chance_I, best(SHARE_I, cutoff)) for chance_I in known],
    }
    found = {}
    for name, of_rows in lists.items():
        found[name] = (truth["validation"][name.format(cutoff)] + truth["test"][name.format(cutoff)]) / 2
        assert found[name] == pytest.approx(np.mean([sum(chance_I[item] for item in items) for chance_I, items in of_rows]))
        hits = [row["item"] in items for row, (_, items) in zip(rows, of_rows, strict=True)]
        assert abs(np.mean(hits) - found[name]) < 4 * binomial_error(found[name], len(rows)), name
    best_recall, without_drift, popularity = found.values()
    assert best_recall > without_drift + 0.1 > popularity + 0.2


def test_without_drift_nothing_beats_popularity(tmp_path: Path) -> None:
    truth = json.loads((prepare(tmp_path / "random", drift_share=0.0, num_users=50) / "truth.json").read_text())["test"]
    assert truth["best_recall@20"] == pytest.approx(truth["popularity_recall@20"])
    assert truth["best_recall@20"] == pytest.approx(truth["best_recall@20_without_drift"])


def test_the_last_behaviour_is_the_test_row_and_histories_hold_what_came_before(small: Path, walks: Walks) -> None:
    frames = {split: pl.read_parquet(small / split) for split in ("train", "validation", "test")}
    length_U = np.bincount(walks.user_N)
    assert [len(frames[split]) for split in frames] == [int((length_U - 3).sum()), 2_000, 2_000]
    assert frames["test"]["row_id"].to_list() == (np.cumsum(length_U) - 1).tolist()
    assert frames["validation"]["row_id"].to_list() == (np.cumsum(length_U) - 2).tolist()
    for frame in frames.values():
        assert frame["label"].to_list() == [1.0] * len(frame)
        for row in frame.head(100).to_dicts():
            start = int(np.searchsorted(walks.user_N, row["user"]))
            before = slice(start, row["row_id"])
            assert row["hist_item"] == walks.item_N[before].tolist()
            assert row["hist_category"] == (walks.item_N[before] % 12).tolist()
            assert row["hist_new_session"] == walks.begins_session_N[before].tolist()
            lags = walks.time_N[row["row_id"]] - walks.time_N[before]
            assert row["hist_time_lag"] == [int(lag).bit_length() for lag in lags]
            gaps = np.diff(walks.time_N[before.start : before.stop + 1])
            assert row["hist_time_gap"] == (1 + np.floor(8 * np.log2(gaps))).astype(int).tolist()
            assert (row["item"], row["category"]) == (walks.item_N[row["row_id"]], walks.item_N[row["row_id"]] % 12)


def test_the_time_lag_tells_whether_the_target_begins_a_session(small: Path) -> None:
    for row in targets(small):
        assert row["true_begins_session"] == (row["hist_time_lag"][-1] > SESSION_GAP_SECONDS.bit_length())


def test_long_walks_keep_their_newest_fifty_behaviours(tmp_path: Path) -> None:
    out = prepare(tmp_path / "long", num_users=3, behaviours_per_user=(60, 60))
    row = pl.read_parquet(out / "test").to_dicts()[1]
    walks = draw_walks(dataclasses.replace(SMALL, num_users=3, behaviours_per_user=(60, 60)))
    assert row["hist_item"] == walks.item_N[119 - 50 : 119].tolist()


def test_the_same_seed_writes_the_same_content_and_another_seed_other_rows(small: Path, tmp_path: Path) -> None:
    first, again, other = (Schema.load(folder) for folder in (small, prepare(tmp_path / "a"), prepare(tmp_path / "b", seed=1)))
    assert first.content_id == again.content_id == content_id_of(small)
    assert (first.fingerprint == other.fingerprint, first.content_id == other.content_id) == (True, False)


def test_the_schema_has_the_columns_of_movielens_and_the_loader_reads_them(small: Path) -> None:
    schema = Schema.load(small)
    assert (schema.name, schema.task) == ("synthetic_sequences/next_item/leave_one_out", "next_item")
    assert [(feature.name, feature.side, feature.max_len, feature.min_len) for feature in schema.features] == [
        ("user", "user", 1, 1),
        *((f"hist_{name}", "history", 50, 0) for name in ("item", "category", "time_lag", "new_session", "time_gap")),
        ("item", "item", 1, 1),
        ("category", "item", 1, 1),
    ]
    config = LoaderConfig(batch_size=512, lanes=2, prefetch=0)
    batches = list(Dataloader(schema, small / "test", config=config, seed=0, shuffle=False))
    assert sum(batch.num_rows for batch in batches) == schema.num_rows["test"] == 2_000


def test_the_default_data_set_trains_in_a_minute_and_leaves_room_for_the_drift(tmp_path: Path) -> None:
    prepare_synthetic_sequences(SyntheticSequencesConfig(out=tmp_path / "demo"))
    assert 40_000 <= Schema.load(tmp_path / "demo").num_rows["train"] <= 50_000
    truth = json.loads((tmp_path / "demo" / "truth.json").read_text())["test"]
    assert truth["best_recall@20"] == pytest.approx(0.565, abs=0.005)
    assert truth["best_recall@20_without_drift"] == pytest.approx(0.263, abs=0.005)
    assert truth["popularity_recall@20"] == pytest.approx(0.071, abs=0.005)


def test_the_command_line_takes_negative_drifts_prints_truth_and_refuses_an_existing_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path / "out"), "--num-users", "40", "--drifts", "-1", "2"]
    codes = [
        run_command(SyntheticSequencesConfig, prepare=prepare_synthetic_sequences, program="test", arguments=arguments)
        for _ in range(2)
    ]
    assert codes == [0, 2]
    printed = capsys.readouterr()
    assert "test best_recall@20_without_drift" in printed.out
    assert printed.err.startswith("error: --out")
    assert json.loads((tmp_path / "out" / "truth.json").read_text())["config"]["drifts"] == [-1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_users": 0}, "num_users=0, expected at least 1"),
        ({"num_categories": 1}, "num_categories=1, expected at least 2"),
        ({"num_items": 11}, "num_items=11, expected at least one for each of 12 categories"),
        ({"behaviours_per_user": (3, 9)}, r"behaviours_per_user=\(3, 9\), expected 4 <= fewest <= most"),
        ({"behaviours_per_user": (9, 8)}, r"behaviours_per_user=\(9, 8\), expected 4 <= fewest <= most"),
        ({"drifts": ()}, r"drifts=\(\), expected steps that are distinct on a circle of 12"),
        ({"drifts": (1, -11)}, r"drifts=\(1, -11\), expected steps that are distinct on a circle of 12"),
        ({"drift_share": 1.5}, r"drift_share=1\.5, expected a share from 0 to 1"),
        ({"session_break_share": float("nan")}, "session_break_share=nan, expected a share from 0 to 1"),
        ({"popularity_exponent": -0.1}, r"popularity_exponent=-0\.1, expected 0 to 2"),
        ({"seed": -1}, "seed=-1, expected 0 or above"),
    ],
)
def test_a_config_that_makes_no_sense_names_field_and_value(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)
