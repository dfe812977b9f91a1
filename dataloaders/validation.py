"""Every decoded value against the schema, whole columns at a time; a bad row is an error, or is left out and counted."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dataloaders.errors import DataError
from dataloaders.parquet_reader import ListColumn, RowGroup
from dataloaders.schema import Feature

BadRowPolicy = Literal["raise", "skip"]


@dataclass(frozen=True, kw_only=True)
class BadRows:
    """The rows of a row group that break the schema."""

    code_R: np.ndarray
    """uint16 [rows]: 0 for a good row, else 1 + the position of its first defect in `defects`."""
    defects: tuple[tuple[str, str], ...]
    """(column, reason): what `code_R` counts."""

    def good(self, rows: np.ndarray) -> np.ndarray:
        """Bool mask over `rows`."""
        return self.code_R[rows] == 0

    def count(self, rows: np.ndarray) -> dict[tuple[str, str], int]:
        """Bad ones among `rows`, by (column, reason); a row with several defects counts under the first of them."""
        counts = np.bincount(self.code_R[rows], minlength=len(self.defects) + 1)[1:]
        return {defect: int(count) for defect, count in zip(self.defects, counts, strict=True) if count}


@dataclass(frozen=True, kw_only=True)
class _Defect:
    column: str
    reason: str
    expected: str
    rows: np.ndarray
    values: np.ndarray | None = None
    """One for each of `rows`; None where the value is a null."""


def check_row_group(
    group: RowGroup,
    *,
    features: tuple[Feature, ...],
    label: str | None = None,
    row_id: str | None = None,
    policy: BadRowPolicy = "raise",
) -> BadRows | None:
    """Check the columns of `features`, and the label and row_id columns where they are named.

    The checks, in this order: row_id not null; label not null, finite, in [0, 1]; then for every feature: not null, no null
    element, min_len to max_len ids, every id in [0, vocab_size); last, all history columns of a row equally long.

    Args:
        group: the decoded row group.
        features: what its id columns must satisfy.
        label: name of the label column.
        row_id: name of the row_id column, also quoted in messages.
        policy: `raise` stops at the first defect, `skip` marks the rows.

    Returns:
        The bad rows, or None if there are none.

    Raises:
        DataError: policy is `raise` and there is a bad row; names file, row group, row, row_id, column, value and the rule.
    """
    code_R = None
    defects: list[tuple[str, str]] = []
    for defect in _find_defects(group, features, label=label, row_id=row_id):
        if policy == "raise":
            raise DataError(_describe(group, defect, row_id))
        code_R = np.zeros(group.num_rows, dtype=np.uint16) if code_R is None else code_R
        defects.append((defect.column, defect.reason))
        first_rows = defect.rows[code_R[defect.rows] == 0]
        code_R[first_rows] = len(defects)
    return None if code_R is None else BadRows(code_R=code_R, defects=tuple(defects))


def _find_defects(group: RowGroup, features: tuple[Feature, ...], *, label: str | None, row_id: str | None) -> Iterator[_Defect]:
    if row_id is not None:
        yield from _nulls(group, row_id)
    if label is not None:
        yield from _nulls(group, label)
        yield from _label_defects(group, label)
    for feature in features:
        yield from _nulls(group, feature.name)
        if feature.is_list:
            yield from _length_defects(group, feature)
        yield from _id_defects(group, feature)
    yield from _alignment_defects(group, [feature.name for feature in features if feature.side == "history"])


def _nulls(group: RowGroup, column: str) -> Iterator[_Defect]:
    for reason, expected in (("null", "a value"), ("null element", "an id in every place of the list")):
        if (column, reason) in group.nulls:
            yield _Defect(column=column, reason=reason, expected=expected, rows=group.nulls[column, reason])


def _valued(group: RowGroup, column: str, rows: np.ndarray) -> np.ndarray:
    """`rows` without those whose value is null, and therefore undefined."""
    for reason in ("null", "null element"):
        if (column, reason) in group.nulls:
            rows = rows[~np.isin(rows, group.nulls[column, reason])]
    return rows


def _label_defects(group: RowGroup, column: str) -> Iterator[_Defect]:
    label_R = group.scalars[column]
    # one pass for the usual case; a NaN makes both comparisons false
    if group.num_rows == 0 or (label_R.min() >= 0 and label_R.max() <= 1):
        return
    reasons = {"NaN": np.isnan(label_R), "infinite": np.isinf(label_R), "outside [0, 1]": (label_R < 0) | (label_R > 1)}
    taken = np.zeros(group.num_rows, dtype=bool)
    for reason, mask in reasons.items():
        rows = _valued(group, column, np.flatnonzero(mask & ~taken))
        taken |= mask
        if len(rows):
            yield _Defect(column=column, reason=reason, expected="a finite label in [0, 1]", rows=rows, values=label_R[rows])


def _length_defects(group: RowGroup, feature: Feature) -> Iterator[_Defect]:
    lengths_R = np.diff(group.lists[feature.name].offsets)
    bounds = f"min_len={feature.min_len} to max_len={feature.max_len} ids"
    for reason, mask in (("too short", lengths_R < feature.min_len), ("too long", lengths_R > feature.max_len)):
        rows = _valued(group, feature.name, np.flatnonzero(mask))
        if len(rows):
            yield _Defect(column=feature.name, reason=reason, expected=bounds, rows=rows, values=lengths_R[rows])


def _id_defects(group: RowGroup, feature: Feature) -> Iterator[_Defect]:
    ids = group.lists[feature.name].values if feature.is_list else group.scalars[feature.name]
    # as unsigned numbers negative ids are huge: one pass finds both kinds
    if len(ids) == 0 or ids.view(np.uint32).max() < feature.vocab_size:
        return
    expected = f"0 <= id < vocab_size={feature.vocab_size}"
    for reason, mask in (("negative id", ids < 0), ("id too large", ids >= feature.vocab_size)):
        places = np.flatnonzero(mask)
        rows, first = np.unique(_rows_of(group.lists.get(feature.name), places), return_index=True)
        kept = _valued(group, feature.name, rows)
        if len(kept):
            values = ids[places[first[np.isin(rows, kept)]]]
            yield _Defect(column=feature.name, reason=reason, expected=expected, rows=kept, values=values)


def _rows_of(column: ListColumn | None, places: np.ndarray) -> np.ndarray:
    return places if column is None else np.searchsorted(column.offsets, places, side="right") - 1


def _alignment_defects(group: RowGroup, history: list[str]) -> Iterator[_Defect]:
    for name in history[1:]:
        first, other = group.lists[history[0]].offsets, group.lists[name].offsets
        if first is other:
            continue
        first_R, other_R = np.diff(first), np.diff(other)
        rows = _valued(group, name, _valued(group, history[0], np.flatnonzero(first_R != other_R)))
        if len(rows):
            expected = f"as many ids as {history[0]!r} has, {first_R[rows[0]]}"
            yield _Defect(column=name, reason="unaligned history", expected=expected, rows=rows, values=other_R[rows])


def _describe(group: RowGroup, defect: _Defect, row_id: str | None) -> str:
    row = int(defect.rows[0])
    identity = "" if row_id is None or (row_id, "null") in group.nulls else f" (row_id={group.scalars[row_id][row]})"
    value = "null" if defect.values is None else str(defect.values[0])
    others = f", and {len(defect.rows) - 1} more rows of this row group" if len(defect.rows) > 1 else ""
    counted = " ids" if defect.reason in ("too short", "too long", "unaligned history") else ""
    return (
        f"{group.source}, row {row}{identity}, column {defect.column!r}: {defect.reason}: {value}{counted}, expected "
        f"{defect.expected}{others}; correct the data and prepare it again, or set bad_rows='skip' to leave such rows out"
    )
