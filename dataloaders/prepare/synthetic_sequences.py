"""The matching demo's data set, with a temporal drift of known size: `python -m dataloaders.prepare.synthetic_sequences --out DIR`.

The categories lie on a circle. A user's behaviours fall into sessions, and each session draws a drift, a step on the circle such as
+1 or -2. From one behaviour to the next::

    category = previous category + the session's drift    with probability drift_share
               any category                               otherwise
    item     ~ popularity within the category

A session's first behaviour moves with the new drift already. Within a session seconds to minutes pass, between sessions days. So
the newest category and the newest drift predict the next item, and what was done in earlier sessions says nothing more.

Rows are those of leave_one_out: each user's last behaviour is the test row, the last but one the validation row; row_id counts the
behaviours. Validation and test carry two columns that no model sees: `true_begins_session` (1 where the target begins a session)
and `true_drift` (of the target's session).

`DIR/truth.json` stores the recall that can be expected on the rows as drawn. Given all that happened before, an item's chance to be
the target depends on three things alone: the previous category, the drift in force, and whether a session begins (the time lag
tells). Where one begins, its drift is not drawn yet, each is as likely, and so the chance is spread over their categories.

- `best_recall@K`: the sum of the K highest chances, averaged over the split's rows; no model can expect more.
- `best_recall@K_without_drift`: the same for one who knows all but the drift in force.
- `popularity_recall@K`: the chance of the K items that are most popular in all, averaged over the rows.
"""

# N behaviours, R rows of a split, C categories, S drifts, I items

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from dataloaders.parquet_writer import write_items, write_split, write_user_items
from dataloaders.prepare.behaviours import TIME_GAP_VOCAB, TIME_LAG_VOCAB, Behaviours, RowBuilder, distinct_pairs, time_gap_bucket
from dataloaders.prepare.common import Dice, print_counts, run_command, save_schema, staged_folder, write_json
from dataloaders.prepare.protocols import ProtocolConfig, choose_targets
from dataloaders.schema import Feature, Schema

HISTORY_LEN = 50
CUTOFFS = (10, 20)
"""K of the recall@K in truth.json."""
SESSION_GAP_SECONDS = 30 * 60
STEP_SECONDS = (10, 10 * 60)
"""Shortest and longest time between two behaviours of a session."""
BREAK_SECONDS = (24 * 3600, 7 * 24 * 3600)
"""Shortest and longest time between two sessions."""
FIRST_TIMES = (1_700_000_000, 1_702_592_000)
"""Earliest and latest first behaviour of a user: a month."""


@dataclass(frozen=True, kw_only=True)
class SyntheticSequencesConfig:
    """Prepare the matching demo's data set.

    Raises:
        ValueError: a field is outside its range.
    """

    out: Path
    """Folder to write; must not exist."""
    num_users: int = 2_000
    """Users; the id itself says nothing about what comes next."""
    num_items: int = 1_000
    """Items, spread evenly over the categories."""
    num_categories: int = 25
    """Places on the circle."""
    behaviours_per_user: tuple[int, int] = (16, 32)
    """Fewest and most behaviours of a user."""
    drifts: tuple[int, ...] = (-2, -1, 1, 2)
    """Steps that a session draws from, each as likely; distinct on the circle."""
    drift_share: float = 0.9
    """Share of behaviours that follow the session's drift; the others fall into any category."""
    session_break_share: float = 0.125
    """Share of behaviours, after a user's first, that begin a session."""
    popularity_exponent: float = 0.5
    """The n-th item of a category is drawn in proportion to n ** -popularity_exponent; 0 is uniform."""
    seed: int = 0
    """Of everything that is drawn."""
    overwrite: bool = False
    """Replace a prepared data set at `out`."""

    def __post_init__(self) -> None:
        if self.num_users < 1:
            raise ValueError(f"num_users={self.num_users}, expected at least 1")
        if self.num_categories < 2:
            raise ValueError(f"num_categories={self.num_categories}, expected at least 2")
        if self.num_items < self.num_categories:
            raise ValueError(f"num_items={self.num_items}, expected at least one for each of {self.num_categories} categories")
        fewest, most = self.behaviours_per_user
        if not 4 <= fewest <= most:
            raise ValueError(
                f"behaviours_per_user={self.behaviours_per_user}, expected 4 <= fewest <= most: one each for test, validation and "
                "train, and one before them"
            )
        places = {drift % self.num_categories for drift in self.drifts}
        if not self.drifts or len(places) < len(self.drifts):
            raise ValueError(f"drifts={self.drifts}, expected steps that are distinct on a circle of {self.num_categories}")
        for name in ("drift_share", "session_break_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}, expected a share from 0 to 1")
        if not 0 <= self.popularity_exponent <= 2:
            raise ValueError(f"popularity_exponent={self.popularity_exponent}, expected 0 to 2")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}, expected 0 or above")


@dataclass(frozen=True, kw_only=True)
class Walks:
    """All behaviours in file order (users one after another, oldest first), and the states that no model sees."""

    user_N: np.ndarray
    """int32 [N]."""
    item_N: np.ndarray
    """int32 [N]."""
    time_N: np.ndarray
    """int64 [N], seconds."""
    begins_session_N: np.ndarray
    """bool [N]; True for a user's first behaviour."""
    drift_N: np.ndarray
    """int64 [N], place in `drifts` of the session's drift."""


def draw_walks(config: SyntheticSequencesConfig) -> Walks:
    """Every user's behaviours."""
    dice, drift_S = Dice(config.seed), np.array(config.drifts)
    fewest, most = config.behaviours_per_user
    length_U = fewest + dice.below(config.num_users, most - fewest + 1, purpose="behaviours of users")
    user_N = np.repeat(np.arange(config.num_users, dtype=np.int32), length_U)
    num = len(user_N)
    first_N = np.append(True, user_N[1:] != user_N[:-1])
    begins_N = first_N | dice.chance(num, config.session_break_share, purpose="session breaks")
    drift_N = dice.below(num, len(drift_S), purpose="drifts")[_newest(begins_N)]

    random_N = first_N | ~dice.chance(num, config.drift_share, purpose="drifting steps")
    anchor_N = _newest(random_N)  # from here on every step is the drift's
    moved_N = np.cumsum(drift_S[drift_N])
    category_N = dice.below(num, config.num_categories, purpose="random categories")[anchor_N] + moved_N - moved_N[anchor_N]

    step_N = _between(dice, num, STEP_SECONDS, purpose="time in sessions")
    break_N = _between(dice, num, BREAK_SECONDS, purpose="time between sessions")
    elapsed_N = np.cumsum(np.where(begins_N, break_N, step_N))
    begin_N = _between(dice, num, FIRST_TIMES, purpose="first times")[_newest(first_N)]
    return Walks(
        user_N=user_N,
        item_N=_items_of(category_N % config.num_categories, config, dice).astype(np.int32),
        time_N=begin_N + elapsed_N - elapsed_N[_newest(first_N)],
        begins_session_N=begins_N,
        drift_N=drift_N,
    )


def _newest(mask_N: np.ndarray) -> np.ndarray:
    """Index of the newest set position up to each one, int64 [N]; the first is set."""
    return np.maximum.accumulate(np.where(mask_N, np.arange(len(mask_N)), 0))


def _between(dice: Dice, count: int, bounds: tuple[int, int], *, purpose: str) -> np.ndarray:
    """Uniform integers from bounds[0] to bounds[1], int64 [count]."""
    return bounds[0] + dice.below(count, bounds[1] - bounds[0] + 1, purpose=purpose)


def category_of(item: np.ndarray, *, num_categories: int) -> np.ndarray:
    """Category of each item: its place on the circle."""
    return item % num_categories


def _weights(config: SyntheticSequencesConfig) -> np.ndarray:
    """Popularity of the n-th item of any category, int64, so that draws and chances agree exactly."""
    longest = (config.num_items - 1) // config.num_categories + 1
    return np.rint(2.0**32 * np.arange(1, longest + 1) ** -config.popularity_exponent).astype(np.int64)


def shares_of_items(config: SyntheticSequencesConfig) -> np.ndarray:
    """Each item's chance within its category, float64 [I]; as categories are equally likely in all, its popularity too."""
    item_I = np.arange(config.num_items)
    category_I = category_of(item_I, num_categories=config.num_categories)
    weight_I = _weights(config)[item_I // config.num_categories]
    return weight_I / np.bincount(category_I, weight_I)[category_I]


def _items_of(category_N: np.ndarray, config: SyntheticSequencesConfig, dice: Dice) -> np.ndarray:
    """An item of each category by popularity, int64 [N]."""
    cumulative = np.cumsum(_weights(config))
    num_items_N = (config.num_items - 1 - category_N) // config.num_categories + 1
    random_N = dice.below(len(category_N), cumulative[num_items_N - 1], purpose="items")
    return category_N + config.num_categories * np.searchsorted(cumulative, random_N, side="right")


def target_chances(config: SyntheticSequencesConfig) -> np.ndarray:
    """Chance of each item to come next, float64 [S + 1, C, I], by the drift in force and the previous category.

    The last place of the first axis stands for a target that begins a session, whose drift is not drawn yet.
    """
    num_drifts, num_categories = len(config.drifts), config.num_categories
    drifting_SCC = np.zeros((num_drifts + 1, num_categories, num_categories))
    category_C = np.arange(num_categories)
    for place, drift in enumerate(config.drifts):
        drifting_SCC[place, category_C, (category_C + drift) % num_categories] = 1
    drifting_SCC[-1] = drifting_SCC[:-1].mean(axis=0)
    category_SCC = config.drift_share * drifting_SCC + (1 - config.drift_share) / num_categories
    category_I = category_of(np.arange(config.num_items), num_categories=num_categories)
    return category_SCC[:, :, category_I] * shares_of_items(config)


def prepare_synthetic_sequences(config: SyntheticSequencesConfig) -> None:
    """Draw and write the data set; `config.out` appears complete or not at all.

    Raises:
        ValueError: `config.out` exists.
    """
    schema = _schema(config)
    with staged_folder(config.out, overwrite=config.overwrite) as folder:
        walks = draw_walks(config)
        builder = _row_builder(walks, config)
        write_items(folder, schema, builder.item_columns)
        write_user_items(folder, *(pa.array(id_P) for id_P in distinct_pairs(walks.user_N, walks.item_N)))
        protocol = ProtocolConfig(split="leave_one_out", validation="last_but_one", seed=config.seed)
        targets = choose_targets(builder.behaviours, config=protocol, min_history=1)
        num_rows = {"train": write_split(folder / "train", schema, builder.labelled(targets.train_T))}
        truth = {}
        for split, target_T in (("validation", targets.validation_T), ("test", targets.test_T)):
            drift_T = np.array(config.drifts, np.int32)[walks.drift_N[target_T]]
            begins_T = walks.begins_session_N[target_T].astype(np.int32)
            extra = {"true_begins_session": pa.array(begins_T), "true_drift": pa.array(drift_T)}
            num_rows[split] = write_split(folder / split, schema, builder.labelled(target_T), extra=extra)
            truth[split] = _truth(walks, target_T, config=config)
        save_schema(folder, schema, num_rows=num_rows)
        write_json(folder / "truth.json", {"config": dataclasses.asdict(config)} | truth)
    print_counts(f"{schema.name} in {config.out}", num_rows | {f"test {name}": value for name, value in truth["test"].items()})


def _truth(walks: Walks, target_T: np.ndarray, *, config: SyntheticSequencesConfig) -> dict[str, float]:
    """What truth.json says of one split."""
    chance_SCI, unknown = target_chances(config), len(config.drifts)
    category_T = category_of(walks.item_N[target_T - 1], num_categories=config.num_categories)
    state_T = np.where(walks.begins_session_N[target_T], unknown, walks.drift_N[target_T])
    best_SCI = -np.sort(-chance_SCI, axis=2)
    popular_I = np.argsort(-shares_of_items(config), kind="stable")
    truth = {}
    for cutoff in CUTOFFS:
        best_SC = best_SCI[:, :, :cutoff].sum(axis=2)
        popular_SC = chance_SCI[:, :, popular_I[:cutoff]].sum(axis=2)
        truth[f"best_recall@{cutoff}"] = float(best_SC[state_T, category_T].mean())
        truth[f"best_recall@{cutoff}_without_drift"] = float(best_SC[unknown, category_T].mean())
        truth[f"popularity_recall@{cutoff}"] = float(popular_SC[state_T, category_T].mean())
    return truth


def _row_builder(walks: Walks, config: SyntheticSequencesConfig) -> RowBuilder:
    """Columns by user id, by item id, and what each behaviour adds to histories."""
    behaviours = Behaviours.from_events(
        walks.user_N,
        item_N=walks.item_N,
        time_N=walks.time_N,
        label_N=np.ones(len(walks.user_N), np.float32),
        source_N=np.arange(len(walks.user_N)),
        by="time",
    )
    item_I = np.arange(config.num_items, dtype=np.int32)
    return RowBuilder(
        behaviours=behaviours,
        user_columns={"user": pa.array(np.arange(config.num_users, dtype=np.int32))},
        item_columns={"item": pa.array(item_I), "category": pa.array(category_of(item_I, num_categories=config.num_categories))},
        history_columns={
            "hist_item": behaviours.item_N,
            "hist_category": category_of(behaviours.item_N, num_categories=config.num_categories),
            "hist_new_session": behaviours.begins_session(gap_seconds=SESSION_GAP_SECONDS),
            "hist_time_gap": time_gap_bucket(behaviours.gap_to_next()),
        },
        time_lag="hist_time_lag",
        max_len=HISTORY_LEN,
    )


def _schema(config: SyntheticSequencesConfig) -> Schema:
    """Named as in MovieLens-1M prepared for next_item, as far as there are such columns."""

    def history(name: str, space: str, vocab_size: int) -> Feature:
        return Feature(name=name, side="history", space=space, vocab_size=vocab_size, max_len=HISTORY_LEN, min_len=0)

    features = (
        Feature(name="user", side="user", space="user", vocab_size=config.num_users),
        history("hist_item", "item", config.num_items),
        history("hist_category", "category", config.num_categories),
        history("hist_time_lag", "time_lag", TIME_LAG_VOCAB),
        history("hist_new_session", "new_session", 2),
        history("hist_time_gap", "time_gap", TIME_GAP_VOCAB),
        Feature(name="item", side="item", space="item", vocab_size=config.num_items),
        Feature(name="category", side="item", space="category", vocab_size=config.num_categories),
    )
    name = "synthetic_sequences/next_item/leave_one_out"
    return Schema(name=name, features=features, user_key="user", item_key="item", task="next_item")


if __name__ == "__main__":
    program = "python -m dataloaders.prepare.synthetic_sequences"
    sys.exit(run_command(SyntheticSequencesConfig, prepare=prepare_synthetic_sequences, program=program))
