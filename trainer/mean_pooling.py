"""Mean-pooled tables of which some are row-wise: TorchRec 1.8 divides the others twice, and all by a little too much."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionContext, ShardedEmbeddingBagCollection
from torchrec.distributed.types import Awaitable
from torchrec.modules.embedding_configs import PoolingType
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor


def divide_means_once(module: nn.Module) -> None:
    """Let the pooled tables below `module`, already sharded, be averaged by their own kernel or after it, and not by both.

    Rows of a row-wise table are summed on several ranks, so TorchRec divides by a bag's length at the end; it then divides all
    features of the collection but those it has noted as sums, also the means that a table-wise or column-wise kernel has taken
    itself. Noting those as sums, which by then they are, leaves them alone.
    """
    for child in module.modules():
        if isinstance(child, ShardedEmbeddingBagCollection) and child._has_mean_pooling_callback:
            noted = child._pooling_type_to_rs_features
            divided_later = set(noted[PoolingType.MEAN.value])
            for config in child._embedding_bag_configs:
                done = [name for name in config.feature_names if name not in divided_later]
                noted[PoolingType.SUM.value] += [name for name in done if name not in noted[PoolingType.SUM.value]]
            child.input_dist = partial(_input_dist, child.input_dist)


def _input_dist(
    original: Callable[..., Awaitable[Awaitable[torch.Tensor]]], ctx: EmbeddingBagCollectionContext, features: KeyedJaggedTensor
) -> Awaitable[Awaitable[torch.Tensor]]:
    """TorchRec's own; it divides by length + 1e-6, against empty bags, and here by the length, or 1 for an empty bag."""
    result = original(ctx, features)
    ctx.divisor = ctx.divisor.round().clamp(min=1)
    return result
