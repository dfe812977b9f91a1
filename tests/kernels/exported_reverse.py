"""Prints what torch.export makes of the reverse process, with a batch of any size; in a process without the interpreter."""

import torch

from kernels.diffusion_reverse import packed
from kernels.diffusion_reverse.launch import reverse_from_noise
from tests.kernels.reverse_cases import random_layers, random_rows, random_steps


class Reverse(torch.nn.Module):
    """Weights that stay, inputs that vary."""

    def __init__(self) -> None:
        super().__init__()
        self.weights, self.steps = packed(random_layers(16), torch.bfloat16), random_steps(2)

    def forward(self, condition_BLD: torch.Tensor, valid_BL: torch.Tensor, noise_BNLD: torch.Tensor) -> torch.Tensor:
        tiles, vectors, widths = self.weights
        return reverse_from_noise(condition_BLD, valid_BL, noise_BNLD, tiles, vectors, self.steps.coefficient_S3, None, widths)


if __name__ == "__main__":
    batch = {0: torch.export.Dim("batch", min=2)}
    program = torch.export.export(Reverse(), tuple(random_rows(4, 10, 16, 2)), dynamic_shapes=(batch, batch, batch))
    print(*(node.target for node in program.graph.nodes if node.op == "call_function"))
