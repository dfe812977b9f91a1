"""The same modules as AOTInductor packages (.pt2): compiled ahead of time, for the machine that exports them."""

# B rows, J history positions of a batch, U user features, H histories, I item features, K candidates

import copy
import platform
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kernels.row_noise import normal_of_rows
from trainer.errors import CheckpointError, UserError
from trainer.export.assemble import Towers, assemble
from trainer.export.requests import draw_requests, user_tensors
from trainer.export.run_parts import RunParts
from trainer.export.signature import InputFeature, PackageDevice, StoreSignature, TableForm, UserSignature

BATCH_DIMS = {
    "user_tower": ((0,), (1,), (1,), (0,), (0,)),
    "item_tower": ((0,), (1,)),
    "scorer": ((0,), (0, 1), (0, 1)),
}
"""Of each module's inputs, the dimensions that calls may choose."""
VECTOR_BATCH_DIMS = BATCH_DIMS | {"user_tower": ((0,),) * 5, "item_tower": ((0,),)}
"""The same where tables are outside."""


def require_compiler(device: PackageDevice) -> None:
    """UserError where packages can't be made here, before minutes are spent on finding out."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--aoti cuda: a package is compiled on the kind of GPU that will run it, and PyTorch sees none here")
    from torch._inductor.cpp_builder import get_cpp_compiler  # takes seconds to import

    try:
        get_cpp_compiler()
    except Exception as error:
        raise UserError(
            f"--aoti needs a C++ compiler, and PyTorch finds none ({error}); install g++, or set CXX to the one that you have"
        ) from error


def save_packages(
    folder: Path, parts: RunParts, *, user: UserSignature, store: StoreSignature, tables: TableForm, device: PackageDevice
) -> dict[str, dict[str, str]]:
    """Compile the modules of a run and write `folder`/<module>.pt2; batch sizes, lengths and candidates stay free.

    The user tower's form is that of `forward`, with noise as an input. Ids and lengths are not checked: whoever calls checks them.

    Returns:
        Module to its file and what it was built for, as the manifest keeps it.

    Raises:
        UserError: a module can't be compiled; the message says why.
    """
    towers = assemble(parts, tables=tables, check_inputs=False)
    inputs = example_inputs(parts, user=user, store=store, tables=tables)
    dims = VECTOR_BATCH_DIMS if tables == "outside" else BATCH_DIMS
    packages = {}
    for name, module in towers._asdict().items():
        path = folder / f"{name}.pt2"
        _compile(module, inputs[name], dims[name], path, device=device)
        packages[name] = {"file": path.name, **built_for(device)}
    return packages


def example_inputs(
    parts: RunParts, *, user: UserSignature, store: StoreSignature, tables: TableForm
) -> dict[str, tuple[torch.Tensor, ...]]:
    """Inputs of each module. A free dimension is never 1, and 0 only where the model does not have it: torch.export fixes both."""
    generator = torch.Generator().manual_seed(0)
    lengths = [3, 0, 7, 2, 4]
    longest = min((feature.max_len for feature in user.history), default=0)
    requests = draw_requests(5, signature=user, max_history=longest, history_lengths=lengths, generator=generator)
    users = user_tensors(requests, user)
    noise_BX = torch.randn(5, user.noise_size, generator=generator)
    candidates = (torch.zeros(5, 4, dtype=torch.int64), torch.randn(5, 4, store.heads, store.width, generator=generator))
    scorer = (torch.randn(5, user.num_queries, user.heads, user.width, generator=generator), *candidates)
    if tables != "outside":
        item_features = [parts.schema.feature(name) for name in parts.item_names]
        length_I3 = torch.tensor([[max(1, feature.min_len)] * 3 for feature in item_features])
        item = (torch.zeros(int(length_I3.sum()), dtype=torch.int64), length_I3)
        return dict(zip(Towers._fields, ((*users[:4], noise_BX), item, scorer), strict=True))
    looked_up, context = split_history(user.history)
    position_JX = torch.randn(int(users.history_lengths.sum()), len(looked_up) * parts.dim, generator=generator)
    context_JF = users.history_values[context].t().contiguous()
    profile_BX = torch.randn(5, len(user.features) * parts.dim, generator=generator)
    item = (torch.randn(3, len(parts.item_names) * parts.dim, generator=generator),)
    user_tower = (profile_BX, position_JX, users.history_lengths, context_JF, noise_BX)
    return dict(zip(Towers._fields, (user_tower, item, scorer), strict=True))


def split_history(history: Sequence[InputFeature]) -> tuple[list[int], list[int]]:
    """Places of the histories that are looked up, and of those whose ids the model takes."""
    looked_up = [place for place, feature in enumerate(history) if feature.table is not None]
    return looked_up, [place for place, feature in enumerate(history) if feature.table is None]


def built_for(device: PackageDevice) -> dict[str, str]:
    """What a package that is compiled here runs on."""
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        architecture = f"sm_{major}{minor}"
    else:
        architecture = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {"device": device, "architecture": architecture, "torch": torch.__version__}


class PackagedModule:
    """A package, called with CPU tensors as the module that it was made of.

    Args:
        path: the package.
        target: what the manifest says that it was built for.

    Raises:
        CheckpointError: it was built for another machine or another torch.
    """

    def __init__(self, path: Path, target: dict[str, str]) -> None:
        device: PackageDevice = "cuda" if target["device"] == "cuda" else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise CheckpointError(f"{path}: was built for a GPU ({target['architecture']}), and PyTorch sees none")
        for name, here in built_for(device).items():
            if target[name] != here:
                raise CheckpointError(f"{path}: was built for {name} {target[name]}, this is {here}; export the run again here")
        self.device = torch.device(device)
        self._run = torch._inductor.aoti_load_package(str(path))

    def __call__(self, *inputs: torch.Tensor) -> Any:
        """The module's output, on the CPU."""
        # compiled code takes the strides of its example for granted
        output = self._run(*(tensor.to(self.device).contiguous() for tensor in inputs))
        return output.cpu() if isinstance(output, torch.Tensor) else tuple(tensor.cpu() for tensor in output)


class PackagedUserTower(PackagedModule):
    """A user tower's package, with the noise of `forward` drawn here.

    Args beyond those of PackagedModule: noise_size is X.
    """

    def __init__(self, path: Path, target: dict[str, str], *, noise_size: int) -> None:
        super().__init__(path, target)
        self.noise_size = noise_size

    def seeded(self, *inputs: Any) -> torch.Tensor:
        """As UserTower.seeded: the last two inputs are row ids and the seed."""
        *given, row_id_B, seed = inputs
        return self(*given, normal_of_rows(row_id_B, self.noise_size, seed))


def _compile(
    module: nn.Module, inputs: tuple[torch.Tensor, ...], dims: tuple[tuple[int, ...], ...], path: Path, *, device: PackageDevice
) -> None:
    # a dimension of 0 is one that this model does not have (no user features, no noise)
    shapes = [
        {dim: torch.export.Dim.DYNAMIC for dim in free if tensor.shape[dim] > 0} for tensor, free in zip(inputs, dims, strict=True)
    ]
    moved = copy.deepcopy(module).to(device)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # of torch 2.13's own code, about itself
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec", category=FutureWarning)
            program = torch.export.export(moved, tuple(tensor.to(device) for tensor in inputs), dynamic_shapes=tuple(shapes))
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    except Exception as error:  # torch.export and its compiler each have a family of their own
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise UserError(f"--aoti: {path.stem} can't be compiled ahead of time: {reason}; export it without --aoti") from error
