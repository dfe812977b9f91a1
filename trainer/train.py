"""Train one recipe: `torchx run torchx_specs/train.py:train --recipe NAME`, or `python -m trainer.train --recipe NAME`."""

import sys

from trainer.doctor import require_working_stack


def main() -> None:
    """Check the installed stack before anything of it is imported, then train; errors of a rank reach torchrun's report."""
    require_working_stack()
    from torch.distributed.elastic.multiprocessing.errors import record

    record(train)()


def train() -> None:
    """Parse, train (or resume) to the end, test the best checkpoint, write the report."""
    from trainer.cli import one_screen_errors, parse_run_config
    from trainer.process_group import distributed
    from trainer.trainer import Trainer

    with one_screen_errors():
        config = parse_run_config(sys.argv[1:])
        with distributed(config.loop.device) as ranks, Trainer(config, ranks=ranks) as trainer:
            if trainer.fit():
                trainer.test()


if __name__ == "__main__":
    main()
