import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from dataloaders.errors import DataError
from dataloaders.loader import Dataloader, LoaderConfig
from dataloaders.negatives import NegativeConfig, NegativeSampler
from dataloaders.prepare.ml1m import Ml1mConfig, prepare_ml1m
from dataloaders.prepare.ml1m_raw import RawMl1m, read_ml1m
from dataloaders.prepare.protocols import ProtocolConfig
from dataloaders.schema import Schema, content_id_of
from dataloaders.touched_items import TouchedItems
from tests.dataloaders.prepare.tiny_ml1m import write_random_raw, write_raw

SPLITS = ("train", "validation", "test")


def prepare(raw: Path, out: Path, *, task: str = "next_behaviour", **protocol) -> Path:
    prepare_ml1m(Ml1mConfig(raw=raw, out=out, task=task, protocol=ProtocolConfig(**protocol)))
    return out


def rows(folder: Path, split: str) -> list[dict[str, object]]:
    return pq.read_table(folder / split).to_pylist()


def brief(row: dict[str, object]) -> tuple[object, ...]:
    return row["row_id"], row["user"], row["hist_item"], row["hist_time_lag"], row["item"], row["label"]


def by_row_id(folder: Path, split: str, *, label: float) -> list[tuple[object, ...]]:
    return sorted(brief(row) for row in rows(folder, split) if row["label"] == label)


def test_leave_one_out_with_last_but_one_gives_the_rows_worked_out_by_hand(tmp_path: Path) -> None:
    out = prepare(write_raw(tmp_path / "raw"), tmp_path / "out", validation="last_but_one")
    # (ratings.dat row, user, items before, log2 buckets of the seconds since, item, label)
    assert sorted(brief(row) for row in rows(out, "train")) == [(0, 0, [1], [4], 0, 1.0), (4, 1, [1], [4], 0, 1.0)]
    assert by_row_id(out, "validation", label=1) == [(3, 0, [1, 0], [4, 0], 2, 1.0), (7, 1, [1, 0], [5, 4], 2, 1.0)]
    assert by_row_id(out, "test", label=1) == [
        (5, 0, [1, 0, 2], [7, 7, 7], 3, 1.0),
        (6, 2, [], [], 4, 1.0),
        (8, 1, [1, 0, 2], [5, 5, 4], 3, 1.0),
        (9, 3, [4], [7], 5, 1.0),
    ]


def test_rating_drops_three_stars_and_labels_what_is_liked(tmp_path: Path) -> None:
    out = prepare(write_raw(tmp_path / "raw"), tmp_path / "out", task="rating", validation="last_but_one")
    assert sorted(brief(row) for row in rows(out, "train")) == [(0, 0, [], [], 0, 1.0), (1, 1, [], [], 1, 1.0)]
    assert sorted(brief(row) for row in rows(out, "validation")) == [
        (3, 0, [0], [0], 2, 0.0),
        (4, 1, [1], [4], 0, 0.0),
        (10, 3, [], [], 4, 0.0),
    ]
    assert sorted(brief(row) for row in rows(out, "test")) == [
        (5, 0, [0, 2], [7, 7], 3, 1.0),
        (6, 2, [], [], 4, 1.0),
        (7, 1, [1, 0], [5, 4], 2, 1.0),
        (9, 3, [4], [7], 5, 1.0),
    ]


def test_next_item_has_positives_alone_in_every_split(tmp_path: Path) -> None:
    out = prepare(write_raw(tmp_path / "raw"), tmp_path / "out", task="next_item", validation="last_but_one")
    assert sorted(brief(row) for row in rows(out, "train")) == [(0, 0, [1], [4], 0, 1.0), (4, 1, [1], [4], 0, 1.0)]
    assert sorted(brief(row) for row in rows(out, "validation")) == [(3, 0, [1, 0], [4, 0], 2, 1.0), (7, 1, [1, 0], [5, 4], 2, 1.0)]
    assert sorted(brief(row) for row in rows(out, "test")) == [
        (5, 0, [1, 0, 2], [7, 7, 7], 3, 1.0),
        (6, 2, [], [], 4, 1.0),
        (8, 1, [1, 0, 2], [5, 5, 4], 3, 1.0),
        (9, 3, [4], [7], 5, 1.0),
    ]
    schema = Schema.load(out)
    assert (schema.task, schema.name) == ("next_item", "ml1m/next_item/leave_one_out")
    assert schema.num_rows == {"train": 2, "validation": 2, "test": 4}
    assert not (out / "test_popularity").exists()


@pytest.mark.parametrize(("minutes", "of_user_1", "of_user_2"), [(0.5, [1, 0, 0], [1, 0, 0]), (0.15, [1, 1, 0], [1, 1, 1])])
def test_next_item_marks_where_sessions_begin(tmp_path: Path, minutes: float, of_user_1: list[int], of_user_2: list[int]) -> None:
    raw, out = write_raw(tmp_path / "raw"), tmp_path / "out"
    prepare_ml1m(Ml1mConfig(raw=raw, out=out, task="next_item", session_gap_minutes=minutes))
    flags = {row["row_id"]: row["hist_new_session"] for row in rows(out, "test")}
    # before the last rating: user 1 at 90, 100, 100 s, user 2 at 50, 60, 70 s
    assert (flags[5], flags[8]) == (of_user_1, of_user_2)
    vocabularies = json.loads((out / "vocabularies.json").read_text())
    assert vocabularies["new_session"] == ["no", "yes"]
    assert vocabularies.keys() == {feature.space for feature in Schema.load(out).features} | {"item_title"}


def test_only_next_item_has_sessions(tmp_path: Path) -> None:
    out = prepare(write_raw(tmp_path / "raw"), tmp_path / "out", validation="last_but_one")
    assert "hist_new_session" not in rows(out, "test")[0]
    assert "new_session" not in json.loads((out / "vocabularies.json").read_text())


@pytest.mark.parametrize("minutes", [-1.0, float("nan"), float("inf"), 1e9])
def test_a_session_gap_that_makes_no_sense_is_refused(minutes: float) -> None:
    with pytest.raises(ValueError, match=rf"session_gap_minutes={minutes}, expected 0 to 71582788".replace("+", r"\+")):
        Ml1mConfig(raw=Path("raw"), out=Path("out"), session_gap_minutes=minutes)


def test_every_column_of_a_row_describes_its_user_and_item(tmp_path: Path) -> None:
    out = prepare(write_raw(tmp_path / "raw"), tmp_path / "out", validation="last_but_one")
    row = next(row for row in rows(out, "test") if row["row_id"] == 5)
    vocabularies = json.loads((out / "vocabularies.json").read_text())
    assert vocabularies["user"][row["user"]] == 1
    assert vocabularies["gender"][row["gender"]] == "F"
    assert vocabularies["age"][row["age"]] == "Under 18"
    assert vocabularies["occupation"][row["occupation"]] == "K-12 student"
    assert vocabularies["zip_region"][row["zip_region"]] == "4...."
    assert vocabularies["item"][row["item"]] == 40
    assert vocabularies["item_title"][row["item"]].startswith("Star Wars")
    assert vocabularies["category"][row["category"]] == "|".join(vocabularies["genre"])
    assert row["genres"] == list(range(18))
    categories = [vocabularies["category"][category] for category in row["hist_category"]]
    assert categories == ["Adventure|Sci-Fi", "Animation|Children's|Comedy", "Action"]


def reference_history(raw: RawMl1m, row_id: int, *, by_time: bool, drop_3_stars: bool) -> list[int]:
    """The history of the behaviour in row `row_id` of ratings.dat, by a plain loop over the file."""
    kept = [index for index in range(len(raw.user_N)) if not (drop_3_stars and raw.rating_N[index] == 3)]
    mine = [index for index in kept if raw.user_N[index] == raw.user_N[row_id]]
    if by_time:
        mine.sort(key=lambda index: (raw.time_N[index], index))
    return [int(raw.item_N[index]) for index in mine[: mine.index(row_id)][-50:]]


@pytest.mark.parametrize(
    ("task", "protocol"),
    [
        ("next_behaviour", {"split": "leave_one_out"}),
        ("next_behaviour", {"split": "user_windows"}),
        ("next_behaviour", {"split": "global_time"}),
        ("next_item", {"split": "leave_one_out", "validation": "last_but_one"}),
        ("next_item", {"split": "user_windows"}),
        ("rating", {"split": "leave_one_out"}),
        ("rating", {"split": "user_windows"}),
        ("rating", {"split": "global_time"}),
    ],
)
def test_histories_equal_a_loop_over_the_file_in_every_protocol(tmp_path: Path, task: str, protocol: dict[str, str]) -> None:
    raw_folder = write_random_raw(tmp_path / "raw")
    raw = read_ml1m(raw_folder)
    out = prepare(raw_folder, tmp_path / "out", task=task, **protocol)
    for split in SPLITS:
        some = rows(out, split)[::7]
        assert some
        for row in some:
            expected = reference_history(
                raw,
                row["row_id"] % len(raw.user_N),
                by_time=protocol["split"] != "user_windows",
                drop_3_stars=task == "rating",
            )
            assert row["hist_item"] == expected


def test_fixed_negatives_are_never_touched_and_share_everything_else_with_their_positive(tmp_path: Path) -> None:
    raw_folder = write_random_raw(tmp_path / "raw")
    raw = read_ml1m(raw_folder)
    touched = set(zip(raw.user_N.tolist(), raw.item_N.tolist(), strict=True))
    out = prepare(raw_folder, tmp_path / "out")
    for split in ("validation", "test", "test_popularity"):
        frame = pl.read_parquet(out / split).sort("row_id")
        positive, negative = frame.filter(pl.col("label") == 1), frame.filter(pl.col("label") == 0)
        assert (negative["row_id"] - len(raw.user_N)).to_list() == positive["row_id"].to_list()
        shared = ["user", "gender", "age", "occupation", "zip_region", "hist_item", "hist_category", "hist_time_lag"]
        assert negative.select(shared).equals(positive.select(shared))
        assert not touched & set(zip(negative["user"].to_list(), negative["item"].to_list(), strict=True))
        assert set(zip(positive["user"].to_list(), positive["item"].to_list(), strict=True)) <= touched


def test_a_fixed_negative_is_the_loaders_own_draw_for_its_positives_row_id(tmp_path: Path) -> None:
    out = prepare(write_random_raw(tmp_path / "raw"), tmp_path / "out", seed=4)
    frame = pl.read_parquet(out / "test").sort("row_id")
    positive, negative = frame.filter(pl.col("label") == 1), frame.filter(pl.col("label") == 0)
    sampler = NegativeSampler(TouchedItems.load(out, Schema.load(out)), num=1, seed=4)
    drawn = sampler.draw(epoch=0, row_id_B=positive["row_id"].to_numpy(), user_B=positive["user"].to_numpy())[0]
    assert negative["item"].to_list() == drawn.tolist()


def test_popular_items_are_drawn_more_often_against_the_same_test_positives(tmp_path: Path) -> None:
    popular = "".join(f"{user}::10::5::{user}\n{user}::{20 + user % 2 * 10}::5::{user + 50}\n" for user in range(1, 200))
    lonely = "".join(f"{user}::70::5::10\n{user}::50::5::20\n{user}::40::5::30\n" for user in range(200, 400))
    users = "".join(f"{user}::F::1::10::48067\n" for user in range(1, 400))
    out = prepare(write_raw(tmp_path / "raw", ratings=popular + lonely, users=users), tmp_path / "out")
    uniform, by_popularity = (pl.read_parquet(out / split) for split in ("test", "test_popularity"))
    positives = pl.col("label") == 1
    assert uniform.filter(positives).equals(by_popularity.filter(positives))
    # about 160 of the 200 users from 200 on train on item 50 (id 4), which users below 200 never touched; nobody trains on others
    shares = [(frame.filter(~positives, pl.col("user") < 199)["item"] == 4).mean() for frame in (uniform, by_popularity)]
    assert 0.1 < shares[0] < 0.5
    assert shares[1] > 0.9


def test_user_items_list_dropped_behaviours_too(tmp_path: Path) -> None:
    out = prepare(write_raw(tmp_path / "raw"), tmp_path / "out", task="rating", validation="last_but_one")
    pairs = pq.read_table(out / "user_items.parquet").to_pydict()
    assert list(zip(pairs["user"], pairs["item"], strict=True)) == [
        (0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (2, 4), (3, 4), (3, 5),
    ]  # fmt: skip


def test_row_ids_are_unique_over_the_whole_data_set(tmp_path: Path) -> None:
    out = prepare(write_random_raw(tmp_path / "raw"), tmp_path / "out")
    ids = np.concatenate([pq.read_table(out / split)["row_id"].to_numpy() for split in SPLITS])
    assert len(ids) == len(set(ids))


def test_the_schema_counts_the_rows_of_each_split_and_names_the_protocol(tmp_path: Path) -> None:
    out = prepare(write_random_raw(tmp_path / "raw"), tmp_path / "out", seed=5)
    schema = Schema.load(out)
    assert schema.name == "ml1m/next_behaviour/leave_one_out"
    assert schema.num_rows == {split: len(rows(out, split)) for split in (*SPLITS, "test_popularity")}
    assert [feature.name for feature in schema.sequence_features] == [
        "hist_item",
        "hist_category",
        "hist_time_lag",
        "item",
        "category",
    ]
    preparation = json.loads((out / "preparation.json").read_text())
    assert preparation["config"]["protocol"]["seed"] == 5
    assert preparation["md5"].keys() == {"ratings.dat", "users.dat", "movies.dat"}


def assert_identity_of_files(folder: Path, *, other: Path) -> None:
    schema, changed = Schema.load(folder), Schema.load(other)
    assert schema.content_id == content_id_of(folder)
    assert schema.fingerprint == changed.fingerprint
    assert schema.identity != changed.identity


def test_the_same_seed_writes_the_same_bytes_and_another_seed_other_rows(tmp_path: Path) -> None:
    raw = write_random_raw(tmp_path / "raw")
    first, again, other = (prepare(raw, tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert_identity_of_files(first, other=other)
    for path in sorted(first.rglob("*.parquet")):
        assert path.read_bytes() == (again / path.relative_to(first)).read_bytes()
    assert (first / "train/part-00000.parquet").read_bytes() != (other / "train/part-00000.parquet").read_bytes()


def test_the_loader_reads_what_was_prepared_and_draws_its_negatives(tmp_path: Path) -> None:
    out = prepare(write_random_raw(tmp_path / "raw"), tmp_path / "out")
    schema = Schema.load(out)
    config = LoaderConfig(batch_size=64, lanes=2, prefetch=0, negatives=NegativeConfig(kind="uniform"))
    labels = [batch.label_B.mean().item() for batch in Dataloader(schema, out / "train", config=config, seed=0, shuffle=True)]
    assert labels == [0.5] * len(labels)
    assert labels


def test_a_failed_run_leaves_nothing_and_an_existing_folder_is_kept(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", ratings="1::10::5::100\n")
    with pytest.raises(DataError, match="becomes a train row"):
        prepare(raw, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=r"--out .*out exists"):
        prepare(raw, tmp_path / "out")


def test_the_command_line_prepares_and_prints_the_counts(tmp_path: Path) -> None:
    raw = write_random_raw(tmp_path / "raw")
    command = [sys.executable, "-m", "dataloaders.prepare.ml1m", "--raw", str(raw), "--out", str(tmp_path / "out")]
    arguments = ["--task", "rating", "--split", "global_time", "--time-fractions", "0.6", "0.2", "0.2", "--seed", "3"]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert "rows of train" in result.stdout
    assert Schema.load(tmp_path / "out").name == "ml1m/rating/global_time"


@pytest.mark.ml1m
@pytest.mark.parametrize(
    ("task", "train", "validation", "test"),
    [
        ("next_behaviour", 790_503, 395_252, 12_080),
        ("next_item", 790_503, 197_626, 6_040),
        ("rating", 586_378, 146_594, 6_040),
    ],
)
def test_the_official_files_give_the_known_counts(
    ml1m_raw: Path, tmp_path: Path, task: str, train: int, validation: int, test: int
) -> None:
    num_rows = Schema.load(prepare(ml1m_raw, tmp_path / "out", task=task)).num_rows
    assert {split: num_rows[split] for split in SPLITS} == {"train": train, "validation": validation, "test": test}
