"""The files of an artefact: towers, item store, golden requests and answers, and the manifest that binds them."""

# M items, N meta queries, H heads, P vector width, D embedding width

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from dataloaders.batch import Catalogue
from models.layers.meta_query import MetaQuery
from trainer.config import RunConfig
from trainer.durable_file import write_durably
from trainer.errors import UserError
from trainer.export.answers import Answerer, Body, answer
from trainer.export.aoti import save_packages
from trainer.export.assemble import Towers, assemble
from trainer.export.config import ExportConfig
from trainer.export.eager import eager_items, eager_users
from trainer.export.golden import golden_bodies, write_golden
from trainer.export.item_store import QUERIES, ItemStore, read_store, store_in_memory, write_store
from trainer.export.lookups import rounded_to_bytes
from trainer.export.manifest import Manifest, Provenance, artefact_id, digest_files, write_manifest
from trainer.export.parity import score_error
from trainer.export.run_parts import RunParts, input_features, user_signature
from trainer.export.signature import ItemSignature, StoreSignature, UserSignature
from trainer.export.torchscript import save_script
from trainer.export.triton_repo import CONFIG_FILE, MODEL_FILE, config_text, model_configs
from trainer.item_index import ItemIndex, ItemIndexConfig, build_index, save_index
from trainer.provenance import provenance

INDEX_FILE = "item_index.faiss"


class Source(NamedTuple):
    """What an artefact is written from."""

    parts: RunParts
    catalogue: Catalogue
    run_config: RunConfig
    step: int
    """Optimizer steps of the checkpoint."""
    config: ExportConfig


def write_artefact(folder: Path, source: Source) -> Manifest:
    """Write every file of the artefact into the empty `folder`, the manifest last.

    With quantised tables the run's own are rounded first, so that eager Python answers with what the towers hold.

    Raises:
        UserError: the form does not fit the model.
    """
    parts, config = source.parts, source.config
    user = user_signature(parts)
    bodies, exact = _exact_answers(source, user)
    if config.tables == "quantised":
        for weight_RD in parts.weights.values():
            weight_RD.copy_(rounded_to_bytes(weight_RD))
    towers = assemble(parts, tables=config.tables)
    items = eager_items(parts, source.catalogue)
    store = write_store(folder, items, num_queries=user.num_queries, vector_dtype=config.vectors)
    read = read_store(folder, store)
    answers = write_golden(folder, bodies, _eager_answerer(parts, read))
    store = dataclasses.replace(store, holds=parts.store_content, max_score_error=_largest_error(answers, exact))
    if parts.task == "matching":
        save_index(_build_index(read.gather(slice(None)).item_BHP[:, 0], config.index), folder / INDEX_FILE)
    _write_query_group(folder, parts)
    parts.schema.save(folder)
    lookups = _write_tables(folder, parts) if config.tables == "outside" else {}
    modules = _module_files(folder, source, user=user, store=store)
    operators = {modules[name]: save_script(module, folder / modules[name], name=name) for name, module in towers._asdict().items()}
    packages = save_packages(folder, parts, user=user, store=store, tables=config.tables, device=config.aoti) if config.aoti else {}
    manifest = Manifest(
        artefact="",
        origin=_origin(source),
        tables=config.tables,
        layout=config.layout,
        modules=modules,
        operators=operators,
        user=user,
        item=ItemSignature(features=input_features(parts, parts.item_names)),
        store=store,
        lookups=lookups,
        packages=packages,
        embedding_dim=parts.dim,
        max_history=_max_history(user),
        files=digest_files(folder),
    )
    manifest = dataclasses.replace(manifest, artefact=artefact_id(manifest))
    write_manifest(folder, manifest)
    return manifest


def _exact_answers(source: Source, user: UserSignature) -> tuple[list[Body], list[Body] | None]:
    """The golden requests, and what the run with float tables and vectors answers; None where the artefact has just those."""
    parts, config = source.parts, source.config
    items = eager_items(parts, source.catalogue)
    store = store_in_memory(items, num_queries=user.num_queries)
    bodies = golden_bodies(parts.task, user=user, store=store.signature, max_history=_max_history(user))
    if config.tables != "quantised" and config.vectors == "float32":
        return bodies, None
    answerer = _eager_answerer(parts, store)
    return bodies, [answer(body, answerer) for body in bodies]


def _eager_answerer(parts: RunParts, store: ItemStore) -> Answerer:
    return Answerer(lambda requests: eager_users(parts, requests), parts.scorer, store)


def _largest_error(answers: Sequence[Body], exact: Sequence[Body] | None) -> float:
    """Over the scored candidates; retrieved items may be others."""
    if exact is None:
        return 0.0
    pairs = [pair for a, b in zip(answers, exact, strict=True) for pair in zip(a["answers"], b["answers"], strict=True)]
    return max(score_error(found, golden) for found, golden in pairs if "items" not in golden)


def _build_index(vectors_MC: torch.Tensor, config: ItemIndexConfig) -> ItemIndex:
    try:
        return build_index(vectors_MC, config)
    except ValueError as error:
        raise UserError(f"--index: {error}") from error


def _write_query_group(folder: Path, parts: RunParts) -> None:
    """Q* [N, D] of a model with meta queries."""
    for module in parts.model.modules():
        if isinstance(module, MetaQuery):
            with torch.no_grad():
                write_durably(folder / QUERIES, module.query_group().numpy().astype("<f4").tobytes())


def _write_tables(folder: Path, parts: RunParts) -> dict[str, str]:
    """Table -> its file."""
    files = {table: f"table_{table}.bin" for table in parts.weights}
    for table, weight_RD in parts.weights.items():
        write_durably(folder / files[table], weight_RD.float().numpy().astype("<f4").tobytes())
    return files


def _module_files(folder: Path, source: Source, *, user: UserSignature, store: StoreSignature) -> dict[str, str]:
    """Module -> its file; for Triton also writes the models' configurations."""
    if source.config.layout == "plain":
        return {name: f"{name}.pt" for name in Towers._fields}
    configs = model_configs(
        user=user,
        num_item_features=len(source.parts.item_names),
        store=store,
        tables=source.config.tables,
        embedding_dim=source.parts.dim,
    )
    for config in configs:
        (folder / config.name / MODEL_FILE).parent.mkdir(parents=True)
        write_durably(folder / config.name / CONFIG_FILE, config_text(config))
    return {config.name: f"{config.name}/{MODEL_FILE}" for config in configs}


def _max_history(user: UserSignature) -> int:
    return min((feature.max_len for feature in user.history), default=0)


def _origin(source: Source) -> Provenance:
    parts, run_config = source.parts, source.run_config
    here = provenance()
    return Provenance(
        task=parts.task,
        model=type(parts.model).__name__,
        recipe=run_config.recipe,
        step=source.step,
        config=run_config.as_dict(),
        config_fingerprint=run_config.fingerprint,
        schema_fingerprint=parts.schema.fingerprint,
        commit=here["commit"],
        created=here["date"],
        versions={name: here[name] for name in ("python", "torch", "torchrec", "fbgemm")},
    )
