"""bfloat16 by autocast, around a module's forward alone: backward runs in the types that forward chose."""

from typing import Any

import torch
from torch import nn


def run_under_autocast(module: nn.Module, device_type: str) -> None:
    """Make every later call of `module` run under bfloat16 autocast; its parameters stay float32.

    Hooks rather than a wrapper: the module's own methods, its state dict and TorchRec's pipelines stay as they are.
    """
    entered: list[torch.autocast] = []

    def enter(_module: nn.Module, _inputs: tuple[Any, ...]) -> None:
        context = torch.autocast(device_type, dtype=torch.bfloat16)
        context.__enter__()
        entered.append(context)

    def leave(_module: nn.Module, _inputs: tuple[Any, ...], _output: Any) -> None:
        entered.pop().__exit__(None, None, None)

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave, always_call=True)
