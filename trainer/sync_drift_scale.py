"""The drift scale of T2Diff over the rows of all ranks."""

# B rows of this rank, L history positions, D width of a position

import torch
import torch.distributed as dist

from models.layers.drift_scale import DriftScale


class SyncDriftScale(DriftScale):
    """DriftScale that follows the z0 of the global batch; same buffers and state_dict.

    Each `observe` is one collective call, so all ranks of `process_group` must make equally many; a rank may have no rows.

    Raises:
        TypeError: `single` has a type of its own, whose `observe` would be lost.

    Example::

        SyncDriftScale(DriftScale(), process_group=dist.group.WORLD)
    """

    def __init__(self, single: DriftScale, *, process_group: dist.ProcessGroup) -> None:
        if type(single) is not DriftScale:
            raise TypeError(f"{type(single).__name__} derives from DriftScale; its own observe would be lost")
        super().__init__(momentum=single.momentum, device=single.scale.device)
        self._buffers = single._buffers
        self.process_group = process_group
        self.train(single.training)

    def observe(self, z0_BLD: torch.Tensor, valid_BL: torch.Tensor) -> None:
        """Take in all ranks' batches: this rank's z0 [B, L, D], 0 at padding, and valid [B, L]."""
        moments_3 = self.moments(z0_BLD, valid_BL)
        dist.all_reduce(moments_3, group=self.process_group)
        self.absorb(moments_3)
