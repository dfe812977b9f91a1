from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.trainer.export.server.running import RunningServer
from trainer.errors import UserError
from trainer.export.server_build import BUILD, build_server


@pytest.fixture(scope="session")
def sanitized(pytestconfig: pytest.Config) -> bool:
    return pytestconfig.getoption("server_sanitizers")


@pytest.fixture(scope="session")
def program(sanitized: bool) -> Path:
    """The server, built where something changed; skips where a compiler or package is missing."""
    try:
        return build_server(BUILD.with_name("server-sanitized") if sanitized else BUILD, sanitize=sanitized)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def serve(program: Path, tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Start servers; each must end with exit code 0 and nothing for the sanitizers to say."""
    servers: list[RunningServer] = []

    def start(artefact: Path, *options: str) -> RunningServer:
        servers.append(RunningServer(program, artefact, *options, log=tmp_path / f"server-{len(servers)}.log"))
        return servers[-1]

    try:
        yield start
        for server in servers:
            code = server.stop() if server.process.poll() is None else server.wait()
            assert code == 0, f"exit code {code}:\n{server.log.read_text()[-8000:]}"
            assert "Sanitizer" not in server.log.read_text()
    finally:
        for server in servers:
            server.kill()
