import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "requirements"


def load_install():
    spec = importlib.util.spec_from_file_location("install", LOCKS / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


install = load_install()


def pins(lock: str) -> dict[str, str]:
    """Versions by name in a lock and in the locks that it includes."""
    found: dict[str, str] = {}
    for line in (LOCKS / f"{lock}.txt").read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            new = pins(line.removeprefix("-r ").removesuffix(".txt"))
        elif line:
            match = re.fullmatch(r"([\w.-]+)==([\w.+]+)", line)
            assert match, f"{lock}.txt: {line!r} is no exact pin"
            new = {re.sub(r"[-_.]+", "-", match[1]).lower(): match[2]}
        else:
            continue
        repeated = set(found) & set(new)
        assert not repeated, f"{lock}.txt: {repeated} pinned more than once"
        found |= new
    return found


class FakePip:
    """Stands for run_pip: answers in order, remembers which locks were asked for."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        self.answers = list(answers)
        self.locks: list[str] = []

    def __call__(self, venv: Path, *, lock: str) -> tuple[int, str]:
        assert venv.is_dir()
        self.locks.append(lock)
        return self.answers.pop(0)


@pytest.fixture
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    monkeypatch.setattr(install, "prepare_venv", lambda _folder, **_options: None)
    return folder


def make_ready(venv: Path, pip: FakePip, monkeypatch: pytest.MonkeyPatch, *, stack: str = "cpu", recreate: bool = False) -> None:
    monkeypatch.setattr(install, "run_pip", pip)
    install.make_ready(venv, stack=stack, recreate=recreate)


def test_a_finished_install_is_not_repeated_until_the_lock_changes(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = FakePip((0, ""), (0, ""), (0, ""))
    make_ready(venv, pip, monkeypatch)
    make_ready(venv, pip, monkeypatch)
    assert pip.locks == ["cpu"]
    make_ready(venv, pip, monkeypatch, recreate=True)
    assert pip.locks == ["cpu", "cpu"]
    monkeypatch.setattr(install, "fingerprint", lambda: "another lock")
    make_ready(venv, pip, monkeypatch)
    assert pip.locks == ["cpu", "cpu", "cpu"]


def test_a_failed_install_leaves_no_stamp_and_is_completed_by_the_next_call(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = FakePip((1, "ReadTimeoutError"), (0, ""))
    with pytest.raises(install.SetupError, match="Run the same command again"):
        make_ready(venv, pip, monkeypatch)
    make_ready(venv, pip, monkeypatch)
    assert pip.locks == ["cpu", "cpu"]


@pytest.mark.parametrize(
    "words", ["No matching distribution found for torch==2.13.0+cpu", "Cannot install torch==2.13.0+cpu because"]
)
def test_without_a_cpu_wheel_the_default_build_is_taken_and_said(
    venv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    pip = FakePip((1, f"ERROR: {words}\n"), (0, ""))
    make_ready(venv, pip, monkeypatch)
    assert pip.locks == ["cpu", "cpu-default-index"]
    assert "PIP_EXTRA_INDEX_URL" in capsys.readouterr().out


def test_another_missing_wheel_is_an_error_and_no_reason_for_the_default_build(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = FakePip((1, "ERROR: No matching distribution found for polars==2.1.0\n"))
    with pytest.raises(install.SetupError):
        make_ready(venv, pip, monkeypatch)
    assert pip.locks == ["cpu"]


@pytest.mark.parametrize(
    ("stack", "package", "clashes"),
    [
        ("cpu", "fbgemm_gpu-1.8.0", True),
        ("cpu", "fbgemm_gpu_cpu-1.8.0", False),
        ("cuda", "fbgemm_gpu_cpu-1.8.0", True),
        ("cuda", "fbgemm_gpu-1.8.0", False),
        ("cuda", "torch-2.13.0+cpu", True),
        ("cuda", "torch-2.13.0", False),
        ("cpu", "torch-2.13.0+cpu", False),
    ],
)
def test_a_package_of_the_other_stack_is_found(tmp_path: Path, stack: str, package: str, clashes: bool) -> None:
    (tmp_path / "lib" / "python3.11" / "site-packages" / f"{package}.dist-info").mkdir(parents=True)
    assert bool(install.clashing_package(tmp_path, stack=stack)) == clashes


def hold(venv: Path, *packages: str, stamp: str = "") -> Path:
    for package in packages:
        (venv / "lib" / "python3.11" / "site-packages" / f"{package}.dist-info").mkdir(parents=True)
    if stamp:
        venv.mkdir(exist_ok=True)
        (venv / "crosstower-stack").write_text(f"{stamp} 0123\n")
    return venv


@pytest.mark.parametrize(
    ("packages", "stamp", "stack"),
    [
        (["fbgemm_gpu_cpu-1.8.0"], "", "cpu"),
        (["fbgemm_gpu-1.8.0"], "", "cuda"),
        ([], "cuda", "cuda"),
        (["fbgemm_gpu_cpu-1.8.0", "fbgemm_gpu-1.8.0"], "", ""),
        (["torch-2.13.0"], "", ""),
    ],
)
def test_the_installed_stack_is_told_by_stamp_or_fbgemm_build(tmp_path: Path, packages: list[str], stamp: str, stack: str) -> None:
    assert install.installed_stack(hold(tmp_path / "venv", *packages, stamp=stamp)) == stack


@pytest.mark.parametrize(("installed", "detected"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_auto_keeps_the_installed_stack_whatever_nvidia_smi_says_and_says_so(
    venv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], installed: str, detected: str
) -> None:
    monkeypatch.setattr(install, "detect_stack", lambda: detected)
    pip = FakePip((0, ""), (0, ""), (0, ""))
    make_ready(venv, pip, monkeypatch, stack=installed)
    make_ready(venv, pip, monkeypatch, stack="auto")
    assert pip.locks == [installed]
    assert f"holds the {installed} stack: it is kept. To change it: make repair STACK={detected}" in capsys.readouterr().out
    make_ready(venv, pip, monkeypatch, stack=detected)
    assert pip.locks == [installed, detected]
    make_ready(hold(venv, stamp=installed), pip, monkeypatch, stack="auto", recreate=True)
    assert pip.locks == [installed, detected, detected]


def test_auto_goes_by_nvidia_smi_where_nothing_is_installed(
    venv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "detect_stack", lambda: "cuda")
    pip = FakePip((0, ""))
    make_ready(venv, pip, monkeypatch, stack="auto")
    assert pip.locks == ["cuda"]
    assert "kept" not in capsys.readouterr().out


@pytest.mark.skipif(importlib.util.find_spec("ensurepip") is None, reason="this Python comes without ensurepip")
def test_an_environment_without_pip_gets_one_and_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (venv / "precious").touch()
    install.prepare_venv(venv, stack="cpu", recreate=False)
    assert install.run_quietly(venv / "bin" / "python", "-m", "pip", "--version") == ""
    assert (venv / "precious").exists()
    assert "had no pip: added" in capsys.readouterr().out
    install.prepare_venv(venv, stack="cpu", recreate=False)
    assert capsys.readouterr().out == ""


def test_an_environment_that_cannot_get_pip_is_refused_with_a_sentence_and_kept(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n[ \"$1\" = -c ] || { echo 'No module named ensurepip' >&2; exit 1; }\n")
    python.chmod(0o755)
    with pytest.raises(install.SetupError, match=r"has no working pip.*\(No module named ensurepip\).*make repair"):
        install.prepare_venv(tmp_path / "venv", stack="cpu", recreate=False)
    assert python.exists()


def test_an_environment_whose_python_does_not_run_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("not a program")
    python.chmod(0o755)
    install.prepare_venv(tmp_path / "venv", stack="cpu", recreate=False)
    assert "does not run: making" in capsys.readouterr().out
    assert install.run_quietly(python, "-c", "") == ""


def test_a_full_disk_is_told_before_pip_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(install.FREE_GB, "cpu", 10**9)
    with pytest.raises(install.SetupError, match="GB free"):
        install.run_pip(tmp_path, lock="cpu")


def test_an_unsupported_python_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install.sys, "version_info", type("Version", (tuple,), {"major": 3, "minor": 10})((3, 10, 1)))
    with pytest.raises(install.SetupError, match=r"is Python 3\.10; 3\.11, 3\.12 or 3\.13 is needed"):
        install.prepare_venv(tmp_path / "venv", stack="cpu", recreate=False)


def test_every_lock_pins_exactly_and_once() -> None:
    for lock in ("cpu", "cpu-default-index", "cuda"):
        found = pins(lock)
        assert ("fbgemm-gpu" in found) != ("fbgemm-gpu-cpu" in found)
        assert found["torch"].split("+")[0] == "2.13.0"
        assert found["triton"] == "3.7.1"


def test_the_stacks_differ_only_in_torch_fbgemm_and_cuda() -> None:
    cpu, cuda, libraries = pins("cpu"), pins("cuda"), pins("cuda-libraries")
    differ = {name for name in cpu.keys() | cuda.keys() if cpu.get(name) != cuda.get(name)}
    assert differ == {"torch", "fbgemm-gpu", "fbgemm-gpu-cpu", *libraries}
    default = pins("cpu-default-index")
    assert default.pop("fbgemm-gpu-cpu") == cuda.pop("fbgemm-gpu")
    assert default == cuda


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_what_the_code_imports_is_listed_as_used_directly() -> None:
    direct = (LOCKS / "common.txt").read_text().split("# Needed by the above")[0].lower()
    for name in ("torchrec", "numpy", "pyarrow", "polars", "tyro", "rich", "tensorboard", "jinja2", "faiss-cpu"):
        assert re.search(rf"^{name}==", direct, re.MULTILINE), name


def test_make_help_names_the_targets() -> None:
    printed = make("help").stdout
    for target in ("demo", "test", "lint", "types", "doctor", "setup", "repair", "clean"):
        assert re.search(rf"^  {target} +\S", printed, re.MULTILINE), target


def test_make_without_a_python_says_what_to_install() -> None:
    done = make("setup", "PYTHON=")
    assert done.returncode == 2
    assert "apt install python3" in done.stderr


def test_the_installer_runs_as_a_script() -> None:
    done = subprocess.run([sys.executable, LOCKS / "install.py", "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "--recreate" in done.stdout
