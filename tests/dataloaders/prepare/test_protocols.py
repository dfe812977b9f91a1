import numpy as np
import pytest

from dataloaders.errors import DataError
from dataloaders.prepare.behaviours import Behaviours
from dataloaders.prepare.protocols import ProtocolConfig, Targets, choose_targets


def make_behaviours(*, counts: list[int], by: str = "time") -> Behaviours:
    """User u has counts[u] behaviours; times grow by one second over the whole file, users take turns at random."""
    user_N = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts), dtype=np.int32), counts))
    count = len(user_N)
    return Behaviours.from_events(
        user_N,
        item_N=np.arange(count, dtype=np.int32),
        time_N=np.arange(count) + 1_000,
        label_N=np.ones(count, np.float32),
        source_N=np.arange(count),
        by=by,
    )


def choose(behaviours: Behaviours, *, min_history: int = 1, **config) -> Targets:
    return choose_targets(behaviours, config=ProtocolConfig(**config), min_history=min_history)


def test_leave_one_out_tests_each_users_last_behaviour_and_trains_on_all_others_but_the_first() -> None:
    behaviours = make_behaviours(counts=[30, 1, 2, 17])
    targets = choose(behaviours)
    assert targets.test_T.tolist() == [29, 30, 32, 49]
    rest = np.sort(np.concatenate([targets.train_T, targets.validation_T]))
    assert rest.tolist() == [*range(1, 29), *range(34, 49)]


def test_one_fifth_of_the_candidates_goes_to_validation() -> None:
    targets = choose(make_behaviours(counts=[20] * 50))
    assert len(targets.validation_T) == round(0.2 * 50 * 18)
    assert len(targets.train_T) == 50 * 18 - len(targets.validation_T)
    assert not set(targets.train_T) & set(targets.validation_T)


def test_rows_without_history_are_candidates_where_the_task_allows_them() -> None:
    targets = choose(make_behaviours(counts=[20] * 50), min_history=0)
    assert len(targets.train_T) + len(targets.validation_T) == 50 * 19


def test_train_rows_last_takes_the_last_but_one_only() -> None:
    targets = choose(make_behaviours(counts=[3, 1, 2, 5, 4]), train_rows="last", validation_share=0.4)
    chosen = np.sort(np.concatenate([targets.train_T, targets.validation_T])).tolist()
    assert chosen == [1, 9, 13]  # the user with two behaviours has none before the last but one


def test_validation_last_but_one_leaves_everything_earlier_to_train() -> None:
    targets = choose(make_behaviours(counts=[4, 5]), validation="last_but_one")
    assert targets.test_T.tolist() == [3, 8]
    assert targets.validation_T.tolist() == [2, 7]
    assert sorted(targets.train_T.tolist()) == [1, 5, 6]


def test_a_train_stride_of_a_historys_length_makes_each_behaviour_a_target_of_one_row() -> None:
    behaviours, length = make_behaviours(counts=[12, 3, 9]), 4
    targets = choose(behaviours, validation="last_but_one", train_stride=length)
    assert sorted(targets.train_T.tolist()) == [1, 5, 9, 17, 21]  # a user with 3 behaviours has no training row
    # the behaviours that have one before them, of each row's target and the history of `length` behind it
    within = [np.arange(max(behaviours.start_N[target] + 1, target - length + 1), target + 1) for target in targets.train_T]
    assert np.sort(np.concatenate(within)).tolist() == [*range(1, 10), *range(16, 22)]


def test_user_windows_keep_users_apart_and_draw_distinct_windows() -> None:
    behaviours = make_behaviours(counts=[25] * 40 + [1] * 10, by="file")
    targets = choose(behaviours, split="user_windows")
    train, validation, test = (behaviours.user_N[target_T] for target_T in (targets.train_T, targets.validation_T, targets.test_T))
    assert not set(train) & set(test)
    assert set(np.bincount(train)) <= {0, 10}
    assert sorted(set(train)) == validation.tolist()  # one more window of every training user
    assert len(test) == len(set(test))
    assert len(set(train)) + len(set(test)) == 40
    assert not set(targets.train_T) & set(targets.validation_T)
    assert (behaviours.num_earlier()[np.concatenate([targets.train_T, targets.validation_T, targets.test_T])] >= 1).all()


def test_user_windows_cut_users_80_to_20() -> None:
    targets = choose(make_behaviours(counts=[25] * 50, by="file"), split="user_windows")
    assert (len(targets.test_T), len(targets.validation_T), len(targets.train_T)) == (10, 40, 400)


def test_global_time_trains_before_and_tests_after_two_points_in_time() -> None:
    behaviours = make_behaviours(counts=[60, 40])
    targets = choose(behaviours, split="global_time", min_history=0)
    train, validation, test = (behaviours.time_N[target_T] for target_T in (targets.train_T, targets.validation_T, targets.test_T))
    assert (len(train), len(validation), len(test)) == (80, 10, 10)
    assert train.max() < validation.min() <= validation.max() < test.min()


def test_global_time_never_cuts_a_second_apart() -> None:
    behaviours = Behaviours.from_events(
        np.repeat(np.arange(5, dtype=np.int32), 4),
        item_N=np.arange(20, dtype=np.int32),
        time_N=np.repeat([10, 20, 30, 40], 5),
        label_N=np.ones(20, np.float32),
        source_N=np.arange(20),
        by="time",
    )
    targets = choose(behaviours, split="global_time", time_fractions=(0.3, 0.4, 0.3), min_history=0)
    times = [set(behaviours.time_N[target_T]) for target_T in (targets.train_T, targets.validation_T, targets.test_T)]
    assert times == [{10}, {20}, {30, 40}]


@pytest.mark.parametrize("split", ["leave_one_out", "user_windows"])
def test_the_seed_alone_decides_every_choice(split: str) -> None:
    behaviours = make_behaviours(counts=[25] * 20)
    first, again, other = (choose(behaviours, split=split, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.train_T, again.train_T)
    assert np.array_equal(first.validation_T, again.validation_T)
    assert not np.array_equal(first.validation_T, other.validation_T)


def test_train_rows_come_in_random_user_order_with_each_users_rows_together() -> None:
    behaviours = make_behaviours(counts=[20] * 30)
    targets = choose(behaviours)
    user_T = behaviours.user_N[targets.train_T]
    runs = user_T[np.append(True, user_T[1:] != user_T[:-1])]
    assert sorted(runs.tolist()) == list(range(30))
    assert runs.tolist() != list(range(30))
    assert all(np.all(np.diff(targets.train_T[user_T == user]) > 0) for user in range(30))


def test_a_split_without_rows_is_refused() -> None:
    with pytest.raises(DataError, match="split=leave_one_out: none of 3 behaviours becomes a train row"):
        choose(make_behaviours(counts=[1, 1, 1]))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"validation_share": 0.0}, r"validation_share=0\.0, expected a share"),
        ({"test_user_share": 1.0}, r"test_user_share=1\.0, expected a share"),
        ({"windows_per_user": 0}, "windows_per_user=0, expected at least 1"),
        ({"train_stride": 0}, "train_stride=0, expected at least 1"),
        ({"split": "global_time", "train_stride": 2}, "train_stride=2 is defined for split=leave_one_out only"),
        ({"time_fractions": (0.8, 0.1, 0.2)}, r"time_fractions=.*sum to 1"),
        ({"time_fractions": (1.0, 0.5, -0.5)}, r"time_fractions=.*positive"),
        ({"seed": -1}, "seed=-1, expected 0 or above"),
        ({"split": "global_time", "train_rows": "last"}, "train_rows=last is defined for split=leave_one_out only"),
        (
            {"split": "user_windows", "validation": "last_but_one"},
            "validation=last_but_one is defined for split=leave_one_out only",
        ),
        ({"train_rows": "last", "validation": "last_but_one"}, "leaves no training row"),
        ({"train_rows": "last", "train_stride": 2}, "one row a user already"),
    ],
)
def test_a_config_that_makes_no_sense_names_field_and_value(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProtocolConfig(**config)
