"""Launch training with torchx, on this machine or on a cluster.

Example::

    torchx run torchx_specs/train.py:train --recipe fit_demo --nproc 2
    torchx run torchx_specs/train.py:train --recipe fit_demo --nproc 2 -- --loop.max-epochs 2
    torchx run -s slurm torchx_specs/train.py:train --recipe fit_ml1m --nnodes 2 --nproc 8 --gpu 8 --cpu 64 --memMB 400000
    torchx run -s kubernetes --workspace "" -cfg queue=default torchx_specs/train.py:train --image registry/crosstower:0.1.0 ...

Everything after `--` goes to `trainer.train` as it stands. `torchx run` exits with 0 where the run succeeded and with 1 where it
did not, whatever the reason; the job that a scheduler sees ends with the trainer's own exit code (2 user error, 3 bad data,
4 bad checkpoint), and its last line names it. Local runs keep each rank's output and error file in build/torchx.
"""

import os
import re
import shlex
import sys

from torchx import specs
from torchx.specs import macros
from torchx.specs.finder import ComponentValidationException

CONTAINER_PYTHON = "python"


class LaunchError(ComponentValidationException, ValueError):
    """A parameter that can't work; `torchx` prints it without a traceback and exits with 1."""


def train(
    *overrides: str,
    recipe: str,
    nproc: int = 1,
    nnodes: int = 1,
    image: str = "",
    cpu: int = 0,
    gpu: int = 0,
    memMB: int = 0,  # torchx's spelling of this resource
    mounts: str = "",
    rdzv_port: int = 29500,
    max_retries: int = 0,
) -> specs.AppDef:
    """Train one recipe on `nnodes` x `nproc` ranks; what follows `--` overrides the recipe's fields.

    Args:
        overrides: the trainer's options, as `--loop.max-epochs 2`; torchx fills in its macros, such as ${app_id}
        recipe: name of the recipe, as `python -m trainer.train --help` lists them
        nproc: ranks on each node: one per GPU, or a few per CPU
        nnodes: machines
        image: container image with this repository as its working directory; empty: this checkout and this Python
            (local_cwd, slurm with a shared file system)
        cpu: cores of each node, divided among its ranks; 0: this machine's
        gpu: GPUs of each node
        memMB: memory of each node in MB; 0: not asked for
        mounts: for containers, in torchx's form: type=bind,src=/data,dst=/data,readonly
        rdzv_port: port on the first node where ranks of several nodes meet; one node takes a free port instead
        max_retries: how often the scheduler may start the job again; a restarted run resumes from its newest checkpoint

    Raises:
        LaunchError: a parameter is out of range, or doesn't go with another one.
    """
    at_least_1 = {"nproc": nproc, "nnodes": nnodes, "rdzv_port": rdzv_port}
    _check_counts(at_least_1, {"cpu": cpu, "gpu": gpu, "memMB": memMB, "max_retries": max_retries})
    if gpu and nproc > gpu:
        raise LaunchError(f"nproc={nproc} with gpu={gpu}: a GPU holds one rank; expected nproc <= gpu")
    if not re.fullmatch(r"\w+", recipe):
        raise LaunchError(f"recipe={recipe!r}, expected a name such as fit_demo; its fields are overridden after --")
    if image and cpu == 0:
        raise LaunchError(f"cpu=0 with image={image!r}: say how many cores a node of the cluster has, e.g. --cpu 16")
    if mounts and not image:
        raise LaunchError(f"mounts={mounts!r} without an image: only containers have mounts")
    cores = cpu or len(os.sched_getaffinity(0))
    launcher = [CONTAINER_PYTHON if image else sys.executable, "-m", "trainer.launch"]
    launcher += ["--nnodes", str(nnodes), "--nproc-per-node", str(nproc), "--max-restarts", "0"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-id", macros.app_id, "--tee", "3"]
    trainer = ["-m", "trainer.train", "--recipe", recipe, *overrides]
    entrypoint, arguments = _command(launcher, trainer, nnodes=nnodes, rdzv_port=rdzv_port)
    name = recipe.replace("_", "-")  # cluster names allow no underscore
    role = specs.Role(
        name=name,
        image=image,
        entrypoint=entrypoint,
        args=arguments,
        num_replicas=nnodes,
        resource=specs.Resource(cpu=cores, gpu=gpu, memMB=memMB),
        env={"OMP_NUM_THREADS": str(max(1, cores // nproc)), "TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE": "[$${rank}]:"},
        port_map={"c10d": rdzv_port},
        max_retries=max_retries,
        mounts=specs.parse_mounts(mounts.split(",")) if mounts else [],
    )
    return specs.AppDef(name=name, roles=[role])


def _check_counts(at_least_1: dict[str, int], at_least_0: dict[str, int]) -> None:
    """Every count, by its parameter's name, in its range."""
    for least, counts in ((1, at_least_1), (0, at_least_0)):
        for name, value in counts.items():
            if value < least:
                raise LaunchError(f"{name}={value}, expected at least {least}")


def _command(launcher: list[str], trainer: list[str], *, nnodes: int, rdzv_port: int) -> tuple[str, list[str]]:
    """Entry point and arguments of a node.

    One node meets at a free local port. Several meet on the first one, whose name the scheduler puts into an environment
    variable on the node (AWS Batch leaves it out on the first node itself): only a shell can read that.
    """
    if nnodes == 1:
        return launcher[0], [*launcher[1:], "--rdzv-endpoint", "localhost:0", *trainer]
    endpoint = f'"$${{{macros.rank0_env}:-localhost}}:{rdzv_port}"'
    words = [part if part == macros.app_id else shlex.quote(part) for part in launcher]
    return "bash", ["-c", " ".join(["exec", *words, "--rdzv-endpoint", endpoint, *map(shlex.quote, trainer)])]
