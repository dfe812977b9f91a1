"""What `trainer.export` is asked for."""

from dataclasses import dataclass, field
from pathlib import Path

from trainer.export.signature import Layout, PackageDevice, TableForm, VectorType
from trainer.item_index import ItemIndexConfig


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Turn the best checkpoint of a run into an artefact: towers, item store, golden requests, and the manifest over them."""

    run: Path
    """Folder of the run (holds config.json and checkpoints/); its best checkpoint is exported."""
    out: Path
    """Folder of the artefact; appears when all is written and checked."""
    data: Path | None = None
    """Another place of the run's data set, whose catalogue is encoded; default: the run's own."""
    tables: TableForm = "inside"
    """`inside`: the towers hold their embedding tables; `quantised`: with 8 bits a number; `outside`: the towers take looked-up
    vectors, and the tables lie beside them as files."""
    vectors: VectorType = "float32"
    """Numbers of the item store."""
    layout: Layout = "plain"
    """`plain` is what this project's server reads; `triton` a model repository of the Triton Inference Server."""
    index: ItemIndexConfig = field(default_factory=lambda: ItemIndexConfig(kind="flat"))
    """FAISS index of a matching model's items."""
    aoti: PackageDevice | None = None
    """Also write the modules as AOTInductor packages (.pt2) for this machine's CPU or GPU; needs a C++ compiler, and minutes."""
    overwrite: bool = False
    """Replace an artefact at `out`."""
