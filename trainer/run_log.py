"""What a run writes down as it goes: metrics.jsonl (one JSON object a line) and TensorBoard events."""

import json
import math
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

FILE_NAME = "metrics.jsonl"


class RunLog:
    """Appends rows to `folder`/metrics.jsonl; rows after `resume_step`, written by an interrupted run, are dropped first.

    Every row has `step` (optimizer steps done) and `split` (train, validation, test). Only the first rank has one.
    """

    def __init__(self, folder: Path, *, resume_step: int, tensorboard: bool) -> None:
        path = folder / FILE_NAME
        kept = [row for row in read_rows(folder) if row["step"] <= resume_step]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))
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
    """Rows of `folder`/metrics.jsonl, oldest first; a last line cut short by a crash is left out."""
    path = folder / FILE_NAME
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
