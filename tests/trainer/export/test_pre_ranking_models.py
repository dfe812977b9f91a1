"""Artefacts of pre-ranking models whose towers end in many heads, or which have none."""

import numpy as np
import pytest
import torch

from dataloaders.catalogue import read_catalogue
from tests.trainer.export.conftest import Case
from tests.trainer.export.small_runs import trained_parts
from trainer.export.artefact import Artefact
from trainer.export.golden import read_golden
from trainer.export.manifest import read_manifest


@pytest.fixture(scope="session", params=["inttower", "cold"])
def further_case(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(f"{request.param}_case")


def test_their_artefacts_answer_the_golden_requests_as_the_runs_do(further_case: Case) -> None:
    (parity,) = further_case.exported.parity.values()
    assert parity.bodies == 64
    assert parity.scores > 10_000
    assert parity.max_error <= 1e-5
    scores = [score for _, answer in read_golden(further_case.folder) for row in answer["answers"] for score in row["scores"]]
    assert np.std(scores) > 100 * parity.max_error


def test_inttowers_store_holds_the_heads_of_the_last_layer_alone(inttower_case: Case) -> None:
    manifest = inttower_case.exported.manifest
    assert (manifest.user.heads, manifest.user.width) == (2 * 2, 5)
    assert (manifest.store.heads, manifest.store.width, manifest.store.holds) == (3, 5, "vectors")


def test_colds_store_holds_the_items_inputs_and_the_manifest_says_so(cold_case: Case) -> None:
    manifest = read_manifest(cold_case.folder)
    assert manifest.store.holds == "inputs"
    parts = trained_parts(cold_case.run)
    catalogue = read_catalogue(cold_case.run.data, parts.schema, bad_rows="raise")
    with torch.no_grad():
        _, items = parts.embeddings(catalogue.pooled, catalogue.sequence)
    stored = Artefact(cold_case.folder).store.gather(slice(None)).item_BHP
    assert torch.equal(stored.flatten(1), torch.cat([items.attributes_BA, items.item_BD], dim=1))


def test_a_server_of_cold_sees_what_its_network_kept(cold_case: Case) -> None:
    parts = trained_parts(cold_case.run)
    names, kept_M = parts.model.field_names, parts.model.excitation.kept_M
    kept = {name for name, is_kept in zip(names, kept_M.tolist(), strict=True) if is_kept}
    assert len(kept) == 3
    golden = read_golden(cold_case.folder)
    body, answer = next((body, answer) for body, answer in golden if len(body["requests"][0]["candidates"]) > 9)
    artefact = Artefact(cold_case.folder)
    for name in cold_case.exported.manifest.user.features:
        request = body["requests"][0]
        changed = request | {"user": request["user"] | {name.name: (request["user"][name.name] + 1) % name.vocab_size}}
        scores = artefact.answer({"requests": [changed]})["answers"][0]["scores"]
        assert (scores == answer["answers"][0]["scores"]) == (name.name not in kept)
