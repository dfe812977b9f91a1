"""Which behaviours become rows of train, validation and test: leave_one_out, user_windows, global_time."""

# N behaviours, T target behaviours of one split

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dataloaders.errors import DataError
from dataloaders.prepare.behaviours import Behaviours
from dataloaders.prepare.common import random_stream


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """How behaviours are cut into splits.

    Raises:
        ValueError: a field is outside its range, or a choice is not defined for the split.
    """

    split: Literal["leave_one_out", "user_windows", "global_time"] = "leave_one_out"
    """leave_one_out: each user's last behaviour is the test row. user_windows: the protocol of T2Diff's authors, users 80/20 and
    random windows in file order. global_time: train before, test after two points in time."""
    train_rows: Literal["all_prefixes", "last"] = "all_prefixes"
    """leave_one_out only: train on every behaviour before the last, or on the last but one alone."""
    train_stride: int = 1
    """leave_one_out only: of each user's training rows every how-many-th is kept, counted from the newest. As many as a history is
    long suits a model that learns at every position of a history: it then has each behaviour as a target once an epoch."""
    validation: Literal["random", "last_but_one"] = "random"
    """leave_one_out only: a random share of the training rows, or each user's last but one behaviour."""
    validation_share: float = 0.2
    """leave_one_out only: share of the training rows that `validation=random` takes (FIT section 5.1)."""
    test_user_share: float = 0.2
    """user_windows only: share of users whose windows are test rows."""
    windows_per_user: int = 10
    """user_windows only: random windows per training user; one more becomes a validation row. A test user has one."""
    time_fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """global_time only: shares of all behaviours in train, validation and test."""
    seed: int = 0
    """Of every random choice and of the fixed negatives."""

    def __post_init__(self) -> None:
        for name in ("validation_share", "test_user_share"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}, expected a share between 0 and 1, both excluded")
        for name in ("train_stride", "windows_per_user"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}, expected at least 1")
        if min(self.time_fractions) <= 0 or abs(sum(self.time_fractions) - 1) > 1e-9:
            raise ValueError(f"time_fractions={self.time_fractions}, expected three positive shares that sum to 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}, expected 0 or above")
        for name, default in (("train_rows", "all_prefixes"), ("train_stride", 1), ("validation", "random")):
            if self.split != "leave_one_out" and getattr(self, name) != default:
                raise ValueError(
                    f"{name}={getattr(self, name)} is defined for split=leave_one_out only; split={self.split} allows {default}"
                )
        if self.train_rows == "last" and self.train_stride > 1:
            raise ValueError("train_rows=last with train_stride above 1: there is one row a user already; change one of them")
        if self.train_rows == "last" and self.validation == "last_but_one":
            raise ValueError("train_rows=last with validation=last_but_one leaves no training row; change one of them")


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Indices into Behaviours: the behaviours that the rows of each split predict, in writing order."""

    train_T: np.ndarray
    """int64, users in random order, so that every row group of the file is a random sample of users."""
    validation_T: np.ndarray
    """int64, ascending."""
    test_T: np.ndarray
    """int64, ascending."""


def choose_targets(behaviours: Behaviours, *, config: ProtocolConfig, min_history: int) -> Targets:
    """The target behaviours of each split; a target has `min_history` earlier behaviours or more (but any number in the
    test rows of leave_one_out).

    Raises:
        DataError: a split gets no row.
    """
    choose = {"leave_one_out": _leave_one_out, "user_windows": _user_windows, "global_time": _global_time}[config.split]
    train_N, validation_N, test_N = choose(behaviours, config, behaviours.num_earlier() >= min_history)
    for name, chosen_N in (("train", train_N), ("validation", validation_N), ("test", test_N)):
        if not chosen_N.any():
            raise DataError(
                f"split={config.split}: none of {len(behaviours.user_N)} behaviours becomes a {name} row; "
                "expected at least one; use more data or another split"
            )
    train_T = np.flatnonzero(train_N)
    user_key_T = random_stream(len(train_N), seed=config.seed, purpose="user order")[behaviours.start_N[train_T]]
    train_T = train_T[np.argsort(user_key_T, kind="stable")]
    return Targets(train_T=train_T, validation_T=np.flatnonzero(validation_N), test_T=np.flatnonzero(test_N))


def _leave_one_out(
    behaviours: Behaviours, config: ProtocolConfig, eligible_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks of train, validation, test: the last behaviour is the test row."""
    last_N = behaviours.is_last()
    last_but_one_N = np.append(last_N[1:], False) & ~last_N
    candidate_N = eligible_N & ~last_N
    if config.train_rows == "last":
        candidate_N &= last_but_one_N
    if config.validation == "last_but_one":
        validation_N = candidate_N & last_but_one_N
    else:
        validation_N = _random_share(candidate_N, share=config.validation_share, seed=config.seed, purpose="validation rows")
    return _strided(behaviours, candidate_N & ~validation_N, stride=config.train_stride), validation_N, last_N


def _strided(behaviours: Behaviours, mask_N: np.ndarray, *, stride: int) -> np.ndarray:
    """Of each user's set positions every `stride`-th, counted from the newest."""
    position_T = np.flatnonzero(mask_N)
    user_T = behaviours.user_N[position_T]
    num_newer_T = np.searchsorted(user_T, user_T, side="right") - 1 - np.arange(len(user_T))
    chosen_N = np.zeros_like(mask_N)
    chosen_N[position_T[num_newer_T % stride == 0]] = True
    return chosen_N


def _user_windows(
    behaviours: Behaviours, config: ProtocolConfig, eligible_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks of train, validation, test: random windows of distinct users; each has at least one behaviour before its target."""
    first_N = behaviours.num_earlier() == 0
    test_user_N = _random_share(first_N, share=config.test_user_share, seed=config.seed, purpose="test users")[behaviours.start_N]
    candidate_T = np.flatnonzero(eligible_N & ~first_N)
    key_T = random_stream(len(candidate_T), seed=config.seed, purpose="windows")
    shuffled_T = candidate_T[np.lexsort((key_T, behaviours.user_N[candidate_T]))]
    user_T = behaviours.user_N[shuffled_T]
    draw_N = np.full(len(behaviours.user_N), np.iinfo(np.int64).max)
    draw_N[shuffled_T] = np.arange(len(user_T)) - np.searchsorted(user_T, user_T)  # without replacement: 0, 1, ... in each user
    windows = config.windows_per_user
    return ~test_user_N & (draw_N < windows), ~test_user_N & (draw_N == windows), test_user_N & (draw_N == 0)


def _global_time(
    behaviours: Behaviours, config: ProtocolConfig, eligible_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks of train, validation, test: behaviours of one second are never cut apart."""
    time_N, ordered_N = behaviours.time_N, np.sort(behaviours.time_N)
    ends = np.cumsum(config.time_fractions[:2]) * len(time_N)
    validation_begin, test_begin = ordered_N[np.round(ends).astype(np.int64)]
    train_N, test_N = time_N < validation_begin, time_N >= test_begin
    return eligible_N & train_N, eligible_N & ~train_N & ~test_N, eligible_N & test_N


def _random_share(mask_N: np.ndarray, *, share: float, seed: int, purpose: str) -> np.ndarray:
    """A mask of round(share · sum(mask)) of the set positions, chosen at random."""
    position_T = np.flatnonzero(mask_N)
    key_T = random_stream(len(position_T), seed=seed, purpose=purpose)
    chosen_N = np.zeros_like(mask_N)
    chosen_N[position_T[np.argsort(key_T, kind="stable")[: round(share * len(position_T))]]] = True
    return chosen_N
