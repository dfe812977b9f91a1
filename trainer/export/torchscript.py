"""Modules to TorchScript files: scripted, frozen, and made of operators that every libtorch has."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from trainer.durable_file import sync_to_disk

ALLOWED_NAMESPACES = ("aten", "prim", "quantized")
"""Namespaces of operators inside libtorch itself: no fbgemm, no torchvision, nothing of this project."""
FURTHER_METHODS = ("seeded",)


class ForeignOperatorError(RuntimeError):
    """A module needs an operator that libtorch alone does not have."""


def save_script(module: nn.Module, path: Path, *, name: str) -> list[str]:
    """Script and freeze `module`, write it to `path` and return the operators that it needs.

    Freezing turns the weights into constants, drops what the module's methods do not need (a scorer loses the towers) and computes
    what depends on constants alone: FIT's query group, and the first attention layer's part that only queries enter.

    Args:
        module: in eval mode.
        path: the file.
        name: for messages.

    Raises:
        ForeignOperatorError: an operator is outside ALLOWED_NAMESPACES.
    """
    scripted = frozen(module)
    needed = operators(scripted)
    foreign = [operator for operator in needed if operator.split("::")[0] not in ALLOWED_NAMESPACES]
    if foreign:
        raise ForeignOperatorError(
            f"{name} needs {', '.join(foreign)}, but a server has libtorch alone, with the operators of {ALLOWED_NAMESPACES}; "
            "write the model's serving methods without them"
        )
    with _deprecated():
        torch.jit.save(scripted, path)
    sync_to_disk(path)
    return needed


def frozen(module: nn.Module) -> torch.jit.RecursiveScriptModule:
    """The module, scripted and frozen; its results are the same bits (no folding of norms into layers)."""
    kept = [name for name in FURTHER_METHODS if hasattr(module, name)]
    with _deprecated():
        scripted = torch.jit.freeze(torch.jit.script(module), preserved_attrs=kept, optimize_numerics=False)
    for method in _methods(scripted):
        # freezing computes with constants before it has taken tuples of them apart
        torch._C._jit_pass_constant_propagation(method.graph)
    return scripted


def load_script(path: Path) -> torch.jit.RecursiveScriptModule:
    """A module that `save_script` wrote, on the CPU."""
    with _deprecated():
        return torch.jit.load(path, map_location="cpu")


def operators(scripted: torch.jit.RecursiveScriptModule) -> list[str]:
    """Every operator in the module's methods, `namespace::name`, sorted."""
    found: set[str] = set()
    for method in _methods(scripted):
        graph = method.graph.copy()
        torch._C._jit_pass_inline(graph)
        found.update(node.kind() for node in _nodes(graph))
    return sorted(found)


def _methods(scripted: torch.jit.RecursiveScriptModule) -> list[torch.ScriptMethod]:
    return [getattr(scripted, name) for name in ("forward", *FURTHER_METHODS) if hasattr(scripted, name)]


def _nodes(block: torch.Graph | torch.Block) -> Iterator[torch.Node]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


@contextmanager
def _deprecated() -> Iterator[None]:
    """Without torch.jit's deprecation warnings: it is what C++ loads without Python or a compiler, until AOTInductor covers all."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)
        yield
