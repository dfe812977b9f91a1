from typing import ClassVar

import pytest
import torch
import torch.distributed as dist
from norm_inputs import NORM_SPLITS, norm_inputs, run_norm
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from models.layers.drift_scale import DriftScale
from models.layers.norm import BatchNorm, Dice
from trainer.sync_drift_scale import SyncDriftScale
from trainer.sync_norm import SyncBatchNorm, convert


@pytest.mark.parametrize("split", NORM_SPLITS)
def test_two_ranks_normalise_as_one_process_on_all_rows(split: str, on_two_ranks: dict) -> None:
    expected = run_norm(nn.BatchNorm1d(3, momentum=None if split == "no momentum" else 0.1), *norm_inputs(split))
    found = on_two_ranks["norms"][split]
    # at 1000 ± 1 a float32 input itself is only good to 6e-5, and PyTorch's own statistics to about 1e-4
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if split == "far from zero" else {"rtol": 1e-5, "atol": 2e-6}
    for name in ("output", "input_gradient", "weight_gradient", "bias_gradient", "eval_output"):
        torch.testing.assert_close(found[name], expected[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")
    for name, value in expected["state"].items():
        torch.testing.assert_close(found["state"][name], value, rtol=1e-5, atol=1e-6)
        assert torch.equal(found["state"][name], found["state_of_second"][name])


def test_statistics_keep_their_digits_far_from_zero(one_rank: dist.ProcessGroup) -> None:
    rows, gradient = norm_inputs("far from zero")
    found = run_norm(SyncBatchNorm(3, process_group=one_rank), rows, gradient)
    exact = run_norm(nn.BatchNorm1d(3).double(), rows.double(), gradient.double())
    for name in ("output", "input_gradient"):
        torch.testing.assert_close(found[name].double(), exact[name], rtol=1e-4, atol=2e-4)


def test_double_precision_gradients_agree_with_finite_differences(one_rank: dist.ProcessGroup) -> None:
    norm = SyncBatchNorm(3, process_group=one_rank).double()
    rows = norm_inputs("with positions")[0].double().requires_grad_()
    torch.autograd.gradcheck(norm, (rows,))


@pytest.mark.parametrize("num_rows", [0, 1])
def test_fewer_than_two_rows_are_normalised_with_the_running_statistics(num_rows: int, one_rank: dist.ProcessGroup) -> None:
    synced, plain = SyncBatchNorm(3, process_group=one_rank), BatchNorm(3)
    results = []
    for norm in (synced, plain):
        norm.train()
        norm(norm_inputs("equal")[0])
        rows = norm_inputs("equal")[0][:num_rows].clone().requires_grad_()
        output = norm(rows)
        output.square().sum().backward()
        results.append((output, rows.grad, *norm.state_dict().values()))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_bfloat16_rows_are_normalised_in_float32_and_come_back_as_bfloat16(one_rank: dist.ProcessGroup) -> None:
    norm = SyncBatchNorm(3, process_group=one_rank)
    rows = norm_inputs("equal")[0].bfloat16()
    output = norm(rows)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, nn.BatchNorm1d(3)(rows.float()).bfloat16(), rtol=1e-2, atol=1e-2)


def test_convert_replaces_every_norm_in_place_and_keeps_its_tensors(one_rank: dist.ProcessGroup) -> None:
    task = nn.ModuleDict({"tower": nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, eps=1e-3), BatchNorm(3)), "unit": Dice(3)})
    before = {name: value.data_ptr() for name, value in task.state_dict().items()}
    plain, unit_eps = task["tower"][1], task["unit"].norm.eps
    task.eval()
    convert(task, one_rank)
    assert {name: value.data_ptr() for name, value in task.state_dict().items()} == before
    norms = [task["tower"][1], task["tower"][2], task["unit"].norm]
    assert [type(norm) for norm in norms] == [SyncBatchNorm] * 3
    assert (norms[0].eps, norms[2].eps, norms[2].affine, norms[0].training) == (plain.eps, unit_eps, False, False)
    convert(task, one_rank)
    assert task["tower"][1] is norms[0]


def test_no_value_of_the_host_becomes_a_tensor_in_a_step(one_rank: dist.ProcessGroup) -> None:
    class Watch(TorchDispatchMode):
        seen: ClassVar[set[str]] = set()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.seen.add(str(function.overloadpacket))
            return function(*args, **(kwargs or {}))

    norm = SyncBatchNorm(3, process_group=one_rank)
    rows = norm_inputs("equal")[0].requires_grad_()
    with Watch() as watch:
        norm(rows).sum().backward()
        # on a GPU each of these would make the host wait for it
        assert not watch.seen & {"aten.lift_fresh", "aten.item", "aten._local_scalar_dense", "aten.nonzero"}
        torch.tensor([1.0])
    assert "aten.lift_fresh" in watch.seen


def test_a_norm_with_a_forward_of_its_own_is_refused(one_rank: dist.ProcessGroup) -> None:
    class Odd(nn.BatchNorm1d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return input

    class OddScale(DriftScale):
        """Of another kind by its type alone."""

    with pytest.raises(TypeError, match="Odd"):
        convert(nn.Sequential(Odd(3)), one_rank)
    with pytest.raises(TypeError, match="OddScale"):
        convert(nn.Sequential(OddScale()), one_rank)
    for alone in (nn.BatchNorm1d(3), DriftScale()):
        with pytest.raises(TypeError, match=f"parent.*{type(alone).__name__}"):
            convert(alone, one_rank)


def test_convert_replaces_every_drift_scale_in_place_and_keeps_its_buffers(one_rank: dist.ProcessGroup) -> None:
    task = nn.ModuleDict({"diffusion": nn.Sequential(nn.Linear(3, 3), DriftScale(momentum=0.5))}).eval()
    before = {name: value.data_ptr() for name, value in task.state_dict().items()}
    convert(task, one_rank)
    scale = task["diffusion"][1]
    assert (type(scale), scale.momentum, scale.training) == (SyncDriftScale, 0.5, False)
    assert {name: value.data_ptr() for name, value in task.state_dict().items()} == before
    convert(task, one_rank)
    assert task["diffusion"][1] is scale
