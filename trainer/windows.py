"""External windows: histories and targets from a file instead of a prepared split, ranked by a matching model."""

# B windows, H places of a window, J behaviours of all windows (jagged), X values of a line

import json
import re
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dataloaders.batch import Batch
from dataloaders.collate import Collator
from dataloaders.errors import DataError
from dataloaders.parquet_reader import RowGroup
from dataloaders.prepare.behaviours import time_gap_bucket, time_lag_bucket
from dataloaders.row_groups import read_items
from dataloaders.schema import Schema
from models.tasks import MatchingTask
from trainer.errors import UserError
from trainer.evaluation import LoadedRun
from trainer.process_group import Ranks
from trainer.task_metrics import evaluation_recorder

BATCH_ROWS = 512
OF_TIMES = TIME_LAG, NEW_SESSION, TIME_GAP = "hist_time_lag", "hist_new_session", "hist_time_gap"
"""History features that follow from the times."""
Ids = Literal["raw", "prepared"]
PADDING: dict[Ids, int] = {"raw": 0, "prepared": -1}
"""What stands in front of a history that is shorter than a window."""
_UNKNOWN = -2
_INTEGER = re.compile(r"\s*-?[0-9]{1,18}\s*")


class Windows(NamedTuple):
    """Windows in the ids of a prepared data set."""

    path: Path
    """The file that they are from, a window in each line."""
    item_BH: np.ndarray
    """int64 [B, H], oldest first; -1 in front of short histories."""
    target_B: np.ndarray
    """int64 [B]."""
    time_BH: np.ndarray | None
    """int64 [B, H + 1] seconds: of each behaviour and, last, of the request; None where the file has none."""


class _Source(NamedTuple):
    """What turns windows into batches."""

    schema: Schema
    items: RowGroup
    collator: Collator
    context: dict[str, np.ndarray]
    """History feature -> int64 [B, H]: those that the model uses and no item feature answers to."""


def read_windows(path: Path, *, data: Path, ids: Ids) -> Windows:
    """Read a CSV file: a line is user, H items, target, and optionally H + 1 times; H is the longest history of the data set.

    Args:
        path: the file; no header. The user, any integer, is not looked at: matching models know users by their histories.
        data: prepared data set whose items these are.
        ids: `raw` ones are looked up in vocabularies.json and padded with 0, `prepared` ones are padded with -1.

    Raises:
        DataError: a line has another number of values, a value is no integer or no known item, or padding follows a behaviour.
        UserError: there is no such file, or the data set has no histories of items.
    """
    schema = Schema.load(data)
    num_places, num_items = _num_places(schema, data), schema.feature(schema.item_key).vocab_size
    table_BX = _read_table(path, num_places=num_places)
    given_BX = table_BX[:, 1 : num_places + 2]
    item_BX = given_BX if ids == "prepared" else _from_raw(given_BX, data=data)
    wrong_BX = (item_BX >= num_items) | (item_BX < np.array([-1] * num_places + [0]))
    if wrong_BX.any():
        row, column = np.argwhere(wrong_BX)[0]
        known = f"[0, {num_items})" if ids == "prepared" else f"{data / 'vocabularies.json'}"
        raise DataError(
            f"{path}, line {row + 1}, value {column + 2}: item {given_BX[row, column]}, expected one of {known}, or {PADDING[ids]} "
            f"in front of a short history; --ids {ids}"
        )
    item_BH, time_BX = item_BX[:, :-1], table_BX[:, num_places + 2 :]
    gap_B = ((item_BH[:, 1:] < 0) & (item_BH[:, :-1] >= 0)).any(axis=1)
    if gap_B.any():
        raise DataError(f"{path}, line {int(np.argmax(gap_B)) + 1}: padding after a behaviour; expected it in front alone")
    return Windows(path, item_BH, item_BX[:, -1], time_BX if time_BX.shape[1] else None)


@torch.no_grad()
def evaluate_windows(loaded: LoadedRun, windows: Windows, *, data: Path, ranks: Ranks) -> dict[str, float]:
    """The model's ranking metrics over all windows. A collective call.

    The noise of a window belongs to its line, counted from 0, as that of a row of a split belongs to its row_id.

    Raises:
        UserError: the model is no matching model, or uses features that windows lack.
        DataError: times of a window go back, or are too far apart for seconds.
    """
    task = loaded.sharded.task
    if not isinstance(task, MatchingTask):
        raise UserError(f"{type(task.model).__name__} scores given candidates; windows are for matching models")
    items = read_items(data, loaded.schema)
    collator = Collator(loaded.schema, items=items)
    source = _Source(loaded.schema, items, collator, _context(task, windows, data=data))
    task.encode_catalogue()
    recorder = evaluation_recorder(task)
    mine = np.arange(ranks.rank, len(windows.target_B), ranks.world_size)
    for start in range(0, len(mine), BATCH_ROWS):
        batch = _batch(windows, mine[start : start + BATCH_ROWS], source=source)
        _, out = loaded.sharded.module(batch.to(ranks.device))
        recorder.add(out)
    return recorder.compute(ranks.host_group)


def _num_places(schema: Schema, data: Path) -> int:
    """H: the longest history that the data set's models see."""
    space = schema.feature(schema.item_key).space
    lengths = [feature.max_len for feature in schema.side("history") if feature.space == space]
    if not lengths:
        raise UserError(f"{data}: no history of items ({schema.name}), so windows of them are nothing to its models")
    return lengths[0]


def _read_table(path: Path, *, num_places: int) -> np.ndarray:
    """int64 [B, X]: user, items, target, and times where the file has them."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"--windows {path}: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {error}; expected lines of integers, comma between them") from error
    if not lines:
        raise DataError(f"{path}: the file is empty; expected a window in each line")
    rows: list[list[int]] = []
    sizes = (num_places + 2, 2 * num_places + 3)
    for number, line in enumerate(lines, start=1):
        words = line.split(",")
        if len(words) not in (sizes if not rows else (len(rows[0]),)):
            expected = f"{sizes[0]}, or {sizes[1]} with times" if not rows else f"{len(rows[0])} as in line 1"
            raise DataError(f"{path}, line {number}: {len(words)} values, expected {expected}")
        for place, word in enumerate(words, start=1):
            if not _INTEGER.fullmatch(word):
                raise DataError(f"{path}, line {number}, value {place}: {word!r}, expected an integer")
        rows.append([int(word) for word in words])
    return np.array(rows, dtype=np.int64)


def _from_raw(given_BX: np.ndarray, *, data: Path) -> np.ndarray:
    """Prepared ids of raw ones; -1 for padding, _UNKNOWN for what is no item."""
    vocabulary = data / "vocabularies.json"
    try:
        raw_I = np.array(json.loads(vocabulary.read_text(encoding="utf-8"))["item"], dtype=np.int64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{vocabulary}: no vocabulary of items that are integers ({error!r}); use --ids prepared") from error
    if (raw_I == PADDING["raw"]).any():
        raise DataError(f"{vocabulary}: raw item {PADDING['raw']} exists, and in raw windows that is padding; use --ids prepared")
    order_I = np.argsort(raw_I)
    found_BX = order_I[np.minimum(np.searchsorted(raw_I, given_BX, sorter=order_I), len(raw_I) - 1)]
    return np.where(given_BX == PADDING["raw"], -1, np.where(raw_I[found_BX] == given_BX, found_BX, _UNKNOWN))


def _context(task: MatchingTask, windows: Windows, *, data: Path) -> dict[str, np.ndarray]:
    """The history features that the model uses and that follow from the times; UserError where it needs others."""
    if task.embeddings.dims.profile:
        raise UserError("windows carry no user features, and this model uses some; train it without (--embeddings.features)")
    used = [name for name, _ in task.embeddings.dims.context]
    unknown = [name for name in used if name not in OF_TIMES]
    if unknown or (used and windows.time_BH is None):
        raise UserError(
            f"the model uses {unknown or used}, which these windows lack; give times in each line ({', '.join(OF_TIMES)}), or "
            "train it without (--embeddings.features, --model.attention.time-lag None, --model.time-gap None)"
        )
    context: dict[str, np.ndarray] = {}
    if windows.time_BH is None:
        return context
    valid_BH, time_BH, request_B1 = windows.item_BH >= 0, windows.time_BH[:, :-1], windows.time_BH[:, -1:]
    if NEW_SESSION in used:
        context[NEW_SESSION] = _begins_session(valid_BH, time_BH, gap_seconds=_session_gap_seconds(data))
    gap_BH = np.where(valid_BH, np.diff(windows.time_BH, axis=1), 0)
    if TIME_GAP in used and (gap_BH < 0).any():
        line = int((gap_BH < 0).any(axis=1).argmax()) + 1
        raise DataError(f"{windows.path}, line {line}: its times go back, expected the oldest first")
    try:
        if TIME_LAG in used:
            context[TIME_LAG] = time_lag_bucket(np.where(valid_BH, request_B1 - time_BH, 0)).astype(np.int64)
        if TIME_GAP in used:
            context[TIME_GAP] = time_gap_bucket(gap_BH).astype(np.int64)
    except DataError as error:
        raise DataError(f"{windows.path}: {error}") from error
    return context


def _begins_session(valid_BH: np.ndarray, time_BH: np.ndarray, *, gap_seconds: int) -> np.ndarray:
    """int64 [B, H]: 1 for a window's first behaviour, whose past is unknown, and for one that follows after a longer silence."""
    first_BH = valid_BH & ~np.pad(valid_BH, ((0, 0), (1, 0)))[:, :-1]
    silence_BH = np.diff(time_BH, axis=1, prepend=time_BH[:, :1])
    return (first_BH | (silence_BH > gap_seconds)).astype(np.int64)


def _session_gap_seconds(data: Path) -> int:
    """The silence that begins a session in the data set that the model was trained on."""
    path = data / "preparation.json"
    try:
        return round(60 * json.loads(path.read_text(encoding="utf-8"))["config"]["session_gap_minutes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the model uses {NEW_SESSION}, and {path} does not tell what silence begins a session ({error!r}, expected "
            "config.session_gap_minutes); write a split instead of windows, or train without (--model.attention.session last_k)"
        ) from error


def _batch(windows: Windows, rows: np.ndarray, *, source: _Source) -> Batch:
    """The windows `rows` as a batch; item features are the target's, history features follow from the items and times."""
    pooled, item_side = source.collator.items_only(windows.target_B[rows])
    item_BH = windows.item_BH[rows]
    valid_BH = item_BH >= 0
    lengths_B = torch.from_numpy(valid_BH.sum(axis=1).astype(np.int32))
    partners = {feature.space: feature.name for feature in source.schema.side("item") if not feature.is_list}
    values, lengths = [], []
    for feature in source.schema.sequence_features:
        if feature.side == "item":
            values.append(item_side[feature.name].values())
            lengths.append(item_side[feature.name].lengths())
            continue
        if feature.space in partners:
            value_J = source.items.scalars[partners[feature.space]][item_BH[valid_BH]]
        elif feature.name in source.context:
            value_J = source.context[feature.name][rows][valid_BH]
        else:
            value_J = np.zeros(int(valid_BH.sum()))  # a batch has every feature; this model looks it up nowhere
        values.append(torch.from_numpy(value_J.astype(np.int64)))
        lengths.append(lengths_B)
    keys = [feature.name for feature in source.schema.sequence_features]
    return Batch(
        pooled=pooled,
        sequence=KeyedJaggedTensor(keys, torch.cat(values), lengths=torch.cat(lengths), stride=len(rows)),
        label_B=torch.ones(len(rows)),
        row_id_B=torch.from_numpy(rows),
        global_rows=torch.tensor(len(rows)),
    )
