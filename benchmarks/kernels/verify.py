"""Whether a kernel computes what its reference does; runs before anything is timed."""

import torch

from benchmarks.kernels.case import Case


def problems(case: Case) -> list[str]:
    """What is wrong with the kernel's tensors, in words; nothing where all are within the case's tolerance."""
    try:
        expected, found = case.reference(), case.kernel()
        finite = [bool(torch.isfinite(tensor).all()) for tensor in found]  # waits for the device, whose errors come up here
    except Exception as error:  # the other variants can still be timed
        return [f"{type(error).__name__}: {str(error)[:200]}"]
    if len(found) != len(expected):
        return [f"{len(found)} tensors, expected {len(expected)}"]
    wrong: list[str] = []
    for place, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        if ours.shape != theirs.shape:
            wrong.append(f"tensor {place} has shape {tuple(ours.shape)}, expected {tuple(theirs.shape)}")
        elif not finite[place]:
            wrong.append(f"tensor {place} has entries that are not finite")
        elif (error := relative_error(ours, theirs)) > case.tolerance:
            wrong.append(f"tensor {place} is off by {error:.2g} of its largest magnitude, more than {case.tolerance:.2g}")
    return wrong


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest magnitude of what is expected; differences count as they are where that is 0."""
    if expected.numel() == 0:
        return 0.0
    expected = expected.double()
    scale = expected.abs().max().item()
    return (found.double() - expected).abs().max().item() / (scale or 1.0)
