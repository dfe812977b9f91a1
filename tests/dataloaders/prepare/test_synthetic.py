import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from dataloaders.loader import Dataloader, LoaderConfig
from dataloaders.prepare.synthetic import NUM_ACTIVITIES, NUM_TAGS, SyntheticConfig, area_under_curve, prepare_synthetic
from dataloaders.schema import Schema, content_id_of

SMALL = SyntheticConfig(
    out=Path("unused"),
    num_users=300,
    num_items=200,
    num_themes=8,
    liked_themes=3,
    train_rows=4_000,
    validation_rows=1_000,
    test_rows=1_000,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("synthetic") / "small")


def prepare(out: Path, **changes) -> Path:
    prepare_synthetic(dataclasses.replace(SMALL, out=out, **changes))
    return out


def test_the_logit_follows_from_the_visible_features_by_the_documented_formula(small: Path) -> None:
    for row in pl.read_parquet(small / "test").head(200).to_dicts():
        quality = sum(-1 + 2 * tag / (NUM_TAGS - 1) for tag in row["tags"])
        activity = -1 + 2 * row["activity"] / (NUM_ACTIVITIES - 1)
        rival = row["category"] + (1 if row["category"] % 2 == 0 else -1)
        balance = row["hist_category"].count(row["category"]) - row["hist_category"].count(rival)
        expected = SMALL.main_weight * (quality + activity) + SMALL.cross_weight * balance
        assert row["true_logit"] == pytest.approx(expected, abs=1e-9)


def test_labels_are_drawn_with_the_probability_of_the_logit(small: Path) -> None:
    frame = pl.concat([pl.read_parquet(small / split) for split in ("validation", "test")])
    probability = 1 / (1 + np.exp(-frame["true_logit"].to_numpy()))
    label = frame["label"].to_numpy()
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        inside = (probability >= low) & (probability < high)
        error = math.sqrt(probability[inside].mean() * (1 - probability[inside].mean()) / inside.sum())
        assert abs(label[inside].mean() - probability[inside].mean()) < 4 * error


def test_truth_holds_the_auc_and_logloss_of_the_true_logit(small: Path) -> None:
    truth = json.loads((small / "truth.json").read_text())
    for split in ("validation", "test"):
        frame = pl.read_parquet(small / split)
        label, logit = frame["label"].to_numpy(), frame["true_logit"].to_numpy()
        assert truth[split]["bayes_auc"] == pytest.approx(roc_auc_score(label, logit))
        probability = 1 / (1 + np.exp(-logit))
        logloss = -np.mean(label * np.log(probability) + (1 - label) * np.log(1 - probability))
        assert truth[split]["bayes_logloss"] == pytest.approx(logloss)
        assert truth[split]["positive_share"] == pytest.approx(label.mean())
        assert truth[split]["bayes_auc_without_cross"] < truth[split]["bayes_auc"] - 0.1


def test_without_the_cross_term_both_aucs_agree(tmp_path: Path) -> None:
    truth = json.loads((prepare(tmp_path / "plain", cross_weight=0.0) / "truth.json").read_text())["test"]
    assert truth["bayes_auc"] == truth["bayes_auc_without_cross"]


def test_a_visit_keeps_to_its_liked_themes_and_mostly_to_one_style_of_each(small: Path) -> None:
    majority, behaviours = 0, 0
    for history in pl.read_parquet(small / "train")["hist_category"].to_list()[:1_000]:
        themes = {category // 2 for category in history}
        assert len(themes) <= SMALL.liked_themes
        majority += sum(max(history.count(2 * theme), history.count(2 * theme + 1)) for theme in themes)
        behaviours += len(history)
    assert majority / behaviours == pytest.approx(1 - SMALL.style_noise, abs=0.02)


def test_histories_keep_their_lengths_and_item_and_category_agree(small: Path) -> None:
    frame = pl.read_parquet(small / "train")
    lengths = frame["hist_item"].list.len()
    assert (lengths.min(), lengths.max()) == SMALL.history_len
    items = pl.read_parquet(small / "items.parquet")
    assert items["item"].to_list() == list(range(SMALL.num_items))
    category_I = items["category"].to_numpy()
    assert np.array_equal(category_I[frame["hist_item"].explode().to_numpy()], frame["hist_category"].explode().to_numpy())
    assert np.array_equal(category_I[frame["item"].to_numpy()], frame["category"].to_numpy())
    assert all(len(set(tags)) == 3 for tags in items["tags"].to_list())


def test_the_same_seed_writes_the_same_bytes_and_another_seed_other_rows(small: Path, tmp_path: Path) -> None:
    again, other = prepare(tmp_path / "again"), prepare(tmp_path / "other", seed=1)
    schema, changed = Schema.load(small), Schema.load(other)
    assert schema.content_id == content_id_of(small)
    assert (schema.fingerprint == changed.fingerprint, schema.identity == changed.identity) == (True, False)
    for path in sorted(small.rglob("*.parquet")):
        assert path.read_bytes() == (again / path.relative_to(small)).read_bytes()
        assert path.read_bytes() != (other / path.relative_to(small)).read_bytes()


def test_the_loader_reads_the_data_set_with_its_own_labels(small: Path) -> None:
    schema = Schema.load(small)
    assert schema.num_rows == {"train": 4_000, "validation": 1_000, "test": 1_000}
    assert [feature.name for feature in schema.sequence_features] == ["hist_item", "hist_category", "item", "category"]
    config = LoaderConfig(batch_size=500, lanes=2, prefetch=0)
    batches = list(Dataloader(schema, small / "test", config=config, seed=0, shuffle=False))
    label = np.concatenate([batch.label_B.numpy() for batch in batches])
    assert label.sum() == pl.read_parquet(small / "test")["label"].sum()


def test_the_default_data_set_leaves_room_between_main_effects_and_bayes(tmp_path: Path) -> None:
    prepare_synthetic(SyntheticConfig(out=tmp_path / "demo"))
    truth = json.loads((tmp_path / "demo" / "truth.json").read_text())["test"]
    assert truth["bayes_auc"] == pytest.approx(0.90, abs=0.01)
    assert truth["bayes_auc_without_cross"] == pytest.approx(0.65, abs=0.02)


def test_auc_counts_ties_half() -> None:
    score, label = np.array([1.0, 1.0, 2.0, 0.0, 2.0, 1.0]), np.array([1, 0, 1, 0, 0, 1])
    assert area_under_curve(score, label_R=label) == pytest.approx(roc_auc_score(label, score))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_users": 0}, "num_users=0, expected at least 1"),
        ({"test_rows": 0}, "test_rows=0, expected at least 1"),
        ({"num_items": 15}, "num_items=15, expected at least one for each of 16 categories"),
        ({"liked_themes": 9}, "liked_themes=9, expected 1 to num_themes=8"),
        ({"history_len": (5, 4)}, r"history_len=\(5, 4\), expected 0 <= fewest <= most"),
        ({"style_noise": 1.5}, r"style_noise=1\.5, expected a share"),
        ({"seed": -1}, "seed=-1, expected 0 or above"),
    ],
)
def test_a_config_that_makes_no_sense_names_field_and_value(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)
