"""Export a run for serving: `python -m trainer.export --run DIR --out DIR`."""

import tyro

from trainer.doctor import require_working_stack
from trainer.export.config import ExportConfig


def main() -> None:
    """Command line; prints what the artefact holds and how exactly it answers."""
    config = tyro.cli(ExportConfig)
    require_working_stack()
    from trainer.cli import one_screen_errors, parse_run_config
    from trainer.console import console
    from trainer.export.export import export_run
    from trainer.process_group import distributed

    with one_screen_errors():
        run_config = parse_run_config(["--config", str(config.run / "config.json")])
        with distributed("cpu") as ranks:
            manifest, parity = export_run(config, run_config, ranks=ranks)
    store, origin = manifest.store, manifest.origin
    total = sum(file.bytes for file in manifest.files.values()) / 2**20
    console.print(f"{config.out}: artefact {manifest.artefact}, {origin.model} of step {origin.step}, {total:,.1f} MiB")
    console.print(f"{store.num_items:,} items of {store.bytes_per_item:,g} bytes ({store.vector_dtype}); tables {manifest.tables}")
    for form, found in parity.items():
        scores = f"{found.scores:,} scores of {found.bodies} golden requests"
        console.print(f"{form}: {scores} within {found.max_error:.2g} of eager Python's")
    if store.max_score_error > 0:
        console.print(f"8-bit tables or small item vectors move a golden score by up to {store.max_score_error:.2g}")


if __name__ == "__main__":
    main()
