"""From a run to an artefact: load, write into a folder of its own, check, and show it under its name."""

import dataclasses
from typing import NamedTuple

from dataloaders.catalogue import read_catalogue
from trainer.config import RunConfig
from trainer.errors import UserError
from trainer.evaluation import load_run
from trainer.export.aoti import require_compiler
from trainer.export.artefact import Artefact
from trainer.export.config import ExportConfig
from trainer.export.eager import eager_items
from trainer.export.manifest import Manifest
from trainer.export.parity import Parity, check_answers, check_items
from trainer.export.run_parts import run_parts
from trainer.export.signature import ModuleForm
from trainer.export.staging import staged_artefact
from trainer.export.write import Source, write_artefact
from trainer.item_index import ItemIndexConfig
from trainer.process_group import Ranks

FORMS: tuple[ModuleForm, ...] = ("torchscript", "aoti")


class Exported(NamedTuple):
    """What was written."""

    manifest: Manifest
    parity: dict[ModuleForm, Parity]
    """How each form of the modules answers the golden requests."""


def export_run(config: ExportConfig, run_config: RunConfig, *, ranks: Ranks) -> Exported:
    """Write the artefact of a run and check its answers to the golden requests; nothing appears at `out` where that fails.

    Args:
        config: what to export.
        run_config: of the run, from its config.json.
        ranks: this process alone, on the CPU.

    Raises:
        UserError: the form does not fit the model, or `out` is taken.
        CheckpointError: the run has no valid checkpoint, or the artefact would answer otherwise than the run.
        DataError: the catalogue can't be read.
    """
    if ranks.world_size > 1 or ranks.device.type != "cpu":
        raise UserError(f"an artefact is exported by one process on the CPU, not {ranks.world_size} on {ranks.device.type}")
    if config.aoti is not None:
        require_compiler(config.aoti)
    with staged_artefact(config.out, overwrite=config.overwrite) as folder:
        source = _source(config, run_config, ranks=ranks)
        manifest = write_artefact(folder, source)
        items = eager_items(source.parts, source.catalogue)
        parity: dict[ModuleForm, Parity] = {}
        for form in FORMS if manifest.packages else FORMS[:1]:
            artefact = Artefact(folder, form=form)
            check_items(artefact, items, parts=source.parts, catalogue=source.catalogue)
            parity[form] = check_answers(artefact)
    return Exported(manifest, parity)


def _source(config: ExportConfig, run_config: RunConfig, *, ranks: Ranks) -> Source:
    data = config.data or run_config.data
    # bfloat16 is how a GPU trained; the weights are float32
    here = dataclasses.replace(run_config, loop=dataclasses.replace(run_config.loop, precision="float32", device="cpu"))
    loaded = load_run(here, run=config.run, data=data, ranks=ranks)
    parts = run_parts(loaded)
    if parts.task != "matching" and config.index != ItemIndexConfig(kind="flat"):
        raise UserError(f"--index is for matching models; {type(parts.model).__name__} scores given candidates")
    catalogue = read_catalogue(data, loaded.schema, bad_rows=run_config.loader.bad_rows)
    return Source(parts, catalogue, run_config, loaded.step, config)
