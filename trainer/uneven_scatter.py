"""Row-wise pooled tables over gloo with batches of different sizes on different ranks."""

import torch
import torch.nn.functional as F
from torch import nn
from torchrec.distributed.dist_data import PooledEmbeddingsAwaitable, PooledEmbeddingsReduceScatter
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.sharding.rw_sharding import RwPooledEmbeddingDist


class PaddedReduceScatter(PooledEmbeddingsReduceScatter):
    """TorchRec's reduce-scatter of pooled embeddings, with shares of unequal size padded to the largest.

    TorchRec's own way for unequal shares gathers gradients of different sizes, which nccl can do and gloo can't. Zeros are added to
    every share but the largest and cut off again, so values and gradients are the same.
    """

    def forward(self, local_embs: torch.Tensor, input_splits: list[int] | None = None) -> PooledEmbeddingsAwaitable:
        """Sum over ranks of [sum of all ranks' rows, columns], of which each rank gets its own rows."""
        if not input_splits or len(set(input_splits)) == 1:
            return super().forward(local_embs, input_splits)
        most = max(input_splits)
        shares = [F.pad(share, (0, 0, 0, most - share.shape[0])) for share in local_embs.split(input_splits)]
        own_rows = input_splits[self._pg.rank()]
        result = super().forward(torch.cat(shares))
        result.callbacks.append(lambda pooled: pooled[:own_rows])
        return result


def allow_uneven_shares(module: nn.Module) -> None:
    """Let the row-wise pooled tables below `module`, already sharded over gloo, take batches of different sizes."""
    for child in module.modules():
        if isinstance(child, ShardedEmbeddingBagCollection):
            for output in child._output_dists:
                if isinstance(output, RwPooledEmbeddingDist):
                    # TorchRec makes its own at the first batch where there is none yet
                    output._dist = PaddedReduceScatter(output._pg)
