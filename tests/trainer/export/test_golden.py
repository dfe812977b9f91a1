from pathlib import Path

import pytest
import torch

from tests.trainer.export.conftest import Case
from trainer.errors import UserError
from trainer.export.answers import Answerer
from trainer.export.artefact import Artefact
from trainer.export.golden import NUM_GOLDEN, golden_bodies, read_golden, write_golden


def test_golden_requests_cover_batches_candidates_and_histories(any_case: Case) -> None:
    bodies = [body for body, _ in read_golden(any_case.folder)]
    requests = [request for body in bodies for request in body["requests"]]
    assert len(bodies) == NUM_GOLDEN
    assert {len(body["requests"]) for body in bodies} == {1, 7, 256}
    candidates = [request["candidates"] for request in requests if "candidates" in request]
    assert {1, 5000} <= set(map(len, candidates)) <= set(range(1, 5001))
    assert any(len(set(items)) < len(items) for items in candidates)
    lengths = {len(next(iter(request["history"].values()))) for request in requests}
    assert {0, 1, any_case.exported.manifest.max_history} <= lengths
    retrievals = sum("candidates" not in body["requests"][0] for body in bodies)
    assert retrievals == (NUM_GOLDEN // 2 if any_case.exported.manifest.origin.task == "matching" else 0)


def test_every_request_is_valid_by_the_signature(any_case: Case) -> None:
    manifest = any_case.exported.manifest
    for body, _ in read_golden(any_case.folder):
        for request in body["requests"]:
            assert set(request["user"]) == {feature.name for feature in manifest.user.features}
            for feature in manifest.user.features:
                ids = request["user"][feature.name]
                assert isinstance(ids, list) == feature.is_list
                ids = ids if isinstance(ids, list) else [ids]
                assert feature.min_len <= len(ids) <= feature.max_len
                assert all(0 <= number < feature.vocab_size for number in ids)
            histories = [request["history"][feature.name] for feature in manifest.user.history]
            assert len({len(ids) for ids in histories}) <= 1
            for feature, ids in zip(manifest.user.history, histories, strict=True):
                assert all(0 <= number < feature.vocab_size for number in ids)
            assert all(0 <= item < manifest.store.num_items for item in request.get("candidates", []))
            assert 0 <= request.get("row_id", 0) < 2**63


def test_the_requests_are_the_same_in_every_export(fit_case: Case) -> None:
    manifest = fit_case.exported.manifest
    drawn = golden_bodies("pre_ranking", user=manifest.user, store=manifest.store, max_history=manifest.max_history)
    assert drawn == [body for body, _ in read_golden(fit_case.folder)]


def test_scores_that_are_no_numbers_end_the_export(two_tower_case: Case, tmp_path: Path) -> None:
    artefact = Artefact(two_tower_case.folder)

    def scorer(*inputs: torch.Tensor) -> torch.Tensor:
        return artefact.scorer(*inputs) * float("nan")

    answerer = Answerer(lambda requests: torch.zeros(len(requests), 1, 1, artefact.manifest.user.width), scorer, artefact.store)
    with pytest.raises(UserError, match="not all finite"):
        write_golden(tmp_path, [{"requests": [{"candidates": [1, 2]}]}], answerer)
