"""Index the items of a matching run for retrieval: `python -m trainer.build_item_index --run DIR --index.kind hnsw`."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from trainer.doctor import require_working_stack
from trainer.item_index import ItemIndexConfig

FILE_NAME = "item_index.faiss"


@dataclass(frozen=True, kw_only=True)
class IndexArguments:
    """Build a FAISS index over the item vectors of a run's best checkpoint, and measure it by the users of a split."""

    run: Path
    """Folder of the run (holds config.json and checkpoints/)."""
    index: ItemIndexConfig = field(default_factory=ItemIndexConfig)
    """What to build."""
    k: int = 20
    """Items that a user is given."""
    split: str = "test"
    """Whose users are asked for."""
    out: Path | None = None
    """File of the index; default: item_index.faiss in the run's folder."""


def main() -> None:
    """Command line; prints cost and recall beside those of an exact index."""
    arguments = tyro.cli(IndexArguments)
    require_working_stack()
    from trainer.cli import one_screen_errors, parse_run_config
    from trainer.console import console
    from trainer.errors import UserError
    from trainer.evaluation import load_run, matching_vectors
    from trainer.item_index import save_index
    from trainer.item_index_report import measure, report
    from trainer.process_group import distributed

    with one_screen_errors():
        config = parse_run_config(["--config", str(arguments.run / "config.json")])
        with distributed(config.loop.device) as ranks:
            if ranks.world_size > 1:
                raise UserError(f"an index is built by one process, and this is one of {ranks.world_size}; run it without torchrun")
            loaded = load_run(config, run=arguments.run, data=config.data, ranks=ranks)
            user_BC, item_MC = matching_vectors(loaded, config, data=config.data, split=arguments.split, ranks=ranks)
        user_BC, item_MC = user_BC.cpu(), item_MC.cpu()
        try:
            index, cost = measure(item_MC, user_BC, arguments.index, k=arguments.k)
            others = [ItemIndexConfig(kind="flat", threads=arguments.index.threads)] if arguments.index.kind != "flat" else []
            costs = [*(measure(item_MC, user_BC, exact, k=arguments.k)[1] for exact in others), cost]
        except ValueError as error:
            raise UserError(str(error)) from error
        out = arguments.out or arguments.run / FILE_NAME
        try:
            save_index(index, out)
        except OSError as error:
            raise UserError(f"--out {out}: {error}") from error
    title = (
        f"{len(item_MC):,} items of {arguments.run}, step {loaded.step}, {len(user_BC):,} users of {arguments.split}; inner product"
    )
    report(costs, title=title, k=arguments.k)
    console.print(f"saved {out}")


if __name__ == "__main__":
    main()
