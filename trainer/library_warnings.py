"""Warnings that libraries raise about their own insides: known, harmless, and not for the user to act on."""

import logging
import warnings

KNOWN: tuple[tuple[type[Warning], str], ...] = (
    # torchrec 1.8 still calls the tensor forms of the collectives by the names that torch 2.13 has deprecated
    (FutureWarning, "`torch.distributed.(all_gather_into_tensor|reduce_scatter_tensor|_all_gather_base|_reduce_scatter_base)`"),
    # torchrec 1.8 describes its shards with ShardedTensor
    (FutureWarning, "Please use DTensor instead"),
    # fbgemm 1.8 has no Autograd kernel of its own for the dense lookup; tests hold its gradients against plain torch
    (UserWarning, "fbgemm::dense_embedding_codegen_lookup_function: an autograd kernel was not registered"),
)


def silence() -> None:
    """Filter KNOWN, and the log line that torchrec's tensors trigger in torch.fx; every other warning stays."""
    for category, message in KNOWN:
        warnings.filterwarnings("ignore", message=message, category=category)
    # torchrec's KeyedJaggedTensor asks torch.fx whether it is being traced by a name that torch 2.13 is about to change
    logging.getLogger("torch.fx._symbolic_trace").addFilter(lambda record: "is_fx_tracing" not in record.getMessage())
