import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.http_load import Connection, http_request, throughput
from benchmarks.readme import serving_table


class Echo(BaseHTTPRequestHandler):
    """Answers with as many bytes as the body says; 400 where it says none."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        size = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200 if size else 400)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(b"x" * size)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_an_answer_is_read_to_its_end_whatever_its_size(echo: int) -> None:
    connection = Connection(echo)
    for size in (1, 100_000, 3_000_000, 7):  # the next answer would begin in the rest of the one before
        assert connection.ask(http_request("/", json.dumps(size).encode())) > 0
    connection.close()


def test_an_answer_that_is_no_200_stops_the_benchmark(echo: int) -> None:
    connection = Connection(echo)
    with pytest.raises(RuntimeError, match="refuses"):
        connection.ask(http_request("/", b"0"))
    connection.close()


def test_throughput_counts_the_answers_of_all_clients(echo: int) -> None:
    found = throughput(echo, [http_request("/", b"10"), http_request("/", b"20")], clients=3, seconds=0.3)
    assert found.per_second > 0
    assert found.client_share > 0


def test_a_client_that_fails_fails_the_measurement(echo: int) -> None:
    with pytest.raises(RuntimeError, match="2 of 2 clients"):
        throughput(echo, [http_request("/", b"0")], clients=2, seconds=0.3)


def test_a_server_that_is_gone_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        Connection(port)


def row(**fields: str) -> dict[str, str]:
    machine = dict.fromkeys(("cpu", "cores", "gpu", "torch", "torchrec", "commit", "date"), "x")
    measured = {"p50_ms": "2.500", "p99_ms": "3.000", "requests_per_second": "1:400.0 8:410.0", "bytes_per_item": "513"}
    request = {"candidates": "2000", "top_k": "", "num_items": "3706", "route": "score", "tables": "inside", "vectors": "float32"}
    relative = {"times_two_tower": "2.500", "storage_times_two_tower": "1.002", "paper_ms": "26.9"}
    return {"recipe": "fit_ml1m"} | machine | measured | request | relative | fields


def test_the_table_shows_the_newest_row_of_each_form_beside_the_paper() -> None:
    retrieval = {"route": "retrieve", "candidates": "", "top_k": "100", "times_two_tower": "", "paper_ms": ""}
    table = serving_table([row(p50_ms="9.000"), row(), row(vectors="int8"), row(recipe="t2diff_ml1m", **retrieval)])
    lines = table.splitlines()
    assert "| fit_ml1m | 2,000 candidates | 2.500 | 3.000 | 2.500 | 400.0 (1), 410.0 (8) | 513 | 1.002 | 26.9 |" in lines
    assert "9.000" not in table
    assert any(line.startswith("| fit_ml1m, tables inside, items int8 |") for line in lines)
    assert any(line.startswith("| t2diff_ml1m | best 100 of 3,706 |") and line.endswith("| – |") for line in lines)
