import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from torchx.runner import get_runner
from torchx.specs import AppDef, AppDryRunInfo, Role

import torchx_specs.train
from torchx_specs.train import LaunchError, train
from trainer.recipes import RECIPES

ROOT = Path(__file__).parents[2]
COMPONENT = "torchx_specs/train.py:train"
CLUSTER = ["--recipe", "fit_demo", "--nnodes", "2", "--nproc", "4", "--cpu", "8", "--memMB", "1000"]


def only_role(app: AppDef) -> Role:
    (role,) = app.roles
    return role


def dry_run(scheduler: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, **cfg: str) -> AppDryRunInfo:
    monkeypatch.chdir(ROOT)
    with get_runner() as runner:
        return runner.dryrun_component(COMPONENT, arguments, scheduler, cfg=cfg)


def test_every_recipe_in_the_examples_exists() -> None:
    named = re.findall(r"--recipe (\w+)", torchx_specs.train.__doc__ or "")
    assert named
    assert set(named) <= RECIPES.keys()


def test_one_node_starts_this_python_at_a_free_local_port() -> None:
    role = only_role(train("--loop.max-epochs", "2", recipe="fit_demo", nproc=2, cpu=8))
    assert role.entrypoint == sys.executable
    assert role.args[:2] == ["-m", "trainer.launch"]
    assert role.args[role.args.index("--rdzv-endpoint") + 1] == "localhost:0"
    assert role.args[role.args.index("--nproc-per-node") + 1] == "2"
    assert role.args[-6:] == ["-m", "trainer.train", "--recipe", "fit_demo", "--loop.max-epochs", "2"]


def test_the_cores_of_a_node_are_divided_among_its_ranks() -> None:
    assert only_role(train(recipe="fit_demo", nproc=3, cpu=16)).env["OMP_NUM_THREADS"] == "5"
    assert only_role(train(recipe="fit_demo", nproc=4, cpu=2)).env["OMP_NUM_THREADS"] == "1"
    here = max(1, len(os.sched_getaffinity(0)) // 2)
    assert only_role(train(recipe="fit_demo", nproc=2)).env["OMP_NUM_THREADS"] == str(here)


def test_a_local_dry_run_passes_what_follows_the_dashes_to_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--recipe", "fit_demo", "--nproc", "2", "--", "--data", "a folder", "--loop.max-epochs", "2"]
    request = dry_run("local_cwd", arguments, monkeypatch).request
    (replica,) = request.role_params["fit-demo"]
    assert replica.args[-4:] == ["--data", "a folder", "--loop.max-epochs", "2"]
    assert replica.env["TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE"] == "[${rank}]:"
    assert "${" not in " ".join(replica.args)


def test_a_slurm_dry_run_meets_on_the_first_node(monkeypatch: pytest.MonkeyPatch) -> None:
    script = str(dry_run("slurm", [*CLUSTER, "--gpu", "4", "--", "--data", "a folder"], monkeypatch))
    assert script.count("bash -c") == 2
    assert "${SLURM_JOB_NODELIST_HET_GROUP_0:-localhost}:29500" in script
    assert "--cpus-per-task=8 --mem=1000 --gpus-per-task=4" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_the_command_of_a_node_in_a_group_reaches_the_launcher_unharmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    role = dry_run("slurm", [*CLUSTER, "--", "--data", "it's $HOME"], monkeypatch).request.replicas["fit-demo-0"]
    spy = tmp_path / "spy"
    spy.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    spy.chmod(0o755)
    command = [role.entrypoint, "-c", role.args[1].replace(sys.executable, str(spy)).replace("${app_id}", "7")]
    environment = {"SLURM_JOB_NODELIST_HET_GROUP_0": "node-a"}
    words = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert words[words.index("--rdzv-endpoint") + 1] == "node-a:29500"
    assert words[words.index("--rdzv-id") + 1] == "7"
    assert words[-2:] == ["--data", "it's $HOME"]


@pytest.mark.filterwarnings("ignore:Cannot determine resource instance type:UserWarning")  # torchx, without a named resource
def test_an_aws_batch_dry_run_names_image_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    request = str(dry_run("aws_batch", [*CLUSTER, "--image", "registry/crosstower:1"], monkeypatch, queue="training"))
    assert "image: registry/crosstower:1" in request
    assert "exec python -m trainer.launch --nnodes 2 --nproc-per-node 4" in request
    assert "${AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS:-localhost}:29500" in request


@pytest.mark.skipif(importlib.util.find_spec("kubernetes") is None, reason="torchx needs the package kubernetes for this scheduler")
def test_a_kubernetes_dry_run_mounts_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    mount = "type=bind,src=/data,dst=/data,readonly"
    arguments = [*CLUSTER, "--image", "registry/crosstower:1", "--mounts", mount]
    request = str(dry_run("kubernetes", arguments, monkeypatch, queue="training"))
    assert "mountPath: /data" in request
    assert "${TORCHX_RANK0_HOST:-localhost}:29500" in request


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nproc": 0}, "nproc=0, expected at least 1"),
        ({"nnodes": -1}, "nnodes=-1, expected at least 1"),
        ({"memMB": -5}, "memMB=-5, expected at least 0"),
        ({"nproc": 2, "gpu": 1}, "nproc=2 with gpu=1"),
        ({"recipe": "fit demo"}, "recipe='fit demo', expected a name"),
        ({"recipe": "--nproc"}, "recipe='--nproc', expected a name"),
        ({"image": "registry/crosstower:1"}, "say how many cores"),
        ({"mounts": "type=bind,src=/data,dst=/data"}, "without an image"),
    ],
)
def test_a_parameter_that_cannot_work_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        train(**({"recipe": "fit_demo"} | arguments))


def torchx_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("torchx")), "run", "--dryrun", COMPONENT, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--recipe", "fit_demo", "--nproc", "0"], 1, "nproc=0, expected at least 1"),
        (["--nproc", "2"], 2, "the following arguments are required: --recipe"),
        (["--recipe", "fit_demo", "--loop.max-epochs", "2"], 2, "unrecognized arguments: --loop.max-epochs"),
    ],
)
def test_the_command_line_prints_a_sentence_and_no_traceback(arguments: list[str], code: int, message: str) -> None:
    done = torchx_run(*arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_local_cwd_is_the_default_scheduler_in_this_folder() -> None:
    done = torchx_run("--recipe", "fit_demo")
    assert done.returncode == 0, done.stderr
    assert "build/torchx" in done.stdout
