"""A load generator that costs little beside the server: ready-made requests over kept connections."""

import socket
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

TIMEOUT_SECONDS = 60.0


class Throughput(NamedTuple):
    """What several clients got done."""

    per_second: float
    """Answers of all clients."""
    client_share: float
    """Of one core, that the load generator itself used; near 1 it would measure itself."""


class Connection:
    """A kept connection to a server on this machine.

    Args:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(1 << 20)

    def ask(self, request: bytes) -> float:
        """Send `request` and read its answer; seconds from the first byte sent to the last one received.

        Raises:
            RuntimeError: the answer is not 200.
        """
        started = time.perf_counter()
        self._socket.sendall(request)
        received = self._socket.recv_into(self._buffer)
        while (end := self._buffer.find(b"\r\n\r\n", 0, received)) < 0:
            received += self._more(received)
        head = bytes(self._buffer[:end]).lower()
        total = end + 4 + int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if total > len(self._buffer):
            self._buffer.extend(bytes(total - len(self._buffer)))
        while received < total:
            received += self._more(received)
        seconds = time.perf_counter() - started
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(f"the server refuses a request of the benchmark: {bytes(self._buffer[: min(total, 1000)])!r}")
        return seconds

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _more(self, received: int) -> int:
        count = self._socket.recv_into(memoryview(self._buffer)[received:])
        if count == 0:
            raise RuntimeError("the server closed the connection in the middle of an answer")
        return count


def http_request(path: str, body: bytes) -> bytes:
    """A POST of JSON as bytes on the wire."""
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def throughput(port: int, requests: Sequence[bytes], *, clients: int, seconds: float) -> Throughput:
    """Let `clients` ask one after the other's answer, each over its own connection, for `seconds`.

    Raises:
        RuntimeError: a client's request failed.
    """
    counts, failures = [0] * clients, []
    connections = [Connection(port) for _ in range(clients)]
    deadline = time.perf_counter() + seconds

    def run(client: int) -> None:
        number = client * len(requests) // clients
        try:
            while time.perf_counter() < deadline:
                connections[client].ask(requests[number % len(requests)])
                counts[client] += 1
                number += 1
        except (OSError, RuntimeError) as error:
            failures.append(error)

    started, used = time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    for connection in connections:
        connection.close()
    if failures:
        raise RuntimeError(f"{len(failures)} of {clients} clients failed, the first one with: {failures[0]}") from failures[0]
    return Throughput(sum(counts) / elapsed, (time.process_time() - used) / elapsed)
