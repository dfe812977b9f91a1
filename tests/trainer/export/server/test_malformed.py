"""Whatever a stranger sends, the server says what is wrong with it and goes on answering rightly."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable

import pytest

from tests.trainer.export.conftest import Case
from tests.trainer.export.server.malformed import Breaker, Malformed
from tests.trainer.export.server.running import RunningServer
from trainer.export.answers import Body
from trainer.export.golden import read_golden
from trainer.export.parity import TOLERANCE, score_error

Serve = Callable[..., RunningServer]


class Probe:
    """A golden request, asked again and again."""

    def __init__(self, server: RunningServer, case: Case, *, path: str) -> None:
        self.server, self.path = server, path
        self.body, self.golden = next(
            (body, answer)
            for body, answer in read_golden(case.folder)
            if len(body["requests"]) == 1
            and ("candidates" in body["requests"][0]) == (path == "/v1/score")
            and all(len(history) > 2 for history in body["requests"][0]["history"].values())
            and len(body["requests"][0].get("candidates", range(20))) >= 20
        )

    def check(self, after: object) -> None:
        status, content, _ = self.server.post(self.path, self.body)
        assert status == 200, f"after {after}: {content}"
        assert score_error(content["answers"][0], self.golden["answers"][0]) <= TOLERANCE, f"after {after}"


def check_refusal(status: int, content: Body, malformed: Malformed) -> None:
    shown = f"{malformed.kind}: {malformed.body[:200]!r}… -> {status} {content}"
    assert 400 <= status < 500 or (status == 200 and not malformed.must_fail), shown
    if status != 200:
        assert set(content["error"]) == {"field", "message"}, shown
        assert content["error"]["message"], shown
        assert malformed.field in (None, content["error"]["field"]), shown


@pytest.mark.parametrize(("model", "path", "count"), [("fit", "/v1/score", 1400), ("t2diff", "/v1/retrieve", 600)])
def test_malformed_bodies_are_refused_by_the_field_and_golden_answers_stay_right(
    model: str, path: str, count: int, serve: Serve, request: pytest.FixtureRequest
) -> None:
    case: Case = request.getfixturevalue(f"{model}_case")
    server = serve(case.folder)
    probe, kinds = Probe(server, case, path=path), Counter()
    breaker = Breaker(probe.body, manifest=case.exported.manifest, draw=random.Random(5))
    for malformed in itertools.islice(breaker, count):
        status, content, _ = server.post(path, malformed.body)
        check_refusal(status, content, malformed)
        probe.check(malformed.kind)
        kinds[malformed.kind] += 1
    assert len(kinds) >= 14
    metrics = server.get("/metrics").content
    assert f'crosstower_requests_total{{route="{path}",status="400"}}' in metrics
    assert 'status="5' not in metrics


def http(start: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([start, "Host: localhost", *headers, "", ""]).encode() + body


def cut_short(draw: random.Random, valid: bytes) -> list[bytes]:
    """Noise, and requests that stop on the way."""
    whole = http("POST /v1/score HTTP/1.1", f"Content-Length: {len(valid)}", body=valid)
    noise = [draw.randbytes(draw.randrange(3000)) for _ in range(40)]
    return [*noise, *(whole[: draw.randrange(1, len(whole))] for _ in range(40))]


def no_request_of_ours(valid: bytes) -> list[bytes]:
    """Requests that are wrong as HTTP, or ask for what the server does not do."""
    length, post = f"Content-Length: {len(valid)}", "POST /v1/score HTTP/1.1"
    return [
        http(post, "Content-Length: 99999999999"),
        http(post, "Content-Length: 99999999999999999999999"),
        http(post, "Content-Length: -5", body=valid),
        http(post, "Content-Length: 5x", body=valid),
        http(post, length, length, body=valid),
        http(post, length, "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        http(post, body=valid),
        http(post, "Transfer-Encoding: gzip", body=valid),
        http(post, "Transfer-Encoding: chunked", body=b"zz\r\n" + valid),
        http(post, "Transfer-Encoding: chunked", body=b"ffffffffffffffffff\r\n" + valid),
        http(post, length, "Content-Encoding: gzip", body=valid),
        http(post, length, "Range: bytes=0-5", body=valid),
        http(post, length, "Content-Type: multipart/form-data; boundary=x", body=valid),
        http(post, length, "X: " + "x" * 100_000, body=valid),
        http("POST /" + "x" * 100_000 + " HTTP/1.1", length, body=valid),
        http("POST /v1/score%00%ff HTTP/1.1", length, body=valid),
        http("POST /v1/score HTTP/9.9", length, body=valid),
        http("BREW /v1/score HTTP/1.1", length, body=valid),
        http("DELETE /v1/score HTTP/1.1"),
        http("GET /v1/score HTTP/1.1"),
        http("GET /healthz HTTP/1.1", length, body=valid),
        http("GET /../../etc/passwd HTTP/1.1"),
        http("POST /metrics HTTP/1.1", length, body=valid),
        b"\r\n\r\n\r\n",
    ]


def test_what_is_no_request_of_ours_gets_a_4xx_and_the_next_one_is_answered(fit_case: Case, serve: Serve) -> None:
    server = serve(fit_case.folder, "--timeout-ms", "2000")
    probe = Probe(server, fit_case, path="/v1/score")
    for raw in no_request_of_ours(json.dumps(probe.body).encode()):
        received = server.send_raw(raw, ends=False)
        shown = (raw[:200], received[:500])
        assert received, shown
        assert 400 <= int(received.split()[1]) < 500 or received.split()[1] == b"501", shown
        assert b'{"error":{"field":"' in received, shown
        probe.check(raw[:200])


def test_a_client_that_leaves_on_the_way_harms_nobody(fit_case: Case, serve: Serve) -> None:
    server = serve(fit_case.folder, "--timeout-ms", "2000")
    probe = Probe(server, fit_case, path="/v1/score")
    for raw in [b"", *cut_short(random.Random(6), json.dumps(probe.body).encode())]:
        received = server.send_raw(raw, ends=True)
        assert not received or 400 <= int(received.split()[1]) < 500, (raw[:200], received[:500])
        probe.check(raw[:200])


@pytest.mark.parametrize(
    ("request_line", "status", "field"),
    [("POST /v2/score", 404, "path"), ("GET /v1/score", 405, "method"), ("PUT /healthz", 405, "method")],
)
def test_a_wrong_path_or_method_is_named(two_tower_case: Case, serve: Serve, request_line: str, status: int, field: str) -> None:
    method, path = request_line.split()
    found, content, headers = serve(two_tower_case.folder).ask(method, path, b"" if method != "GET" else None)
    assert (found, content["error"]["field"]) == (status, field)
    assert ("Allow" in headers) == (status == 405)


def test_limits_are_options(fit_case: Case, serve: Serve) -> None:
    server = serve(
        fit_case.folder, "--max-body", "20000", "--max-batch", "2", "--max-candidates", "30", "--max-history", "3", "--log-requests"
    )
    user = Probe(server, fit_case, path="/v1/score").body["requests"][0]["user"]
    names = [feature.name for feature in fit_case.exported.manifest.user.history]

    def refusal(*, history: int = 3, candidates: int = 30, batch: int = 2) -> tuple[int, str]:
        request = {"user": user, "history": {name: [0] * history for name in names}, "candidates": [0] * candidates}
        status, content, _ = server.post("/v1/score", {"requests": [request] * batch})
        return status, content.get("error", {}).get("field", "")

    assert refusal() == (200, "")
    assert refusal(history=4) == (400, f"requests[0].history.{names[0]}")
    assert refusal(candidates=31) == (400, "requests[0].candidates")
    assert refusal(batch=3) == (400, "requests")
    assert server.post("/v1/score", b" " * 20_001)[0] == 413


def test_a_request_that_takes_too_long_is_given_up_and_the_server_goes_on(fit_case: Case, serve: Serve) -> None:
    server = serve(fit_case.folder, "--timeout-ms", "1")
    body = next(body for body, _ in read_golden(fit_case.folder) if len(body["requests"]) == 256)
    status, content, headers = server.post("/v1/score", body)
    assert (status, headers["Retry-After"]) == (503, "1")
    assert "--timeout-ms" in content["error"]["message"]
    assert server.get("/healthz").status == 200
