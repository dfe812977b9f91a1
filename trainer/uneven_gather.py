"""Rows of all ranks, where ranks hold different numbers of them."""

import torch
import torch.distributed as dist


def gather_columns(rows_RB: torch.Tensor, process_group: dist.ProcessGroup | None) -> torch.Tensor:
    """The columns of every rank's [R, B] side by side, in the order of the ranks: [R, sum of B]; a collective call, alike on all.

    Args:
        rows_RB: R values of each of this rank's B rows, on the CPU; R and the type are the same on all ranks, B may be 0.
        process_group: a group that carries CPU tensors (gloo); None or a single rank: `rows_RB` as it is.
    """
    if process_group is None or process_group.size() == 1:
        return rows_RB
    sizes = torch.zeros(process_group.size(), dtype=torch.int64)
    sizes[dist.get_rank(process_group)] = rows_RB.shape[1]
    dist.all_reduce(sizes, group=process_group)
    # padded on the way: gloo gathers equal shapes only
    padded = rows_RB.new_zeros(rows_RB.shape[0], int(sizes.max()))
    padded[:, : rows_RB.shape[1]] = rows_RB
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded, group=process_group)
    return torch.cat([part[:, :size] for part, size in zip(parts, sizes.tolist(), strict=True)], dim=1)
