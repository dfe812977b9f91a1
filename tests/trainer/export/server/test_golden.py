"""The C++ server answers exactly as eager Python does."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.export.conftest import FEW, Case, case
from tests.trainer.export.server.running import RunningServer
from trainer.config import RunConfig
from trainer.export.golden import NUM_GOLDEN, read_golden
from trainer.export.parity import TOLERANCE, same_order, score_error

Serve = Callable[..., RunningServer]


def route(body: dict) -> str:
    return "/v1/score" if "candidates" in body["requests"][0] else "/v1/retrieve"


def ask_golden_requests(server: RunningServer, case: Case) -> list[dict]:
    """Ask every golden request and compare the answers; the requests' bodies."""
    bodies = []
    for number, (body, expected) in enumerate(read_golden(case.folder)):
        status, content, _ = server.post(route(body), body)
        assert status == 200, content
        assert content["artefact"] == case.exported.manifest.artefact
        for found, golden in zip(content["answers"], expected["answers"], strict=True):
            assert score_error(found, golden) <= TOLERANCE, f"golden request {number}"
            assert same_order(found, golden), f"golden request {number}"
        bodies.append(body)
    return bodies


def check_golden_answers(server: RunningServer, case: Case) -> None:
    """Ask every golden request, of all sizes."""
    bodies = ask_golden_requests(server, case)
    assert len(bodies) == NUM_GOLDEN
    assert {len(body["requests"]) for body in bodies} == {1, 7, 256}
    assert max(len(request.get("candidates", [])) for body in bodies for request in body["requests"]) == 5000


@pytest.mark.parametrize("options", [(), ("--threads", "2", "--workers", "1")], ids=["default", "two threads"])
def test_golden_requests_are_answered_as_eager_python_does(any_case: Case, serve: Serve, options: tuple[str, ...]) -> None:
    check_golden_answers(serve(any_case.folder, *options), any_case)


@pytest.mark.parametrize("name", ["dat_case", "ranktower_case", "inttower_case", "cold_case"])
def test_other_pre_ranking_models_are_answered_as_by_eager_python(name: str, serve: Serve, request: pytest.FixtureRequest) -> None:
    other: Case = request.getfixturevalue(name)
    check_golden_answers(serve(other.folder), other)


def test_8_bit_tables_and_items_are_answered_as_eager_python_does(fit_bytes_case: Case, serve: Serve) -> None:
    check_golden_answers(serve(fit_bytes_case.folder), fit_bytes_case)


def test_16_bit_items_are_answered_as_eager_python_does(matching_run: RunConfig, serve: Serve, tmp_path: Path) -> None:
    half = case(matching_run, tmp_path, vectors="float16")
    check_golden_answers(serve(half.folder), half)


@pytest.mark.parametrize("recipe", ["diffurec_ml1m", "hstu_ml1m", "stosa_ml1m"])
def test_baselines_are_answered_as_eager_python_does(recipe: str, matching_case: Callable[[str], Case], serve: Serve) -> None:
    """One with noise for every step, one that looks at times, one whose items have a number more than a row of the table."""
    case = matching_case(recipe)
    assert len(ask_golden_requests(serve(case.folder), case)) == len(FEW)


def test_top_k_is_the_order_of_the_scores_and_ties_go_to_the_first(fit_case: Case, serve: Serve) -> None:
    body = next(body for body, _ in read_golden(fit_case.folder) if len(body["requests"][0]["candidates"]) > 50)
    candidates = body["requests"][0]["candidates"][:50] * 2
    body = {"requests": [body["requests"][0] | {"candidates": candidates, "top_k": 100}]}
    (answer,) = serve(fit_case.folder).post("/v1/score", body).content["answers"]
    order = sorted(range(100), key=lambda place: (-answer["scores"][place], place))
    expected = [{"item": candidates[place], "score": answer["scores"][place], "position": place} for place in order]
    assert answer["top"] == expected


def test_noise_belongs_to_the_row_and_not_to_its_company(t2diff_case: Case, serve: Serve) -> None:
    server = serve(t2diff_case.folder)
    body = next(body for body, _ in read_golden(t2diff_case.folder) if len(body["requests"]) == 7 and route(body) == "/v1/retrieve")
    together = server.post("/v1/retrieve", body).content["answers"]
    alone = [server.post("/v1/retrieve", {"requests": [request]}).content["answers"][0] for request in body["requests"]]
    for one, other in zip(together, alone, strict=True):
        assert score_error(one, other) <= TOLERANCE
    # without a history there is nothing for the noise to act on
    row = max(range(7), key=lambda row: max(map(len, body["requests"][row]["history"].values())))
    other_noise = {"requests": [body["requests"][row] | {"row_id": 12345}]}
    assert server.post("/v1/retrieve", other_noise).content["answers"][0]["scores"] != alone[row]["scores"]


def test_a_pre_ranking_artefact_refuses_retrieval(two_tower_case: Case, serve: Serve) -> None:
    status, content, _ = serve(two_tower_case.folder).post("/v1/retrieve", {"requests": []})
    assert status == 409
    assert "/v1/score" in content["error"]["message"]


def test_scores_are_written_so_that_they_read_back_as_the_same_float(two_tower_case: Case, serve: Serve) -> None:
    body, _ = next(read_golden(two_tower_case.folder))
    scores = serve(two_tower_case.folder).post("/v1/score", body).content["answers"][0]["scores"]
    assert all(json.dumps(float(np.float32(score).astype("U"))) == json.dumps(score) for score in scores)
