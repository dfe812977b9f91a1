import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.export.conftest import Case
from trainer.export import __main__ as command
from trainer.export.artefact import Artefact

ROOT = Path(__file__).parents[3]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["export", *arguments])
    command.main()


@pytest.mark.usefixtures("few_golden_requests")
def test_the_command_writes_an_artefact_and_says_what_it_holds(
    fit_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "artefact"
    run(monkeypatch, "--run", str(fit_case.run.run_dir), "--out", str(out), "--vectors", "int8")
    printed = capsys.readouterr().out
    artefact = Artefact(out)
    assert artefact.manifest.artefact in printed
    assert "480 items of 20 bytes (int8); tables inside" in " ".join(printed.split())
    assert "torchscript: " in printed
    assert "move a golden score by up to" in printed


def test_torchx_runs_the_export_with_what_follows_the_dashes(two_tower_case: Case, tmp_path: Path) -> None:
    torchx = [str(Path(sys.executable).with_name("torchx")), "run", "-s", "local_cwd", "-cfg", f"log_dir={tmp_path / 'logs'}"]
    component = ["torchx_specs/export.py:export", "--run", str(two_tower_case.run.run_dir), "--out", str(tmp_path / "artefact")]
    done = subprocess.run(
        [*torchx, *component, "--", "--vectors", "float16"], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "SUCCEEDED" in done.stderr
    assert Artefact(tmp_path / "artefact").manifest.store.vector_dtype == "float16"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--out", "{taken}"], 2, "exists; choose a new folder"),
        (["--out", "new", "--index.kind", "hnsw"], 2, "--index is for matching models"),
        (["--out", "new", "--run", "{empty}"], 4, "no evaluated checkpoint"),
        (["--out", "new", "--data", "nowhere"], 3, "no such file"),
    ],
)
def test_what_cannot_be_exported_ends_with_its_exit_code(
    fit_case: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(fit_case.run.run_dir / "config.json", empty)
    monkeypatch.chdir(tmp_path)
    filled = [argument.format(taken=fit_case.folder, empty=empty) for argument in arguments]
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, "--run", str(fit_case.run.run_dir), *filled)
    assert left.value.code == code
    assert words in " ".join(capsys.readouterr().err.split())
    assert {path.name for path in tmp_path.iterdir()} == {"empty"}
