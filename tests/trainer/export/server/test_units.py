"""The server's parts that need no libtorch, built with address and undefined-behaviour sanitizers."""

import subprocess

import pytest

from trainer.errors import UserError
from trainer.export.server_build import BUILD, build_server


def test_parts_of_the_server_keep_their_promises_under_sanitizers() -> None:
    try:
        program = build_server(BUILD.with_name("server-units"), target="unit_tests", sanitize=True)
    except UserError as error:
        pytest.skip(str(error))
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    assert done.stdout == "0 failures\n"
