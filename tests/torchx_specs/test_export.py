import subprocess
import sys
from pathlib import Path

import pytest
from torchx.runner import get_runner
from torchx.specs import AppDef, Role

from torchx_specs.export import LaunchError, export

ROOT = Path(__file__).parents[2]
COMPONENT = "torchx_specs/export.py:export"


def only_role(app: AppDef) -> Role:
    (role,) = app.roles
    return role


def test_the_job_is_this_pythons_exporter_with_what_follows_the_dashes() -> None:
    role = only_role(export("--tables", "quantised", run="runs/a", out="artefacts/a", cpu=3))
    assert role.entrypoint == sys.executable
    assert role.args == ["-m", "trainer.export", "--run", "runs/a", "--out", "artefacts/a", "--tables", "quantised"]
    assert role.env["OMP_NUM_THREADS"] == "3"


def test_a_container_has_its_own_python_and_its_mounts() -> None:
    role = only_role(export(run="a", out="b", image="registry/crosstower:1", cpu=2, mounts="type=bind,src=/data,dst=/data"))
    assert role.entrypoint == "python"
    assert [mount.dst_path for mount in role.mounts] == ["/data"]


def test_a_local_dry_run_takes_the_component_from_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with get_runner() as runner:
        arguments = ["--run", "a folder", "--out", "b", "--", "--vectors", "int8"]
        request = runner.dryrun_component(COMPONENT, arguments, "local_cwd").request
    (replica,) = request.role_params["export"]
    assert replica.args[-6:] == ["--run", "a folder", "--out", "b", "--vectors", "int8"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run": ""}, "run='', expected a folder"),
        ({"out": "--tables"}, "out='--tables', expected a folder"),
        ({"cpu": -1}, "cpu=-1, expected at least 0"),
        ({"memMB": -1}, "memMB=-1, expected at least 0"),
        ({"image": "registry/crosstower:1"}, "say how many cores"),
        ({"mounts": "type=bind,src=/data,dst=/data"}, "without an image"),
    ],
)
def test_a_parameter_that_cannot_work_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        export(**({"run": "a", "out": "b"} | arguments))


def test_the_command_line_names_what_is_missing_without_a_traceback() -> None:
    command = [str(Path(sys.executable).with_name("torchx")), "run", "--dryrun", COMPONENT, "--run", "a"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert "the following arguments are required: --out" in done.stderr
    assert "Traceback" not in done.stderr
