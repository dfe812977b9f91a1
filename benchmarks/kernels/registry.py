"""The operators that `python -m benchmarks.kernels.run` measures."""

from collections.abc import Mapping

from benchmarks.kernels import diffusion_reverse, item_softmax, lss_score, target_attention
from benchmarks.kernels.case import Op

OPS: Mapping[str, Op] = {
    "diffusion_reverse": Op(summary="T2Diff's reverse process, unfused loop against one launch", cases=diffusion_reverse.cases),
    "item_softmax": Op(summary="cross-entropy over the catalogue, loss and gradients", cases=item_softmax.cases),
    "lss_score": Op(summary="FIT's scorer: stored items and their best, pairs with gradients", cases=lss_score.cases),
    "target_attention": Op(summary="DIN's activation unit: all queries, gradients, Dice's gate", cases=target_attention.cases),
}
"""Name of the folder in kernels/ -> its cases."""
