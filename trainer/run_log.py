"""What a run writes down as it goes: metrics.jsonl (one JSON object a line) and TensorBoard events."""

import json
import logging
import math
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from trainer.durable_file import write_durably

log = logging.getLogger(__name__)
FILE_NAME = "metrics.jsonl"


class RunLog:
    """Appends rows to `folder`/metrics.jsonl; what a resumed run will write again is dropped first.

    Every row has `step` (optimizer steps done) and `split` (train, validation). Only the first rank has one.

    Args:
        folder: the run's.
        resume_step: training rows after this step are dropped.
        evaluated_step: validation rows after this step are dropped (an evaluation may be due at resume_step itself).
        tensorboard: whether to write TensorBoard's events too.
    """

    def __init__(self, folder: Path, *, resume_step: int, evaluated_step: int, tensorboard: bool) -> None:
        path = folder / FILE_NAME
        last = {"train": resume_step, "validation": evaluated_step}
        kept = [row for row in read_rows(folder) if row["step"] <= last[row["split"]]]
        write_durably(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", buffering=1)
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step + 1) if tensorboard else None

    def write(self, *, step: int, split: str, values: dict[str, float]) -> None:
        """One row; values that are not finite are written as null, since JSON has no NaN."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "split": split} | finite) + "\n")
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Flush and close both."""
        self._file.close()
        if self._events is not None:
            self._events.close()


def read_rows(folder: Path) -> list[dict]:
    """Rows of `folder`/metrics.jsonl, oldest first.

    A last line cut short, by a crash or because it is just being written, is left out; any other bad line too, with a warning.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return []
    *lines, last = path.read_text(errors="replace").split("\n")
    rows = []
    for number, line in enumerate([*lines, last], start=1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif number <= len(lines):
            log.warning("%s, line %d: not a row (%.40r); skipped", path, number, line)
    return rows


def _row(line: str) -> dict | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(content, dict) and isinstance(content.get("step"), int) and isinstance(content.get("split"), str)
    return content if whole else None
