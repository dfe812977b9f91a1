"""The demo data set, with a cross structure of known size: `python -m dataloaders.prepare.synthetic --out DIR`.

Every theme (jazz, hiking, ...) has two rival styles, and a category is one style of one theme: 2t and 2t + 1 are rivals. A row is
one visit: the visitor likes a few themes and takes a side in each; the past behaviours of the visit fall into these themes, mostly
with the preferred style. For the target item, c its category::

    logit = main_weight · (quality(item) + activity(user)) + cross_weight · (#behaviours in c - #behaviours in c's rival)
    label ~ Bernoulli(sigmoid(logit))

The quality is a sum over the item's tags, the activity a user feature, and the last term a function of the visible history. So the
features determine the logit, and no model can reach a higher AUC than it (Bayes AUC). `DIR/truth.json` stores that AUC for the
labels as drawn, with and without the cross term; validation and test carry the logit in the column `true_logit`.

Why two separate towers fall behind: the cross term needs the balance of the two styles in the target's theme. A user vector that
does not know the target must carry the balances of all themes at once, more numbers than an embedding of 16 has, through one mean
over all behaviours, and each theme's balance is learned from the rows that aim at this theme alone. Attention that sees the target,
or a stand-in of it, needs one number, by one matching rule that all rows share.
"""

# R rows of all splits, I items, M themes a visitor likes, J history positions of all rows (jagged)

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from dataloaders.parquet_writer import write_items, write_split
from dataloaders.prepare.common import Dice, print_counts, random_stream, run_command, save_schema, staged_folder, write_json
from dataloaders.schema import Feature, Schema

NUM_TAGS = 24
TAGS_PER_ITEM = 3
NUM_ACTIVITIES = 8


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Prepare the demo data set.

    Raises:
        ValueError: a field is outside its range.
    """

    out: Path
    """Folder to write; must not exist."""
    num_users: int = 5_000
    """Users; the id itself says nothing but the user's activity, so a table of ids cannot replace the history."""
    num_items: int = 2_000
    """Items, spread evenly over the categories."""
    num_themes: int = 24
    """Themes; there are twice as many categories."""
    train_rows: int = 120_000
    """Rows of train."""
    validation_rows: int = 20_000
    """Rows of validation."""
    test_rows: int = 20_000
    """Rows of test."""
    liked_themes: int = 6
    """Themes in one visit's history."""
    liked_target_share: float = 0.9
    """Share of targets drawn from the liked themes; the others come from all themes."""
    history_len: tuple[int, int] = (15, 35)
    """Fewest and most behaviours of a row."""
    style_noise: float = 0.1
    """Share of behaviours with the style that the visitor does not prefer."""
    main_weight: float = 0.9
    """Scale of item quality and of user activity in the logit."""
    cross_weight: float = 0.6
    """Logit of one behaviour in the target's category."""
    seed: int = 0
    """Of everything that is drawn."""
    overwrite: bool = False
    """Replace a prepared data set at `out`."""

    def __post_init__(self) -> None:
        for name in ("num_users", "num_themes", "train_rows", "validation_rows", "test_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}, expected at least 1")
        if self.num_items < 2 * self.num_themes:
            raise ValueError(f"num_items={self.num_items}, expected at least one for each of {2 * self.num_themes} categories")
        if not 1 <= self.liked_themes <= self.num_themes:
            raise ValueError(f"liked_themes={self.liked_themes}, expected 1 to num_themes={self.num_themes}")
        if not 0 <= self.history_len[0] <= self.history_len[1] or self.history_len[1] < 1:
            raise ValueError(f"history_len={self.history_len}, expected 0 <= fewest <= most and most at least 1")
        for name in ("liked_target_share", "style_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}, expected a share from 0 to 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}, expected 0 or above")

    @property
    def num_rows(self) -> dict[str, int]:
        """Rows of each split."""
        return {"train": self.train_rows, "validation": self.validation_rows, "test": self.test_rows}


@dataclass(frozen=True, kw_only=True)
class Visits:
    """All rows of the data set, in ids."""

    user_R: np.ndarray
    """int64 [R]."""
    item_R: np.ndarray
    """int64 [R], the target."""
    hist_item_J: np.ndarray
    """int64 [J], rows one after another."""
    offset_R: np.ndarray
    """int64 [R + 1], where each row's behaviours begin."""


def draw_visits(config: SyntheticConfig) -> Visits:
    """Users, histories and targets of all rows; labels come from `true_logits`."""
    dice, num_rows = Dice(config.seed), sum(config.num_rows.values())
    theme_key = random_stream(num_rows * config.num_themes, seed=config.seed, purpose="liked themes")
    liked_RM = np.argsort(theme_key.reshape(num_rows, -1), axis=1)[:, : config.liked_themes]
    style_RM = dice.below(liked_RM.size, 2, purpose="preferred styles").reshape(liked_RM.shape)

    shortest, longest = config.history_len
    length_R = shortest + dice.below(num_rows, longest - shortest + 1, purpose="history lengths")
    row_J = np.repeat(np.arange(num_rows), length_R)
    place_J = dice.below(len(row_J), config.liked_themes, purpose="history themes")
    style_J = style_RM[row_J, place_J] ^ dice.chance(len(row_J), config.style_noise, purpose="style noise")
    hist_category_J = 2 * liked_RM[row_J, place_J] + style_J

    liked_R = liked_RM[np.arange(num_rows), dice.below(num_rows, config.liked_themes, purpose="liked targets")]
    any_R = dice.below(num_rows, config.num_themes, purpose="any targets")
    theme_R = np.where(dice.chance(num_rows, config.liked_target_share, purpose="target kinds"), liked_R, any_R)
    category_R = 2 * theme_R + dice.below(num_rows, 2, purpose="target styles")
    return Visits(
        user_R=dice.below(num_rows, config.num_users, purpose="users"),
        item_R=_items_of(category_R, config, dice, purpose="target items"),
        hist_item_J=_items_of(hist_category_J, config, dice, purpose="history items"),
        offset_R=np.concatenate([[0], np.cumsum(length_R)]),
    )


def category_of(item: np.ndarray, *, num_themes: int) -> np.ndarray:
    """Category of each item; categories 2t and 2t + 1 are rivals."""
    return item % (2 * num_themes)


def _items_of(category: np.ndarray, config: SyntheticConfig, dice: Dice, *, purpose: str) -> np.ndarray:
    """A random item of each category."""
    num_categories = 2 * config.num_themes
    num_items = (config.num_items - 1 - category) // num_categories + 1
    return category + num_categories * dice.below(len(category), num_items, purpose=purpose)


def tags_of_items(config: SyntheticConfig) -> np.ndarray:
    """Distinct tags of every item, int64 [I, TAGS_PER_ITEM]."""
    key = random_stream(config.num_items * NUM_TAGS, seed=config.seed, purpose="tags").reshape(-1, NUM_TAGS)
    return np.sort(np.argsort(key, axis=1)[:, :TAGS_PER_ITEM], axis=1)


def activity_of_users(config: SyntheticConfig) -> np.ndarray:
    """Activity level of every user, int64 [num_users]."""
    return Dice(config.seed).below(config.num_users, NUM_ACTIVITIES, purpose="activity")


def true_logits(visits: Visits, config: SyntheticConfig) -> tuple[np.ndarray, np.ndarray]:
    """(main_R, cross_R), float64: the two terms of every row's logit."""
    num_rows = len(visits.user_R)
    quality_I = np.linspace(-1, 1, NUM_TAGS)[tags_of_items(config)].sum(axis=1)  # a sum of three has unit variance
    activity_U = np.linspace(-1, 1, NUM_ACTIVITIES)[activity_of_users(config)]
    main_R = config.main_weight * (quality_I[visits.item_R] + activity_U[visits.user_R])
    row_J = np.repeat(np.arange(num_rows), np.diff(visits.offset_R))
    category_J = category_of(visits.hist_item_J, num_themes=config.num_themes)
    target_J = category_of(visits.item_R, num_themes=config.num_themes)[row_J]
    balance_J = (category_J == target_J).astype(np.int64) - (category_J == (target_J ^ 1))
    return main_R, config.cross_weight * np.bincount(row_J, balance_J, num_rows)


def area_under_curve(score_R: np.ndarray, *, label_R: np.ndarray) -> float:
    """Probability that a positive row scores above a negative one, ties counted half; NaN without both kinds."""
    _, place_R = np.unique(score_R, return_inverse=True)
    positives, negatives = (np.bincount(place_R, label_R == label, place_R.max() + 1) for label in (1, 0))
    below_or_tied = np.cumsum(negatives) - negatives / 2
    return float(positives @ below_or_tied / (positives.sum() * negatives.sum()))


def prepare_synthetic(config: SyntheticConfig) -> None:
    """Draw and write the data set; `config.out` appears complete or not at all.

    Raises:
        ValueError: `config.out` exists.
    """
    schema = _schema(config)
    with staged_folder(config.out, overwrite=config.overwrite) as folder:
        visits = draw_visits(config)
        main_R, cross_R = true_logits(visits, config)
        logit_R = main_R + cross_R
        label_R = Dice(config.seed).chance(len(logit_R), 1 / (1 + np.exp(-logit_R)), purpose="labels")
        items = _item_columns(config)
        write_items(folder, schema, items)
        columns = _columns(visits, items, config) | {"label": pa.array(label_R.astype(np.float32))}
        truth, start = {}, 0
        for split, num_rows in config.num_rows.items():
            rows = slice(start, start + num_rows)
            extra = None if split == "train" else {"true_logit": pa.array(logit_R[rows])}
            write_split(folder / split, schema, {name: array[rows] for name, array in columns.items()}, extra=extra)
            truth[split] = _truth(logit_R[rows], main_R=main_R[rows], label_R=label_R[rows])
            start += num_rows
        save_schema(folder, schema, num_rows=config.num_rows)
        write_json(folder / "truth.json", {"config": dataclasses.asdict(config)} | truth)
    print_counts(
        f"{schema.name} in {config.out}", config.num_rows | {f"test {name}": value for name, value in truth["test"].items()}
    )


def _truth(logit_R: np.ndarray, *, main_R: np.ndarray, label_R: np.ndarray) -> dict[str, float]:
    """What a model that knows the true logit would measure on one split."""
    return {
        "bayes_auc": area_under_curve(logit_R, label_R=label_R),
        "bayes_auc_without_cross": area_under_curve(main_R, label_R=label_R),
        "bayes_logloss": float(np.mean(np.logaddexp(0, np.where(label_R, -logit_R, logit_R)))),
        "positive_share": float(label_R.mean()),
    }


def _item_columns(config: SyntheticConfig) -> dict[str, pa.Array]:
    """Item-side columns, row i for item i."""
    item_I = np.arange(config.num_items)
    tag_offsets = np.arange(0, config.num_items * TAGS_PER_ITEM + 1, TAGS_PER_ITEM, dtype=np.int32)
    return {
        "item": pa.array(item_I.astype(np.int32)),
        "category": pa.array(category_of(item_I, num_themes=config.num_themes).astype(np.int32)),
        "tags": pa.ListArray.from_arrays(tag_offsets, tags_of_items(config).ravel().astype(np.int32)),
    }


def _columns(visits: Visits, items: dict[str, pa.Array], config: SyntheticConfig) -> dict[str, pa.Array]:
    """Feature and row_id columns of all rows."""
    offsets = pa.array(visits.offset_R, pa.int32())
    hist_category_J = category_of(visits.hist_item_J, num_themes=config.num_themes)
    return {
        "row_id": pa.array(np.arange(len(visits.user_R))),
        "user": pa.array(visits.user_R.astype(np.int32)),
        "activity": pa.array(activity_of_users(config)[visits.user_R].astype(np.int32)),
        "hist_item": pa.ListArray.from_arrays(offsets, pa.array(visits.hist_item_J.astype(np.int32))),
        "hist_category": pa.ListArray.from_arrays(offsets, pa.array(hist_category_J.astype(np.int32))),
    } | {name: column.take(pa.array(visits.item_R)) for name, column in items.items()}


def _schema(config: SyntheticConfig) -> Schema:
    """The same layout as MovieLens-1M where both have a column."""
    num_categories, longest = 2 * config.num_themes, config.history_len[1]
    features = (
        Feature(name="user", side="user", space="user", vocab_size=config.num_users),
        Feature(name="activity", side="user", space="activity", vocab_size=NUM_ACTIVITIES),
        Feature(name="hist_item", side="history", space="item", vocab_size=config.num_items, max_len=longest, min_len=0),
        Feature(name="hist_category", side="history", space="category", vocab_size=num_categories, max_len=longest, min_len=0),
        Feature(name="item", side="item", space="item", vocab_size=config.num_items),
        Feature(name="category", side="item", space="category", vocab_size=num_categories),
        Feature(name="tags", side="item", space="tag", vocab_size=NUM_TAGS, max_len=TAGS_PER_ITEM, min_len=0),
    )
    return Schema(name="synthetic/click", features=features, user_key="user", item_key="item", task="click")


if __name__ == "__main__":
    sys.exit(run_command(SyntheticConfig, prepare=prepare_synthetic, program="python -m dataloaders.prepare.synthetic"))
