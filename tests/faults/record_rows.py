"""Run under torchrun: train `fit_demo`, note which rows each step saw, stop by SIGTERM after a given step.

Arguments: folder for the notes, step to stop after (0: never), then the trainer's own arguments.
"""

import json
import os
import signal
import sys
from pathlib import Path

from trainer import checkpoint
from trainer.cli import parse_run_config
from trainer.process_group import distributed
from trainer.trainer import Trainer


class RecordingTrainer(Trainer):
    """Keeps the row ids of each step in memory."""

    def train_step(self, pipeline, batches):
        out = super().train_step(pipeline, batches)
        self.seen.append([self.state.step, out.row_id_B.tolist()])
        if self.state.step == self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return out


def main() -> None:
    folder, stop_after, arguments = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    with distributed("cpu") as ranks:
        trainer = RecordingTrainer(parse_run_config(arguments), ranks=ranks)
        trainer.seen, trainer.stop_after = [], stop_after
        started_with = checkpoint.state_sha256(trainer.module, trainer.optimizer)
        trainer.fit()
        stopped_with = checkpoint.state_sha256(trainer.module, trainer.optimizer)
        notes = {"steps_per_epoch": trainer.steps_per_epoch, "seen": trainer.seen}
        notes |= {"started_with": started_with, "stopped_with": stopped_with}
        (folder / f"rank{ranks.rank}.json").write_text(json.dumps(notes))


if __name__ == "__main__":
    main()
