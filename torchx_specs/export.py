"""Export a run with torchx, on this machine or on a cluster.

Example::

    torchx run torchx_specs/export.py:export --run runs/fit_ml1m-seed0-12345678 --out artefacts/fit
    torchx run torchx_specs/export.py:export --run runs/fit_ml1m-seed0-12345678 --out artefacts/fit -- --vectors int8
    torchx run -s slurm torchx_specs/export.py:export --run RUN --out OUT --cpu 8 --memMB 32000

Everything after `--` goes to `trainer.export` as it stands. The job ends with the exporter's own exit code (2 user error, 3 bad
data, 4 bad checkpoint, or an artefact that would not do what the run does).
"""

import os
import sys

from torchx import specs
from torchx.specs.finder import ComponentValidationException

CONTAINER_PYTHON = "python"


# torchx executes this file's text outside of the repository, so nothing beside it can be imported
class LaunchError(ComponentValidationException, ValueError):
    """A parameter that can't work; `torchx` prints it without a traceback and exits with 1."""


def export(
    *options: str,
    run: str,
    out: str,
    image: str = "",
    cpu: int = 0,
    memMB: int = 0,  # torchx's spelling of this resource
    mounts: str = "",
) -> specs.AppDef:
    """Export the best checkpoint of a run, in one process on a CPU; what follows `--` are the exporter's further options.

    Args:
        options: the exporter's options, as `--tables quantised`
        run: folder of the run (holds config.json and checkpoints/)
        out: folder of the artefact; appears when all is written and checked
        image: container image with this repository as its working directory; empty: this checkout and this Python
            (local_cwd, slurm with a shared file system)
        cpu: cores of the job; 0: this machine's
        memMB: memory of the job in MB; 0: not asked for
        mounts: for containers, in torchx's form: type=bind,src=/data,dst=/data,readonly

    Raises:
        LaunchError: a parameter is out of range, or doesn't go with another one.
    """
    for name, folder in (("run", run), ("out", out)):
        if not folder or folder.startswith("-"):
            raise LaunchError(f"{name}={folder!r}, expected a folder; the exporter's options follow --")
    for name, value in (("cpu", cpu), ("memMB", memMB)):
        if value < 0:
            raise LaunchError(f"{name}={value}, expected at least 0")
    if image and cpu == 0:
        raise LaunchError(f"cpu=0 with image={image!r}: say how many cores the job may use, e.g. --cpu 8")
    if mounts and not image:
        raise LaunchError(f"mounts={mounts!r} without an image: only containers have mounts")
    cores = cpu or len(os.sched_getaffinity(0))
    role = specs.Role(
        name="export",
        image=image,
        entrypoint=CONTAINER_PYTHON if image else sys.executable,
        args=["-m", "trainer.export", "--run", run, "--out", out, *options],
        resource=specs.Resource(cpu=cores, gpu=0, memMB=memMB),
        env={"OMP_NUM_THREADS": str(cores)},
        mounts=specs.parse_mounts(mounts.split(",")) if mounts else [],
    )
    return specs.AppDef(name="export", roles=[role])
