"""A server process and a client of it."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 60
"""After which anything counts as hanging."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    content: Any
    """Parsed, where it is JSON."""
    headers: Mapping[str, str]


class RunningServer:
    """`program` serving `artefact` on a free port, with one connection that is kept alive."""

    def __init__(self, program: Path, artefact: Path, *options: str, log: Path) -> None:
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [str(program), "--artefact", str(artefact), "--port", "0", "--keep-alive-s", "1", *options],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                # memory that torch keeps to the end of the process is no leak
                env=os.environ | {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"},
            )
        assert self.process.stdout is not None
        started = self.process.stdout.readline()
        self.port = int(started.rsplit(":", 1)[1]) if started else 0
        self._connection = self.connect()
        if not started:
            raise AssertionError(f"the server did not start (exit code {self.wait()}):\n{log.read_text()}")

    def connect(self) -> http.client.HTTPConnection:
        """A connection of its own."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request over the kept connection, or a new one where the server closed that."""
        for attempt in range(2):
            try:
                self._connection.request(method, path, body, dict(headers or {}))
                return read_answer(self._connection)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                self._connection.close()  # it was idle for longer than the server keeps one
                if attempt:
                    raise
        raise AssertionError("unreachable")

    def get(self, path: str) -> Answer:
        """GET."""
        return self.ask("GET", path)

    def post(self, path: str, body: object) -> Answer:
        """POST `body` as JSON, or as it is where it is bytes."""
        return self.ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())

    def send_raw(self, content: bytes, *, ends: bool) -> bytes:
        """Send bytes over a connection of their own; what came back.

        Args:
            content: the bytes.
            ends: whether to say that no more will come and read to the end (the server answers no client that has left), or else to
                read one whole answer.
        """
        received = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as connection:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # the server had seen enough
                connection.sendall(content)
                if ends:
                    connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while (ends or not _is_whole(received)) and (chunk := connection.recv(65536)):
                    received += chunk
        return received

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """At once, where a test failed."""
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        """The exit code of a server that ends."""
        self._connection.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(SECONDS)

    def events(self) -> list[dict]:
        """Lines of the log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


def read_answer(connection: http.client.HTTPConnection) -> Answer:
    """The answer to the request that was sent."""
    response = connection.getresponse()
    content = response.read()
    is_json = response.getheader("Content-Type") == "application/json"
    return Answer(response.status, json.loads(content) if is_json else content.decode(), dict(response.getheaders()))


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
    return bool(end) and len(body) >= int(length)
