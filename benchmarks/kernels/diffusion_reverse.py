"""Cases of T2Diff's reverse process: the module's own loop over steps, unfused, against the fused kernel.

What is timed starts at the history in units of the drift scale and the given noise, and ends at the newest position's z_0.
"""

# B rows, L positions, D width, S steps

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from benchmarks.kernels.case import Case, Precision, Shapes, Tensors, Work
from kernels.diffusion_reverse import diffusion_reverse, packed
from kernels.diffusion_reverse.cuda_graph import GraphedReverse
from models.layers.diffusion import ScheduleConfig
from models.layers.diffusion_config import DiffusionConfig
from models.layers.diffusion_module import DiffusionModule
from models.layers.fused_reverse import reverse_layers, reverse_steps

DIM = 32
USERS_OF_A_PROGRAM = 4
"""Of the large tile, at 50 positions."""
MOST_ROWS_ON_A_CPU = 64
"""A thousand rows take a CPU minutes."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One case."""

    sampler: Literal["ancestral", "ddim"]
    num_steps: int
    """S; the schedule's T too where the sampler is ancestral."""
    num_rows: int
    num_positions: int = 50
    operands: Precision = "bfloat16"


SHAPES: dict[Shapes, tuple[Shape, ...]] = {
    "paper": (
        Shape(sampler="ancestral", num_steps=50, num_rows=1),
        Shape(sampler="ancestral", num_steps=50, num_rows=1, operands="float32"),
        Shape(sampler="ddim", num_steps=5, num_rows=1),
        Shape(sampler="ancestral", num_steps=50, num_rows=1024),
    ),
    "large": (
        Shape(sampler="ddim", num_steps=5, num_rows=1024),
        Shape(sampler="ddim", num_steps=5, num_rows=16_384),
        Shape(sampler="ddim", num_steps=50, num_rows=1024, num_positions=200),
    ),
}


def cases(shapes: Shapes, device: torch.device) -> Iterator[Case]:
    """`paper`: the paper's 50 steps, for one user and 1,024; `large`: few steps, many users, long histories."""
    for shape in SHAPES[shapes]:
        num_rows = shape.num_rows if device.type == "cuda" else min(shape.num_rows, MOST_ROWS_ON_A_CPU)
        yield _case(dataclasses.replace(shape, num_rows=num_rows), device)


@torch.no_grad()
def _case(shape: Shape, device: torch.device) -> Case:
    torch.manual_seed(0)
    config = _config(shape)
    module = DiffusionModule(config, dim=DIM).to(device).eval()
    module.kernel_backend = "torch"
    condition_BLD = torch.randn(shape.num_rows, shape.num_positions, DIM, device=device)
    valid_BL = torch.ones(condition_BLD.shape[:2], dtype=torch.bool, device=device)
    noise_BNLD = torch.randn(shape.num_rows, module.num_noise, shape.num_positions, DIM, device=device)
    layers = [type(layer)(*(tensor.detach() for tensor in layer)) for layer in reverse_layers(module.unet)]
    process = {"sampler": config.sampler, "posterior_noise": config.posterior_noise, "num_steps": shape.num_steps}
    steps = reverse_steps(module.schedule, **process, step_signal=None)
    weights = packed(layers, torch.bfloat16 if shape.operands == "bfloat16" else torch.float32)

    compiled = copy.deepcopy(module)
    compiled.unet.compile(dynamic=True)  # the loop stays in Python: unrolled, 50 steps take minutes to compile

    def of_module(sampling: DiffusionModule) -> Tensors:
        with torch.no_grad():
            return (sampling.sample(condition_BLD, valid_BL, noise_BNLD),)

    def fused() -> Tensors:
        return (diffusion_reverse(condition_BLD, valid_BL, noise_BNLD, layers, steps, weights, "triton"),)

    graphed = GraphedReverse(torch.no_grad()(module.sample), sizes=(shape.num_rows,))
    return Case(
        label=f"{shape.num_steps} {shape.sampler} steps, {shape.num_rows} rows × {shape.num_positions}, {shape.operands}",
        work=_work(shape, module),
        reference=lambda: of_module(module),
        kernel=fused,
        tolerance=0.05 if shape.operands == "bfloat16" else 5e-3,  # the loop's convolutions are in tf32 where the GPU has it
        compiled=lambda: of_module(compiled),
        graph=lambda: (graphed(condition_BLD, valid_BL, noise_BNLD),),
    )


def _config(shape: Shape) -> DiffusionConfig:
    """A module whose sample is the newest z_0 itself."""
    total = shape.num_steps if shape.sampler == "ancestral" else 50
    return DiffusionConfig(
        schedule=ScheduleConfig(num_steps=total),
        sampler=shape.sampler,
        num_sample_steps=shape.num_steps,
        drift_scale="none",
        use_drift=False,
    )


def _work(shape: Shape, module: DiffusionModule) -> Work:
    """Each row's condition and noise once, the weights once; products of one step times S, the condition's share once."""
    sizes = shape.num_rows * shape.num_positions * DIM
    num_weights = sum(parameter.numel() for parameter in module.unet.parameters())
    num_bytes = 4 * (sizes * (1 + module.num_noise) + num_weights + shape.num_rows * DIM)
    return Work(
        num_bytes=num_bytes,
        flops=2
        * shape.num_rows
        * (shape.num_steps * products_of_step(shape.num_positions, DIM) + 3 * shape.num_positions * DIM * DIM),
        precision="tf32" if shape.operands == "float32" else "bfloat16",
        num_programs=-(-shape.num_rows // USERS_OF_A_PROGRAM) if shape.num_rows >= 1024 else shape.num_rows,
    )


def products_of_step(num_positions: int, dim: int) -> int:
    """Multiplications of one step of a row: levels of D, 2D, 2D channels, taps that read an up-sampled position twice made one."""
    length = -(-num_positions // 4) * 4
    first_and_last = 2 * 3 * length * dim * dim
    down = 3 * (length // 2) * dim * 2 * dim + 3 * (length // 4) * 4 * dim * dim
    up_to_1 = (length // 2) * (2 + 3) * 4 * dim * dim
    up_to_0 = length * (2 * 2 + 3) * dim * dim
    return first_and_last + down + up_to_1 + up_to_0
