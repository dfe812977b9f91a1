"""The least time that a case's work can take on a GPU: the larger of its bytes at the memory's rate and its FLOPs at the units'."""

from typing import NamedTuple

import torch

from benchmarks.kernels.case import Precision, Work


class Peak(NamedTuple):
    """A GPU's published rates, without sparsity."""

    bytes_per_second: float
    flops_per_second: dict[Precision, float]


_HOPPER_FLOPS: dict[Precision, float] = {"float32": 67e12, "tf32": 494.7e12, "float16": 989.4e12, "bfloat16": 989.4e12}
PEAKS = {
    "NVIDIA H100 80GB HBM3": Peak(3.35e12, _HOPPER_FLOPS),
    "NVIDIA H200": Peak(4.8e12, _HOPPER_FLOPS),
    "NVIDIA A100-SXM4-80GB": Peak(2.04e12, {"float32": 19.5e12, "tf32": 156e12, "float16": 312e12, "bfloat16": 312e12}),
}
"""torch.cuda.get_device_name() -> NVIDIA's data sheet; cards of the same chip in another form have other rates and other names."""


def floor_seconds(work: Work, device: torch.device) -> float | None:
    """None on a CPU and on a GPU that PEAKS does not know."""
    if device.type != "cuda":
        return None
    peak = PEAKS.get(torch.cuda.get_device_name(device))
    if peak is None:
        return None
    return floor_of(work, peak, num_units=torch.cuda.get_device_properties(device).multi_processor_count)


def floor_of(work: Work, peak: Peak, *, num_units: int) -> float:
    """Seconds; matrix products run on as many of `num_units` multiprocessors as the work can be shared among."""
    share = 1.0 if work.num_programs is None else min(1.0, work.num_programs / num_units)
    return max(work.num_bytes / peak.bytes_per_second, work.flops / (share * peak.flops_per_second[work.precision]))
