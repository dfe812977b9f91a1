"""Batch normalisation over the rows of all ranks, for CPU (gloo) and GPU (nccl); PyTorch's own SyncBatchNorm is for GPUs only."""

# B rows of this rank, C channels, L positions (inputs are [B, C] or [B, C, L]), W ranks

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from models.layers.drift_scale import DriftScale
from models.layers.norm import BatchNorm
from trainer.sync_drift_scale import SyncDriftScale


class SyncBatchNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d whose training statistics are those of the global batch; same parameters, buffers and state_dict.

    Ranks may hold different numbers of rows, also none. Where the global batch has fewer than two values per channel, it normalises
    with the running statistics and leaves them as they are, as models.layers.norm.BatchNorm does.

    Forward and backward each make one collective call, so all ranks of `process_group` must run them the same number of times, and
    the loss of a rank without rows must still depend on its (empty) output.

    Example::

        norm = SyncBatchNorm(300, process_group=dist.group.WORLD)
    """

    def __init__(
        self,
        num_features: int,
        *,
        process_group: dist.ProcessGroup,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum, affine=affine, track_running_stats=track_running_stats)
        self.process_group = process_group

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise [B, C] or [B, C, L]; the same shape."""
        self._check_input_dim(input)
        if not self.training and self.running_mean is not None:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        mean_C, var_C, count = _global_moments(input.detach(), self.process_group)
        enough = count >= 2
        if self.running_mean is not None and self.running_var is not None:
            fallback_mean_C, fallback_var_C = self.running_mean.clone(), self.running_var.clone()
            if self.training:
                self._update_running(mean_C, var_C, count)
            mean_C = torch.where(enough, mean_C, fallback_mean_C.double())
            var_C = torch.where(enough, var_C, fallback_var_C.double())
        inverse_std_C = torch.rsqrt(var_C + self.eps)
        # 0 makes the statistics constants in backward
        weight_of_row = torch.where(enough, 1.0 / count.clamp(min=1), torch.zeros_like(count))
        # bfloat16 inputs are normalised in float32
        precise = input if input.dtype == torch.float64 else input.float()
        dtype = precise.dtype
        normal = _Normalise.apply(precise, mean_C.to(dtype), inverse_std_C.to(dtype), weight_of_row, self.process_group)
        if self.weight is not None:
            normal = normal * _over_channels(self.weight, input) + _over_channels(self.bias, input)
        return normal.to(input.dtype)

    @torch.no_grad()
    def _update_running(self, mean_C: torch.Tensor, var_C: torch.Tensor, count: torch.Tensor) -> None:
        """As nn.BatchNorm1d: the running variance is the unbiased one; no change where count < 2."""
        enough = (count >= 2).double()
        self.num_batches_tracked.add_(enough.to(torch.int64))
        factor = enough * (self.momentum if self.momentum is not None else 1.0 / self.num_batches_tracked.clamp(min=1).double())
        unbiased_C = var_C * (count / (count - 1).clamp(min=1))
        self.running_mean.copy_(torch.lerp(self.running_mean.double(), mean_C, factor))
        self.running_var.copy_(torch.lerp(self.running_var.double(), unbiased_C, factor))


def convert(module: nn.Module, process_group: dist.ProcessGroup) -> None:
    """Replace every BatchNorm1d (also models.layers.norm's) below `module`, in place, by a SyncBatchNorm with the same tensors.

    Likewise every DriftScale by a SyncDriftScale: all statistics that follow the batch follow the global batch.

    Raises:
        TypeError: `module` itself is one of these, and so can't be replaced in place, or one has a type of its own.
    """
    if isinstance(module, (nn.BatchNorm1d, DriftScale)):
        kind = type(module).__name__
        raise TypeError(f"convert() replaces modules within their parent; call it on the module that holds this {kind}")
    for name, child in module.named_children():
        if isinstance(child, (SyncBatchNorm, SyncDriftScale)):
            continue
        if isinstance(child, DriftScale):
            setattr(module, name, SyncDriftScale(child, process_group=process_group))
        elif isinstance(child, nn.BatchNorm1d):
            setattr(module, name, _synced(child, process_group))
        else:
            convert(child, process_group)


def _synced(norm: nn.BatchNorm1d, process_group: dist.ProcessGroup) -> SyncBatchNorm:
    if type(norm) not in (nn.BatchNorm1d, BatchNorm):
        raise TypeError(f"{type(norm).__name__} derives from BatchNorm1d; its own forward would be lost, so it can't be converted")
    synced = SyncBatchNorm(
        norm.num_features,
        process_group=process_group,
        eps=norm.eps,
        momentum=norm.momentum,
        affine=norm.affine,
        track_running_stats=norm.track_running_stats,
    )
    for key in norm._parameters:
        synced._parameters[key] = norm._parameters[key]
    for key in norm._buffers:
        synced._buffers[key] = norm._buffers[key]
    return synced.train(norm.training)


class _Normalise(torch.autograd.Function):
    """(input - mean) · inverse_std, whose backward knows that mean and inverse_std came from the rows of all ranks."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        input: torch.Tensor,
        mean_C: torch.Tensor,
        inverse_std_C: torch.Tensor,
        weight_of_row: torch.Tensor,
        process_group: dist.ProcessGroup,
    ) -> torch.Tensor:
        scale_C = _over_channels(inverse_std_C, input)
        normal = torch.addcmul(_over_channels(-mean_C * inverse_std_C, input), input, scale_C)
        ctx.save_for_backward(normal, inverse_std_C, weight_of_row)
        ctx.process_group = process_group
        return normal

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        normal, inverse_std_C, weight_of_row = ctx.saved_tensors
        sums_2C = torch.stack([_sum_rows(gradient), _sum_rows(gradient * normal)])
        dist.all_reduce(sums_2C, group=ctx.process_group)
        mean_gradient_C, mean_product_C = (sums_2C * weight_of_row).to(gradient.dtype)
        # inverse_std · (gradient - mean_gradient - normal · mean_product), as two passes
        scale_C = _over_channels(inverse_std_C, gradient)
        shift_C = _over_channels(-mean_gradient_C * inverse_std_C, gradient)
        product_C = _over_channels(-mean_product_C * inverse_std_C, gradient)
        return torch.addcmul(shift_C, gradient, scale_C).addcmul_(normal, product_C), None, None, None, None


def _global_moments(input: torch.Tensor, process_group: dist.ProcessGroup) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and biased variance [C] and number of values per channel, over all ranks; float64.

    Each rank's own mean and sum of squared deviations are combined pairwise (Chan, Golub and LeVeque 1983), which loses no digits
    where the mean is large against the deviation, as a sum of squares would.
    """
    channels = input.shape[1]
    count = input.numel() // channels
    if count > 0:
        precise = input if input.dtype == torch.float64 else input.float()
        unused_C = precise.new_zeros(channels)
        # batch norm's own kernel: on a CPU twenty times as fast as var_mean over rows
        mean_C, var_C = torch.batch_norm_update_stats(precise, unused_C, unused_C.clone(), 0.0)
        packed = torch.stack([mean_C.double(), var_C.double() * count])
    else:
        packed = torch.zeros(2, channels, dtype=torch.float64, device=input.device)
    # filled on the device: a tensor of host values would make the host wait for the GPU, at every norm of every step
    packed = torch.cat([packed.flatten(), packed.new_full((1,), float(count))])
    gathered_W = [torch.empty_like(packed) for _ in range(process_group.size())]
    dist.all_gather(gathered_W, packed, group=process_group)
    stacked = torch.stack(gathered_W)
    count_W = stacked[:, -1:]
    mean_WC, deviation_WC = stacked[:, :channels], stacked[:, channels:-1]
    total = count_W.sum()
    mean_C = (mean_WC * count_W).sum(0) / total.clamp(min=1)
    deviation_C = (deviation_WC + count_W * (mean_WC - mean_C).square()).sum(0)
    return mean_C, deviation_C / total.clamp(min=1), total


def _sum_rows(values: torch.Tensor) -> torch.Tensor:
    """Sum over everything but channels: [C], float64 (PyTorch's cascaded float32 sum loses no digit that matters)."""
    return values.movedim(1, -1).reshape(-1, values.shape[1]).sum(0).double()


def _over_channels(values_C: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[C] as a shape that broadcasts against [B, C] or [B, C, L]."""
    return values_C.view(1, -1, *([1] * (like.dim() - 2)))
