import subprocess
import sys
from pathlib import Path

import pytest

from trainer.stack_checks import (
    FOLDERS,
    LINES,
    REPOSITORY,
    Finding,
    check_compiler,
    check_driver,
    check_folders,
    check_packages,
    check_platform,
    check_python,
    check_space,
    check_torchx,
    folder_origins,
    installed_packages,
)

CPU = {
    "torch": "2.13.0+cpu",
    "torchrec": "1.8.0",
    "fbgemm-gpu-cpu": "1.8.0",
    "triton": "3.7.1",
    "pyarrow": "26.0.1",
    "polars": "2.1.0",
    "tyro": "1.0.17",
    "rich": "15.0.0",
    "tensorboard": "2.21.0",
    "numpy": "2.4.6",
    "jinja2": "3.1.6",
    "torchmetrics": "1.0.3",
    "tensordict": "0.15.3",
    "faiss-cpu": "1.15.1",
}
CUDA = {name: version for name, version in CPU.items() if name != "fbgemm-gpu-cpu"} | {"torch": "2.13.0", "fbgemm-gpu": "1.8.0"}
OLDEST = CUDA | {"torch": "2.11.0+cu130", "torchrec": "1.6.1", "fbgemm-gpu": "1.6.0", "triton": "3.6.0"}


def failed(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings if finding.level == "fail"}


@pytest.mark.parametrize("packages", [CPU, CUDA, OLDEST, CPU | {"torch": "2.13.0"}], ids=["cpu", "cuda", "oldest", "default index"])
def test_the_supported_stacks_pass(packages: dict[str, str]) -> None:
    assert failed(check_packages(packages)) == {}


def test_this_very_environment_passes() -> None:
    assert failed(check_packages(installed_packages())) == {}


def test_both_fbgemm_builds_at_once_are_a_clash_that_names_its_cure() -> None:
    finding = failed(check_packages(CPU | {"fbgemm-gpu": "1.9.0"}))["fbgemm"]
    assert "fbgemm-gpu 1.9.0, fbgemm-gpu-cpu 1.8.0" in finding.found
    assert "make repair" in finding.mend
    assert "pip uninstall -y fbgemm-gpu fbgemm-gpu-cpu" in finding.mend


def test_cuda_fbgemm_with_cpu_torch_is_told_from_metadata() -> None:
    finding = failed(check_packages(CUDA | {"torch": "2.13.0+cpu"}))["fbgemm"]
    assert "CUDA build" in finding.found


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"torchrec": "1.9.2"}, "torchrec"),
        ({"fbgemm-gpu-cpu": "1.6.0"}, "fbgemm"),
        ({"triton": "3.9.0"}, "triton"),
        ({"torch": "2.15.0"}, "torch"),
        ({"torch": "2.11.0+cpu"}, "torchrec"),
    ],
)
def test_a_package_of_another_release_line_is_named(changes: dict[str, str], check: str) -> None:
    finding = failed(check_packages(CPU | changes))[check]
    assert next(iter(changes.values())) in finding.found
    assert finding.mend


@pytest.mark.parametrize("name", ["torch", "torchrec", "fbgemm-gpu-cpu", "triton", "pyarrow", "jinja2"])
def test_a_missing_package_is_red(name: str) -> None:
    packages = {other: version for other, version in CPU.items() if other != name}
    assert failed(check_packages(packages))


@pytest.mark.parametrize("name", ["polars", "faiss-cpu"])
def test_what_only_data_preparation_or_an_index_needs_is_yellow_when_it_is_missing(name: str) -> None:
    findings = check_packages({other: version for other, version in CPU.items() if other != name})
    assert failed(findings) == {}
    assert [(finding.level, name in finding.found) for finding in findings if finding.level != "ok"] == [("warn", True)]


def test_training_imports_neither_of_them() -> None:
    program = "import sys; sys.modules |= dict.fromkeys(['polars', 'faiss']); import trainer.trainer"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_supported_line_names_its_partners() -> None:
    assert all(set(partners) == {"torchrec", "fbgemm", "triton"} for partners in LINES.values())


def test_torchx_is_optional() -> None:
    assert check_torchx({}).level == "warn"
    assert check_torchx({"torchx": "0.7.0"}).level == "ok"


@pytest.mark.parametrize(("version", "level"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "fail")])
def test_python_3_11_to_3_13_are_supported(version: tuple[int, int], level: str) -> None:
    assert check_python(version).level == level


def test_another_platform_is_a_warning() -> None:
    assert check_platform("Linux", "x86_64").level == "ok"
    assert check_platform("Darwin", "arm64").level == "warn"


def test_a_cuda_build_without_a_driver_is_red_and_an_idle_gpu_is_yellow() -> None:
    assert check_driver(CUDA, gpus=[], driver_loads=False).level == "fail"
    assert check_driver(CUDA, gpus=["NVIDIA H100, 580.65"], driver_loads=True).level == "ok"
    idle = check_driver(CPU, gpus=["NVIDIA H100, 580.65"], driver_loads=True)
    assert (idle.level, idle.mend) == ("warn", "make repair STACK=cuda")
    assert check_driver(CPU, gpus=[], driver_loads=False).level == "ok"
    assert check_driver(CPU | CUDA, gpus=[], driver_loads=False).level == "ok"


def test_a_foreign_package_of_the_same_name_is_found() -> None:
    ours: dict[str, str | None] = {name: str(REPOSITORY / name) for name in FOLDERS}
    assert check_folders(ours).level == "ok"
    foreign = check_folders(ours | {"kernels": "elsewhere/site-packages/kernels", "models": None})
    assert foreign.level == "fail"
    assert foreign.found == "models is nowhere; kernels is elsewhere/site-packages/kernels"
    assert str(REPOSITORY) in foreign.mend


def test_the_folders_here_are_this_repository() -> None:
    assert check_folders(folder_origins()).level == "ok"


def test_a_missing_compiler_is_only_a_warning() -> None:
    assert check_compiler({"C++ compiler": "c++", "cmake": None}).level == "warn"
    assert check_compiler({"C++ compiler": "c++", "cmake": "cmake"}).level == "ok"


@pytest.mark.parametrize(("free_gb", "level"), [(0.1, "fail"), (0.9, "warn"), (1.0, "ok")])
def test_space_is_held_against_two_bounds(free_gb: float, level: str) -> None:
    finding = check_space("disk", folder=Path("runs"), free_gb=free_gb, warn_gb=1, fail_gb=0.5, mend="free some")
    assert finding.level == level
    assert finding.mend == ("" if level == "ok" else "free some")


def test_a_row_that_is_not_ok_must_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="must say what to do"):
        Finding(check="disk", level="warn", found="full")
    with pytest.raises(ValueError, match="expected ok, warn or fail"):
        Finding(check="disk", level="bad", found="full", mend="free some")  # type: ignore[arg-type]
