import subprocess
import sys

import pytest

from trainer import doctor
from trainer.stack_checks import Finding, installed_packages

BROKEN = {"torch": "2.13.0+cpu", "torchrec": "1.8.0", "fbgemm-gpu": "1.9.0", "fbgemm-gpu-cpu": "1.8.0", "triton": "3.7.1"}


def run_smoke(code: str, *, seconds: float = 60, gpus: list[str] | None = None) -> Finding:
    return doctor.smoke_finding(gpus=gpus or [], command=(sys.executable, "-c", code), seconds=seconds)


def test_a_crash_by_signal_is_a_red_row_and_not_an_exception() -> None:
    finding = run_smoke("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (finding.level, finding.found, finding.mend) == ("fail", "killed by SIGSEGV", "make repair")


def test_an_exception_in_the_smoke_step_shows_its_last_line() -> None:
    finding = run_smoke("raise OSError('libtorch_cuda.so: cannot open shared object file')")
    assert finding.level == "fail"
    assert finding.found == "exit code 1: OSError: libtorch_cuda.so: cannot open shared object file"


def test_a_hanging_smoke_step_is_given_up() -> None:
    finding = run_smoke("import time; time.sleep(60)", seconds=0.5)
    assert (finding.level, finding.found) == ("fail", "no answer within 0.5 s")


def test_a_gpu_that_a_cuda_build_does_not_see_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_packages", lambda: {"fbgemm-gpu": "1.8.0"})
    finding = run_smoke("print('{\"cpu\": 1.0}')", gpus=["NVIDIA H100, 550.1"])
    assert finding.level == "fail"
    assert "driver" in finding.mend


def test_doctor_is_green_here_and_leaves_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        doctor.main()
    printed = capsys.readouterr().out
    assert leaving.value.code == 0, printed
    assert "smoke step" in printed
    assert "gloo on cpu" in printed


def test_doctor_leaves_with_2_and_does_not_import_a_broken_stack(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "installed_packages", lambda: BROKEN)
    with pytest.raises(SystemExit) as leaving:
        doctor.main()
    assert leaving.value.code == 2
    assert "not run" in capsys.readouterr().out


def test_a_working_stack_is_let_through() -> None:
    doctor.require_working_stack()


def test_the_doctor_and_the_gate_import_neither_torch_nor_torchrec() -> None:
    code = (
        "import sys, trainer.doctor as d; d.require_working_stack(); print({'torch', 'torchrec', 'fbgemm_gpu'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=doctor.REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_broken_stack_stops_with_one_screen_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "installed_packages", lambda: BROKEN)
    with pytest.raises(SystemExit) as leaving:
        doctor.require_working_stack()
    printed = capsys.readouterr().err
    assert leaving.value.code == 2
    assert "fbgemm-gpu 1.9.0, fbgemm-gpu-cpu 1.8.0" in printed
    assert "make repair" in printed
    assert "Traceback" not in printed


def test_without_rich_the_table_is_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    doctor.print_findings([Finding(check="torch", level="fail", found="not installed", mend="make repair")])
    assert capsys.readouterr().out == "fail  torch: not installed; mend: make repair\n"


def test_checking_the_stack_imports_neither_torch_nor_torchrec() -> None:
    code = (
        "import sys, trainer.doctor as d; d.require_working_stack(); print([m for m in ('torch', 'torchrec') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=doctor.REPOSITORY, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_installed_packages_are_known_by_their_normalised_names() -> None:
    packages = installed_packages()
    assert "fbgemm-gpu-cpu" in packages or "fbgemm-gpu" in packages
    assert all(name == name.lower() and "_" not in name for name in packages)
