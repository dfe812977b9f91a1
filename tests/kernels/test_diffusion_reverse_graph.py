"""Batches of any size through graphs of a few sizes."""

import pytest
import torch

from kernels.diffusion_reverse import diffusion_reverse
from kernels.diffusion_reverse.cuda_graph import GraphedReverse
from tests.kernels.reverse_cases import on, random_layers, random_rows, random_steps


class Replays:
    """Stands in for `captured` where there is no GPU: a replay writes to the same memory each time."""

    def __init__(self):
        self.num_captured = 0

    def __call__(self, call):
        self.num_captured += 1
        output = torch.full_like(call(), torch.nan)
        return lambda: output.copy_(call())


def row_sums(condition_BLD, valid_BL, noise_BNLD):
    return (condition_BLD * valid_BL.unsqueeze(2) + noise_BNLD[:, 0]).sum(1)


@pytest.mark.parametrize(("num_rows", "num_captured"), [(1, 1), (4, 1), (5, 1), (8, 1), (19, 2), (25, 2)])
def test_each_batch_takes_the_smallest_size_that_holds_it(num_rows, num_captured):
    replays = Replays()
    reverse = GraphedReverse(row_sums, sizes=(8, 1, 4), capture=replays)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):  # the second time the graphs are there, and hold other rows
        rows = [torch.randn(num_rows, 3, 2, generator=generator), torch.ones(num_rows, 3, dtype=torch.bool)]
        noise_BNLD = torch.randn(num_rows, 1, 3, 2, generator=generator)
        torch.testing.assert_close(reverse(*rows, noise_BNLD), row_sums(*rows, noise_BNLD))
    assert replays.num_captured == num_captured


def test_an_earlier_result_outlives_the_next_call():
    reverse = GraphedReverse(row_sums, sizes=(2,), capture=Replays())
    valid_BL = torch.ones(2, 3, dtype=torch.bool)
    first = reverse(torch.ones(2, 3, 2), valid_BL, torch.zeros(2, 1, 3, 2))
    reverse(torch.zeros(2, 3, 2), valid_BL, torch.zeros(2, 1, 3, 2))
    assert torch.equal(first, torch.full((2, 2), 3.0))


@pytest.mark.parametrize("sizes", [(), (0, 4)])
def test_sizes_must_be_positive(sizes):
    with pytest.raises(ValueError, match="at least one size, each at least 1"):
        GraphedReverse(row_sums, sizes=sizes)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_loop_equals_the_loop():
    torch.manual_seed(0)
    layers, steps = on("cuda", random_layers(32), random_steps(5))

    @torch.no_grad()
    def unfused(*rows):
        return diffusion_reverse(*rows, layers, steps, None, "torch")

    reverse = GraphedReverse(unfused, sizes=(4, 16))
    for num_rows in (3, 16, 20):
        rows = on("cuda", *random_rows(num_rows, 50, 32, 5))
        torch.testing.assert_close(reverse(*rows), unfused(*rows), atol=1e-3, rtol=1e-3)
