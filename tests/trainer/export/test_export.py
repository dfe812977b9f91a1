import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from models import MODELS
from models.layers.meta_query import MetaQuery
from models.ranking import top_items
from tests.trainer.export.conftest import Case
from tests.trainer.export.small_runs import export, trained_parts
from trainer.config import RunConfig
from trainer.errors import CheckpointError, UserError
from trainer.export import export as export_module
from trainer.export.artefact import Artefact
from trainer.export.item_store import QUERIES
from trainer.export.write import INDEX_FILE
from trainer.item_index import ItemIndexConfig, load_index, search
from trainer.process_group import distributed

ALWAYS = {"schema.json", "golden_requests.jsonl", "golden_answers.jsonl", "item_vectors.bin"}
MODULES = {"user_tower.pt", "item_tower.pt", "scorer.pt"}
INDEX = {INDEX_FILE, f"{INDEX_FILE}.json"}


def test_models_of_both_tasks_are_exported_here(fit_case: Case, two_tower_case: Case, t2diff_case: Case) -> None:
    task_of = {spec.model_class.__name__: spec.task_class for spec in MODELS.values()}
    exported = [case.exported.manifest.origin.model for case in (fit_case, two_tower_case, t2diff_case)]
    assert {task_of[name] for name in exported} == {*task_of.values()}


@pytest.mark.parametrize(
    ("name", "further"),
    [
        ("fit_case", MODULES | {"item_index.bin", "query_group.bin"}),
        ("fit_bytes_case", MODULES | {"item_index.bin", "query_group.bin", "item_scales.bin"}),
        ("two_tower_case", MODULES),
        ("dat_case", MODULES),
        ("ranktower_case", MODULES),
        ("t2diff_case", MODULES | INDEX),
    ],
)
def test_an_artefact_holds_what_its_form_needs_and_nothing_else(
    name: str, further: set[str], request: pytest.FixtureRequest
) -> None:
    case: Case = request.getfixturevalue(name)
    found = {path.relative_to(case.folder).as_posix() for path in case.folder.rglob("*") if path.is_file()}
    assert found == ALWAYS | further | {"manifest.json"}
    assert set(case.exported.manifest.files) == found - {"manifest.json"}


def test_the_export_reports_how_exactly_the_artefact_answers(every_case: Case) -> None:
    (parity,) = every_case.exported.parity.values()
    assert parity.bodies == 64
    assert parity.scores > 10_000
    assert parity.max_error <= 1e-5


def test_the_manifest_says_where_the_artefact_comes_from(every_case: Case) -> None:
    manifest, run = every_case.exported.manifest, every_case.run
    assert manifest.origin.config == run.as_dict()
    assert manifest.origin.config_fingerprint == run.fingerprint
    assert manifest.origin.versions["torch"] == torch.__version__
    for needed in manifest.operators.values():
        assert {operator.split("::")[0] for operator in needed} <= {"aten", "prim", "quantized"}
    quantised = "quantized::embedding_bag_byte_rowwise_offsets"
    assert (quantised in manifest.operators[manifest.modules["user_tower"]]) == (manifest.tables == "quantised")


def test_two_exports_of_a_run_hold_the_same_where_their_forms_agree(fit_case: Case, fit_bytes_case: Case, tmp_path: Path) -> None:
    again = export(fit_case.run, tmp_path / "again").manifest
    assert again.store == fit_case.exported.manifest.store
    same = {name for name, digest in again.files.items() if digest == fit_case.exported.manifest.files[name]}
    assert {"item_vectors.bin", "item_index.bin", "query_group.bin", "golden_requests.jsonl", "golden_answers.jsonl"} <= same
    assert again.artefact != fit_bytes_case.exported.manifest.artefact


def test_the_query_group_is_that_of_the_module(fit_case: Case) -> None:
    parts = trained_parts(fit_case.run)
    (module,) = (module for module in parts.model.modules() if isinstance(module, MetaQuery))
    written = np.fromfile(fit_case.folder / QUERIES, dtype="<f4").reshape(6, -1)
    assert np.array_equal(written, module.query_group().detach().numpy())


def test_the_faiss_index_finds_the_stores_own_items(t2diff_case: Case) -> None:
    store = Artefact(t2diff_case.folder).store
    item_MC = store.gather(slice(None)).item_BHP[:, 0]
    index = load_index(t2diff_case.folder / INDEX_FILE)
    assert index.num_items == store.signature.num_items == 90
    user_BC = torch.randn(5, item_MC.shape[1], generator=torch.Generator().manual_seed(0))
    assert torch.equal(search(index, user_BC, 10)[1], top_items(user_BC, item_MC, 10)[1])


@pytest.mark.usefixtures("few_golden_requests")
def test_a_run_of_a_gpu_is_exported_in_float32_and_said_to_be_what_it_was(two_tower_run: RunConfig, tmp_path: Path) -> None:
    trained_on_gpu = dataclasses.replace(
        two_tower_run, loop=dataclasses.replace(two_tower_run.loop, precision="bfloat16", device="auto")
    )
    with distributed("cpu") as ranks:
        config = export_module.ExportConfig(run=two_tower_run.run_dir, out=tmp_path / "artefact")
        manifest, _ = export_module.export_run(config, trained_on_gpu, ranks=ranks)
    assert manifest.origin.config["loop"]["precision"] == "bfloat16"


@pytest.mark.usefixtures("few_golden_requests")
def test_nothing_appears_where_the_artefact_answers_otherwise_than_the_run(
    two_tower_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = export_module.write_artefact

    def with_another_scale(folder: Path, source: export_module.Source) -> object:
        manifest = saved(folder, source)
        with torch.no_grad():
            source.parts.model.item_mlp.layers[0].weight.mul_(1.5)
        return manifest

    monkeypatch.setattr(export_module, "write_artefact", with_another_scale)
    with pytest.raises(CheckpointError, match="the item tower differs from the run"):
        export(two_tower_run, tmp_path / "artefact")
    assert list(tmp_path.iterdir()) == []


def test_an_item_index_is_for_matching_models(two_tower_run: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--index is for matching models; TwoTower"):
        export(two_tower_run, tmp_path / "artefact", index=ItemIndexConfig(kind="hnsw"))


@pytest.mark.usefixtures("few_golden_requests")
def test_an_index_that_the_catalogue_is_too_small_for_is_a_user_error(matching_run: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--index: 90 items are too few"):
        export(matching_run, tmp_path / "artefact", index=ItemIndexConfig(kind="ivf"))


def test_one_process_exports(two_tower_run: RunConfig, tmp_path: Path) -> None:
    config = export_module.ExportConfig(run=two_tower_run.run_dir, out=tmp_path / "artefact")
    with distributed("cpu") as ranks:
        two = ranks._replace(world_size=2)
        with pytest.raises(UserError, match="by one process on the CPU, not 2"):
            export_module.export_run(config, two_tower_run, ranks=two)
