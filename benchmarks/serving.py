"""Latency, throughput and storage of the C++ server: `python -m benchmarks.serving --artefacts DIR DIR …`.

Each artefact gets a server of its own with one worker and one thread, all pinned to the same core; the load generator runs on the
others. Servers take turns in short rounds, so that a busy machine slows all of them alike. A request has a full history; its 2,000
candidates are drawn from the whole catalogue. The paper's latency (FIT, Table 2) is that of one request with 2,000 candidates on an
A100, and says no more.
"""

import contextlib
import json
import os
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from benchmarks.http_load import Connection, http_request, throughput
from benchmarks.readme import RESULTS, ROOT, replace_section, serving_table
from benchmarks.result_rows import read_rows, replace_rows
from trainer.cli import one_screen_errors
from trainer.console import console
from trainer.errors import UserError
from trainer.export.manifest import Manifest, verify
from trainer.export.requests import draw_requests
from trainer.export.server_build import build_server
from trainer.provenance import provenance

PAPER_MS = {"FIT": "26.9", "TwoTower": "25.4"}
"""FIT Table 2: milliseconds of one request; storage is 1× for both."""
NUM_BODIES = 64
"""Different requests, that take turns."""
KEY = ("artefact", "route", "candidates", "top_k", "cpu")
"""Columns that a row is known by; a new measurement replaces it."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to measure."""

    artefacts: tuple[Path, ...]
    """Folders that trainer.export wrote; with a Two-Tower among them, the others are shown relative to it."""
    candidates: int = 2000
    """Of a /v1/score request."""
    top_k: int = 100
    """Items of a /v1/retrieve request; matching models only."""
    rounds: int = 20
    """In which the servers take turns."""
    requests_per_round: int = 50
    clients: tuple[int, ...] = (1, 2, 4, 8)
    """How many clients ask at the same time, for requests per second."""
    seconds: float = 5.0
    """For each number of clients."""
    core: int = 0
    """Where the servers run."""
    out: Path = RESULTS / "serving.csv"
    """Where the rows go."""

    def __post_init__(self) -> None:
        if min(self.candidates, self.top_k, self.rounds, self.requests_per_round, *self.clients) < 1 or self.seconds <= 0:
            raise ValueError(f"{self}: expected more than 0 of everything")


@dataclass(kw_only=True)
class Subject:
    """One kind of request to one running server, and what was measured of it."""

    manifest: Manifest
    route: str
    requests: list[bytes]
    port: int
    milliseconds: list[float]
    per_second: dict[int, float]
    client_share: float = 0.0

    @property
    def p50(self) -> float:
        """Median of milliseconds."""
        return statistics.median(self.milliseconds)

    @property
    def p99(self) -> float:
        """99th percentile of milliseconds."""
        return sorted(self.milliseconds)[min(len(self.milliseconds) - 1, int(0.99 * len(self.milliseconds)))]


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    with one_screen_errors():
        rows = measure(arguments)
        replace_rows(arguments.out, rows, key=KEY)
        for row in rows:
            console.print(f"{row['model']} {row['route']}: p50 {row['p50_ms']} ms, p99 {row['p99_ms']} ms")
    if arguments.out == RESULTS / "serving.csv":
        replace_section(ROOT / "README.md", "serving", serving_table(read_rows(arguments.out)))


def measure(arguments: Arguments) -> list[dict[str, str]]:
    """A row per artefact and route.

    Raises:
        UserError: the server can't be built here, or there is no such core.
        CheckpointError: an artefact is damaged.
    """
    cores = os.sched_getaffinity(0)
    if arguments.core not in cores:
        raise UserError(f"--core {arguments.core}, but this process may use {sorted(cores)}")
    program, subjects = build_server(), []
    with contextlib.ExitStack() as stack:
        for folder in arguments.artefacts:
            manifest = verify(folder)
            port = stack.enter_context(_server(program, folder, core=arguments.core))
            subjects += [
                Subject(manifest=manifest, route=route, requests=requests, port=port, milliseconds=[], per_second={})
                for route, requests in _requests(manifest, arguments).items()
            ]
        stack.callback(os.sched_setaffinity, 0, cores)
        os.sched_setaffinity(0, cores - {arguments.core} or cores)
        _measure_latency(subjects, arguments)
        _measure_throughput(subjects, arguments)
    return [_row(subject, subjects, arguments) for subject in subjects]


@contextlib.contextmanager
def _server(program: Path, artefact: Path, *, core: int) -> Iterator[int]:
    """The port of a server on one core; ends with the block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # a child inherits it with its first thread, and so do all later ones
    try:
        words = [str(program), "--artefact", str(artefact), "--port", "0", "--workers", "1", "--threads", "1"]
        process = subprocess.Popen([*words, "--keep-alive-s", "3600"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    finally:
        os.sched_setaffinity(0, before)
    with process:
        assert process.stdout is not None
        try:
            started = process.stdout.readline()
            if not started:
                raise UserError(f"the server does not start over {artefact}; run it: {' '.join(words)}")
            yield int(started.rsplit(":", 1)[1])
        finally:
            process.kill()


def _requests(manifest: Manifest, arguments: Arguments) -> dict[str, list[bytes]]:
    """Ready-made requests of every route that the artefact has."""
    generator, num_items = torch.Generator().manual_seed(0), manifest.store.num_items
    users = draw_requests(
        NUM_BODIES,
        signature=manifest.user,
        max_history=manifest.max_history,
        history_lengths=[manifest.max_history] * NUM_BODIES,
        generator=generator,
    )
    scored, retrieved = [], []
    for user in users:
        distinct = torch.randperm(num_items, generator=generator)
        candidates = distinct.repeat(-(-arguments.candidates // num_items))[: arguments.candidates].tolist()
        scored.append(_http("/v1/score", user | {"candidates": candidates}))
        retrieved.append(_http("/v1/retrieve", user | {"top_k": min(arguments.top_k, num_items)}))
    return {"score": scored} | ({"retrieve": retrieved} if manifest.origin.task == "matching" else {})


def _http(path: str, request: dict) -> bytes:
    return http_request(path, json.dumps({"requests": [request]}, separators=(",", ":")).encode())


def _measure_latency(subjects: list[Subject], arguments: Arguments) -> None:
    connections = [Connection(subject.port) for subject in subjects]
    for number in range(-1, arguments.rounds):  # the first round warms up
        for subject, connection in zip(subjects, connections, strict=True):
            for turn in range(arguments.requests_per_round):
                request = subject.requests[(number * arguments.requests_per_round + turn) % NUM_BODIES]
                seconds = connection.ask(request)
                if number >= 0:
                    subject.milliseconds.append(1000 * seconds)
    for connection in connections:
        connection.close()


def _measure_throughput(subjects: list[Subject], arguments: Arguments) -> None:
    for clients in arguments.clients:
        for subject in subjects:
            found = throughput(subject.port, subject.requests, clients=clients, seconds=arguments.seconds)
            subject.per_second[clients] = found.per_second
            subject.client_share = max(subject.client_share, found.client_share)


def _row(subject: Subject, subjects: list[Subject], arguments: Arguments) -> dict[str, str]:
    manifest = subject.manifest
    is_score, is_plain = subject.route == "score", manifest.store.vector_dtype == "float32"
    base = next((other for other in subjects if other.manifest.origin.model == "TwoTower" and other.route == subject.route), None)
    return {
        "model": manifest.origin.model,
        "recipe": manifest.origin.recipe,
        "artefact": manifest.artefact,
        "route": subject.route,
        "candidates": str(arguments.candidates) if is_score else "",
        "top_k": "" if is_score else str(min(arguments.top_k, manifest.store.num_items)),
        "history": str(manifest.max_history),
        "num_items": str(manifest.store.num_items),
        "num_queries": str(manifest.user.num_queries),
        "tables": manifest.tables,
        "vectors": manifest.store.vector_dtype,
        "p50_ms": f"{subject.p50:.3f}",
        "p99_ms": f"{subject.p99:.3f}",
        "requests": str(len(subject.milliseconds)),
        "times_two_tower": f"{subject.p50 / base.p50:.3f}" if base else "",
        "requests_per_second": " ".join(f"{clients}:{rate:.1f}" for clients, rate in subject.per_second.items()),
        "client_share": f"{subject.client_share:.3f}",
        "bytes_per_item": f"{manifest.store.bytes_per_item:g}",
        "storage_times_two_tower": f"{manifest.store.bytes_per_item / base.manifest.store.bytes_per_item:.3f}" if base else "",
        "paper_ms": PAPER_MS.get(manifest.origin.model, "") if is_score and is_plain and arguments.candidates == 2000 else "",
        **provenance(),
    }


if __name__ == "__main__":
    main()
