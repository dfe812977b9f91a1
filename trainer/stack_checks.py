"""What can be told about the installed stack and the machine without importing torch: only the standard library is used here."""

import ctypes
import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["ok", "warn", "fail"]

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("dataloaders", "models", "kernels", "trainer")
LINES = {
    "2.13": {"torchrec": "1.8", "fbgemm": "1.8", "triton": "3.7"},
    "2.12": {"torchrec": "1.7", "fbgemm": "1.7", "triton": "3.7"},
    "2.11": {"torchrec": "1.6", "fbgemm": "1.6", "triton": "3.6"},
}
"""torch's release line, and the lines of the packages that are built against it."""
DIRECT = ("pyarrow", "tyro", "rich", "tensorboard", "numpy", "jinja2", "torchmetrics", "tensordict")
BESIDE_TRAINING = {"polars": "data preparation", "faiss-cpu": "item indexes"}
"""Direct requirements that training does without, and what needs them."""
REPAIR = "make repair"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row of the diagnosis."""

    check: str
    """What was looked at."""
    level: Level
    """`ok`; `warn`: something optional is missing; `fail`: training will not work."""
    found: str
    """What was found, versions and sizes included."""
    mend: str = ""
    """The command that mends it; empty only where `level` is `ok`."""

    def __post_init__(self) -> None:
        if self.level not in ("ok", "warn", "fail"):
            raise ValueError(f"finding {self.check!r}: level={self.level!r}, expected ok, warn or fail")
        if self.level != "ok" and not self.mend:
            raise ValueError(f"finding {self.check!r}: mend is empty; a {self.level} row must say what to do")


def installed_packages() -> dict[str, str]:
    """Version of every installed distribution, by normalised name (`fbgemm-gpu-cpu`)."""
    packages = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # a half-removed package leaves a folder without metadata
            packages.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return packages


def release_line(version: str) -> str:
    """`2.13` of `2.13.0+cpu`."""
    return ".".join(version.split(".")[:2])


def check_python(version: tuple[int, int]) -> Finding:
    """Python 3.11 to 3.13."""
    found = f"{version[0]}.{version[1]} at {sys.executable}"
    if (3, 11) <= version < (3, 14):
        return Finding(check="Python", level="ok", found=found)
    mend = f"make repair PYTHON=python3.11   (needs 3.11, 3.12 or 3.13; this is {version[0]}.{version[1]})"
    return Finding(check="Python", level="fail", found=found, mend=mend)


def check_platform(system: str, machine: str) -> Finding:
    """Linux on x86_64 is what the pinned wheels and the tests cover."""
    found = f"{system} {machine}"
    if system == "Linux" and machine == "x86_64":
        return Finding(check="platform", level="ok", found=found)
    return Finding(check="platform", level="warn", found=found, mend="use Linux on x86_64: nothing else is tested")


def check_packages(packages: Mapping[str, str]) -> list[Finding]:
    """torch, torchrec, fbgemm and triton are of one release line; the other direct requirements are there."""
    torch_version = packages.get("torch")
    if torch_version is None:
        return [Finding(check="torch", level="fail", found="not installed", mend=REPAIR)]
    line = LINES.get(release_line(torch_version))
    if line is None:
        found = f"{torch_version}; supported: {', '.join(LINES)}"
        return [Finding(check="torch", level="fail", found=found, mend=REPAIR)]
    findings = [Finding(check="torch", level="ok", found=torch_version)]
    for name in ("torchrec", "triton"):
        findings.append(_check_version(name, packages.get(name), line=line[name], torch_version=torch_version))
    findings.append(check_fbgemm(packages, line=line["fbgemm"]))
    absent = [name for name in DIRECT if name not in packages]
    if absent:
        findings.append(Finding(check="libraries", level="fail", found=f"missing: {', '.join(absent)}", mend=REPAIR))
    else:
        findings.append(Finding(check="libraries", level="ok", found=", ".join(f"{n} {packages[n]}" for n in DIRECT[:3])))
    for name, needs in BESIDE_TRAINING.items():
        if name not in packages:
            findings.append(Finding(check="libraries", level="warn", found=f"missing: {name}, for {needs}", mend=REPAIR))
    return findings


def check_torchx(packages: Mapping[str, str]) -> Finding:
    """The launcher is optional: `python -m torch.distributed.run -m trainer.train` does without it."""
    if "torchx" in packages:
        return Finding(check="torchx", level="ok", found=packages["torchx"])
    return Finding(check="torchx", level="warn", found="not installed", mend=f"{REPAIR}   (only `torchx run` needs it)")


def _check_version(name: str, version: str | None, *, line: str, torch_version: str) -> Finding:
    wanted = f"torch {torch_version} goes with {name} {line}"
    if version is None:
        return Finding(check=name, level="fail", found=f"not installed; {wanted}", mend=REPAIR)
    if release_line(version) != line:
        return Finding(check=name, level="fail", found=f"{version}; {wanted}", mend=REPAIR)
    return Finding(check=name, level="ok", found=version)


def check_fbgemm(packages: Mapping[str, str], *, line: str) -> Finding:
    """Exactly one fbgemm build, of torch's line, CUDA only where torch is; told from metadata, for importing it would crash."""
    builds = [name for name in ("fbgemm-gpu", "fbgemm-gpu-cpu") if name in packages]
    found = ", ".join(f"{name} {packages[name]}" for name in builds)
    torch_version = packages["torch"]
    if not builds:
        problem = f"not installed; torch {torch_version} goes with fbgemm-gpu-cpu {line} or, for CUDA, fbgemm-gpu {line}"
    elif len(builds) == 2:
        problem = f"{found}: both unpack into one folder, and the later one broke the earlier"
    elif builds == ["fbgemm-gpu"] and torch_version.endswith("+cpu"):
        problem = f"{found} is the CUDA build, but torch is {torch_version}"
    elif release_line(packages[builds[0]]) != line:
        problem = f"{found}; torch {torch_version} goes with {line}"
    else:
        return Finding(check="fbgemm", level="ok", found=found)
    by_hand = "pip uninstall -y fbgemm-gpu fbgemm-gpu-cpu && pip install --no-deps -r requirements/cpu.txt"
    return Finding(check="fbgemm", level="fail", found=problem, mend=f"{REPAIR}   (in an environment of your own: {by_hand})")


def check_driver(packages: Mapping[str, str], *, gpus: list[str], driver_loads: bool) -> Finding:
    """GPU, driver and builds agree; `gpus` as nvidia-smi names them, `driver_loads` whether libcuda can be opened."""
    cuda_build = "fbgemm-gpu" in packages and "fbgemm-gpu-cpu" not in packages  # both: check_fbgemm has its own row
    if cuda_build and not driver_loads:
        found = "fbgemm-gpu is the CUDA build, but there is no NVIDIA driver (libcuda.so.1)"
        return Finding(check="GPU", level="fail", found=found, mend="make repair STACK=cpu   (or install the NVIDIA driver)")
    if gpus and not cuda_build:
        found = f"{', '.join(gpus)}, unused: the CPU stack is installed"
        return Finding(check="GPU", level="warn", found=found, mend="make repair STACK=cuda")
    return Finding(check="GPU", level="ok", found=", ".join(gpus) or "none: training runs on the CPU")


def nvidia_gpus() -> list[str]:
    """Names of the GPUs that nvidia-smi lists; empty where it is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return answer.stdout.strip().splitlines() if answer.returncode == 0 else []


def driver_loads() -> bool:
    """Whether the NVIDIA driver's library can be opened."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def check_folders(origins: Mapping[str, str | None]) -> Finding:
    """The packages called dataloaders, models, kernels and trainer are this repository's (others use these names too)."""
    foreign = [f"{name} is {origins[name] or 'nowhere'}" for name in FOLDERS if origins[name] != str(REPOSITORY / name)]
    if foreign:
        mend = f"cd {REPOSITORY} and run from there with `python -m`; unset PYTHONPATH"
        return Finding(check="folders", level="fail", found="; ".join(foreign), mend=mend)
    return Finding(check="folders", level="ok", found=f"{', '.join(FOLDERS)} of {REPOSITORY}")


def folder_origins() -> dict[str, str | None]:
    """Where Python would import each of the project's folders from; None where it finds none. Imports nothing."""
    origins: dict[str, str | None] = {}
    for name in FOLDERS:
        spec = importlib.util.find_spec(name)
        paths = list(spec.submodule_search_locations or []) if spec else []
        origins[name] = str(Path(paths[0]).resolve()) if paths else None
    return origins


def check_compiler(programs: Mapping[str, str | None]) -> Finding:
    """A C++ compiler and cmake: optional, for the C++ server and for torch.compile."""
    absent = [name for name, path in programs.items() if path is None]
    if absent:
        mend = "apt install g++ cmake   (only the C++ server and AOTInductor export need them)"
        return Finding(check="C++", level="warn", found=f"no {', no '.join(absent)}", mend=mend)
    return Finding(check="C++", level="ok", found=", ".join(str(path) for path in programs.values()))


def check_space(name: str, *, folder: Path, free_gb: float, warn_gb: float, fail_gb: float, mend: str) -> Finding:
    """Free space of a folder's file system against two bounds, all in GB of 1e9 bytes."""
    level: Level = "fail" if free_gb < fail_gb else "warn" if free_gb < warn_gb else "ok"
    found = f"{free_gb:.1f} GB free in {folder}"
    return Finding(check=name, level=level, found=found, mend="" if level == "ok" else mend)


def machine_findings() -> list[Finding]:
    """Compiler, disk and shared memory of this machine."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    findings = [check_compiler({"C++ compiler": compiler, "cmake": shutil.which("cmake")})]
    disk_gb = shutil.disk_usage(REPOSITORY).free / 1e9
    mend = "free some space: checkpoints are in runs/, prepared data in data/"
    findings.append(check_space("disk", folder=REPOSITORY, free_gb=disk_gb, warn_gb=5, fail_gb=0.5, mend=mend))
    shared = Path("/dev/shm")
    if shared.is_dir():
        shared_gb = shutil.disk_usage(shared).free / 1e9
        mend = "docker run --shm-size=8g   (several ranks on one machine exchange tensors there)"
        findings.append(check_space("shared memory", folder=shared, free_gb=shared_gb, warn_gb=1, fail_gb=0.03, mend=mend))
    return findings


def stack_findings(packages: Mapping[str, str], *, gpus: list[str]) -> list[Finding]:
    """Everything that must hold before torchrec may be imported: some milliseconds, and nothing is imported.

    Args:
        packages: version by normalised name, as `installed_packages` returns it.
        gpus: as `nvidia_gpus` returns them; empty skips the question whether a GPU lies idle.
    """
    version = sys.version_info[:2]
    findings = [check_python((version[0], version[1])), check_platform(platform.system(), platform.machine())]
    findings += check_packages(packages)
    findings.append(check_driver(packages, gpus=gpus, driver_loads=driver_loads()))
    findings.append(check_folders(folder_origins()))
    return findings
