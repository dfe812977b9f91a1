"""Which backend the kernels inside a model run on, chosen for the whole model at once."""

from torch import nn

from kernels.dispatch import Backend


def set_backend(module: nn.Module, backend: Backend) -> None:
    """Set `kernel_backend`, which is auto at first, of every module in `module` that calls a kernel."""
    for part in module.modules():
        if "kernel_backend" in part.__dict__:
            part.kernel_backend = backend
