from pathlib import Path

import pytest

from trainer.errors import UserError
from trainer.export.server_build import INSTALL, build_server


def programs(folder: Path, *, cmake: str) -> None:
    """Programs for PATH: a `cmake` that runs these lines of shell, and the others that a build looks for."""
    for name, lines in {"cmake": cmake, "make": "", "c++": ""}.items():
        (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
        (folder / name).chmod(0o755)


def test_a_missing_compiler_is_named_with_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"cmake, make, c\+\+ not found") as error:
        build_server(tmp_path / "build")
    assert INSTALL in str(error.value)


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, cmake="echo '  JSON_INCLUDE not found: install nlohmann-json3-dev' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="JSON_INCLUDE not found: install nlohmann-json3-dev") as error:
        build_server(tmp_path / "build")
    assert INSTALL in str(error.value)


def test_sources_that_do_not_compile_are_no_reason_to_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, cmake="""case "$1" in --build) echo 'main.cpp:1: error: here'; exit 2;; esac""")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"main\.cpp:1: error: here"):
        build_server(tmp_path / "build")
