"""An exported artefact, loaded and ready to answer; what the C++ server does, in Python."""

# B requests, M items, J history positions, F context features, D embedding width, N meta queries, H heads, P vector width

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.types import ItemVectors
from trainer.errors import CheckpointError
from trainer.export.answers import Answerer, Body, answer
from trainer.export.aoti import PackagedModule, PackagedUserTower, split_history
from trainer.export.assemble import Towers
from trainer.export.item_store import ItemStore, read_store
from trainer.export.lookups import PooledLookup, SequenceLookup, StackedTable, stack_tables
from trainer.export.manifest import Manifest, verify
from trainer.export.requests import Request, UserTensors, user_tensors
from trainer.export.signature import InputFeature, ModuleForm
from trainer.export.torchscript import load_script


class Artefact:
    """The modules and the item store of an artefact folder, verified.

    Args:
        folder: that `trainer.export` wrote.
        form: of the modules; only artefacts that were exported with --aoti have packages.

    Raises:
        CheckpointError: a file is missing, changed, or of another artefact; or there is no such form, or none for this machine.

    Example::

        artefact = Artefact(Path("artefacts/fit"))
        artefact.answer({"requests": [{"user": {"user": 12}, "history": {"hist_item": [3, 4]}, "candidates": [7, 8]}]})
    """

    def __init__(self, folder: Path, *, form: ModuleForm = "torchscript") -> None:
        self.folder, self.form = folder, form
        self.manifest: Manifest = verify(folder)
        self.user_tower, self.item_tower, self.scorer = _modules(folder, self.manifest, form)
        self.store: ItemStore = read_store(folder, self.manifest.store)
        self._lookups = _Lookups(folder, self.manifest) if self.manifest.tables == "outside" else None

    def answer(self, body: Body) -> Body:
        """The answer to a valid body of /v1/score or /v1/retrieve, with the artefact's id."""

        def users(requests: Sequence[Request]) -> torch.Tensor:
            return self.user_vectors(user_tensors(requests, self.manifest.user))

        found = answer(body, Answerer(users, self.scorer, self.store))
        return {"artefact": self.manifest.artefact} | found

    @torch.no_grad()
    def user_vectors(self, inputs: UserTensors) -> torch.Tensor:
        """[B, N, H_u, P] of B users, with the noise that belongs to their row ids."""
        looked_up = inputs[:4] if self._lookups is None else self._lookups.users(inputs)
        return self.user_tower.seeded(*looked_up, inputs.row_id, self.manifest.user.seed)

    @torch.no_grad()
    def item_vectors(self, values: torch.Tensor, lengths: torch.Tensor) -> ItemVectors:
        """Query index [M] and vectors [M, H_v, P] of items by their ids, as ItemTower takes them."""
        inputs = (values, lengths) if self._lookups is None else (self._lookups.items(values, lengths).flatten(1),)
        return ItemVectors(*self.item_tower(*inputs))


def _modules(folder: Path, manifest: Manifest, form: ModuleForm) -> tuple[Any, Any, Any]:
    """User tower, item tower and scorer."""
    if form == "torchscript":
        user_tower, item_tower, scorer = (load_script(folder / manifest.modules[name]) for name in Towers._fields)
        return user_tower, item_tower, scorer
    if not manifest.packages:
        raise CheckpointError(f"{folder}: artefact {manifest.artefact} has no AOTInductor packages; export the run with --aoti")
    user, item, scorer = (manifest.packages[name] for name in Towers._fields)
    tower = PackagedUserTower(folder / user["file"], user, noise_size=manifest.user.noise_size)
    return tower, PackagedModule(folder / item["file"], item), PackagedModule(folder / scorer["file"], scorer)


class _Lookups:
    """Tables that are outside of the towers, looked up as their server would."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.looked_up, self.ids = split_history(manifest.user.history)
        histories = tuple(manifest.user.history[place] for place in self.looked_up)
        self.pooled = PooledLookup(_tables(folder, manifest, manifest.user.features), quantised=False, check_ids=True)
        self.sequence = SequenceLookup(_tables(folder, manifest, histories), quantised=False, check_ids=True)
        self.items = PooledLookup(_tables(folder, manifest, manifest.item.features), quantised=False, check_ids=True)

    def users(self, inputs: UserTensors) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What VectorUserTower takes."""
        return (
            self.pooled(inputs.user_values, inputs.user_lengths).flatten(1),
            self.sequence(inputs.history_values[self.looked_up]),
            inputs.history_lengths,
            inputs.history_values[self.ids].t(),
        )


def _tables(folder: Path, manifest: Manifest, features: tuple[InputFeature, ...]) -> StackedTable:
    """The stacked tables of `features`, read from the artefact."""
    weights, dim = {}, manifest.embedding_dim
    for feature in features:
        if feature.table is not None:
            rows = np.fromfile(folder / manifest.lookups[feature.table], dtype="<f4").reshape(feature.vocab_size, dim)
            weights[feature.table] = torch.from_numpy(rows)
    return stack_tables(features, weights, dim=dim)
