"""DIN's activation unit on jagged histories (FIT eq. 19): public functions, which check shapes and call a backend.

Training composes `first_layer`, `dice_gate` and `weighted_sum` around batch statistics that may be shared over ranks; evaluation
and serving call `target_attention` and `target_attention_all`, whose statistics are fixed. `backend` is auto, torch or triton, see
kernels.dispatch.
"""

# B rows, J history positions of the batch, D width of a position, C and E hidden widths, N queries

import torch

from kernels.dispatch import unsupported_gradient, unsupported_type, uses_triton
from kernels.target_attention import launch, reference, reference_all
from kernels.target_attention.reference import row_index
from kernels.target_attention.split import kernel_inputs, tensors_of
from kernels.target_attention.types import AttentionWeights, DiceWeights

__all__ = [
    "AttentionWeights",
    "DiceWeights",
    "first_layer",
    "row_index",
    "target_attention",
    "target_attention_all",
    "weighted_sum",
]


def first_layer(
    history_JD: torch.Tensor, query_BD: torch.Tensor, row_J: torch.Tensor, weight_C4D: torch.Tensor, bias_C: torch.Tensor
) -> torch.Tensor:
    """The first layer of a(·) on [e, q, e − q, e∘q], for every history position.

    Args:
        history_JD: [J, D], rows one after another.
        query_BD: [B, D], one query per row.
        row_J: int64 [J] in [0, B), from `row_index`.
        weight_C4D: [C, 4D] in the concatenated layout.
        bias_C: [C].

    Returns:
        [J, C], before the activation.

    Raises:
        ValueError: shapes do not fit together.
    """
    if not torch.jit.is_scripting():
        _check_history(history_JD, query_BD, "query_BD")
        if row_J.shape != (history_JD.shape[0],):
            raise ValueError(
                f"row_J has shape {tuple(row_J.shape)}, expected one row per history position, [{history_JD.shape[0]}]"
            )
        _check_first_layer(history_JD, weight_C4D, bias_C)
    return reference.first_layer(history_JD, query_BD, row_J, weight_C4D, bias_C)


def weighted_sum(history_JD: torch.Tensor, weight_J: torch.Tensor, row_J: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Σ_j a_j e_j of each row: [J, D] and [J] to [num_rows, D]; exactly 0 for a row without history.

    Raises:
        ValueError: weight_J or row_J do not have one entry per history position.
    """
    if not torch.jit.is_scripting():
        for name, tensor in (("weight_J", weight_J), ("row_J", row_J)):
            if tensor.shape != (history_JD.shape[0],):
                raise ValueError(
                    f"{name} has shape {tuple(tensor.shape)}, expected one entry per position, [{history_JD.shape[0]}]"
                )
    return reference.weighted_sum(history_JD, weight_J, row_J, num_rows)


def dice_gate(hidden_XC: torch.Tensor, normal_XC: torch.Tensor, alpha_C: torch.Tensor, backend: str = "auto") -> torch.Tensor:
    """Dice's gate s·(p + (1 − p)·α), p = sigmoid(n).

    Args:
        hidden_XC: [X, C], s.
        normal_XC: [X, C], n: s normalised per channel.
        alpha_C: [C].
        backend: see above; the kernel is once differentiable.

    Returns:
        [X, C].

    Raises:
        ValueError: shapes do not fit together, or the backend cannot run.
    """
    if not torch.jit.is_scripting():
        if hidden_XC.shape != normal_XC.shape or alpha_C.shape != hidden_XC.shape[1:]:
            shapes = [tuple(tensor.shape) for tensor in (hidden_XC, normal_XC, alpha_C)]
            raise ValueError(f"hidden_XC, normal_XC and alpha_C have shapes {shapes}, expected [X, C], [X, C] and [C]")
        if uses_triton(backend, hidden_XC, unsupported=unsupported_type(hidden_XC, normal_XC, alpha_C)):
            return launch.gate(hidden_XC.contiguous(), normal_XC.contiguous(), alpha_C.contiguous())
    return reference.dice_gate(hidden_XC, normal_XC, alpha_C)


def target_attention(
    history_JD: torch.Tensor, lengths_B: torch.Tensor, query_BD: torch.Tensor, weights: AttentionWeights, backend: str = "auto"
) -> torch.Tensor:
    """Weighted pooling of each row's history by its own query, raw weights, Dice with fixed statistics.

    Args:
        history_JD: [J, D], rows one after another.
        lengths_B: int64 [B], sums to J; 0 is allowed.
        query_BD: [B, D].
        weights: the network a(·).
        backend: see above; the kernel is once differentiable, but not in Dice's statistics.

    Returns:
        [B, D]; exactly 0 for a row without history.

    Raises:
        ValueError: shapes do not fit together, or the backend cannot run.
    """
    if not torch.jit.is_scripting():
        _check_history(history_JD, query_BD, "query_BD")
        if lengths_B.shape != (query_BD.shape[0],):
            raise ValueError(f"lengths_B has shape {tuple(lengths_B.shape)}, expected one per query row, [{query_BD.shape[0]}]")
        _check_first_layer(history_JD, weights.weight1_C4D, weights.bias1_C)
        if uses_triton(backend, history_JD, unsupported=_unsupported(history_JD, query_BD, weights)):
            with torch.autocast(history_JD.device.type, enabled=False):
                inputs, eps = kernel_inputs(history_JD, lengths_B, query_BD, weights)
                return launch.attend(*inputs, *eps)
    return reference.target_attention(history_JD, lengths_B, query_BD, weights)


def target_attention_all(
    history_JD: torch.Tensor, lengths_B: torch.Tensor, query_ND: torch.Tensor, weights: AttentionWeights, backend: str = "auto"
) -> torch.Tensor:
    """Weighted pooling of each row's history by every one of N queries (serving, FIT section 4.3.2).

    Args:
        history_JD: [J, D], rows one after another.
        lengths_B: int64 [B], sums to J; 0 is allowed.
        query_ND: [N, D], the same for all rows.
        weights: the network a(·).
        backend: see above; the kernel has no gradient, so `auto` leaves tensors that want one to the reference.

    Returns:
        [B, N, D]; entry [b, n] is `target_attention` of row b with query n.

    Raises:
        ValueError: shapes do not fit together, or the backend cannot run.
    """
    if not torch.jit.is_scripting():
        _check_history(history_JD, query_ND, "query_ND")
        if lengths_B.dim() != 1:
            raise ValueError(f"lengths_B has shape {tuple(lengths_B.shape)}, expected [B]")
        _check_first_layer(history_JD, weights.weight1_C4D, weights.bias1_C)
        if uses_triton(backend, history_JD, unsupported=_all_unsupported(history_JD, query_ND, weights)):
            with torch.autocast(history_JD.device.type, enabled=False):
                (history_JD, offset, query_ND, *rest), eps = kernel_inputs(history_JD, lengths_B, query_ND, weights)
                return launch.attend_all(history_JD, offset, query_ND, rest, eps)
    return reference_all.target_attention_all(history_JD, lengths_B, query_ND, weights)


def _unsupported(history_JD: torch.Tensor, query: torch.Tensor, weights: AttentionWeights) -> str | None:
    """Why the kernel cannot take these; None where it can."""
    too_wide = launch.too_wide(history_JD.shape[1], *weights.weight2_EC.shape[::-1])
    return too_wide or unsupported_type(history_JD, query, *tensors_of(weights))


def _all_unsupported(history_JD: torch.Tensor, query_ND: torch.Tensor, weights: AttentionWeights) -> str | None:
    gradient = unsupported_gradient(history_JD, query_ND, *tensors_of(weights))
    return gradient or _unsupported(history_JD, query_ND, weights)


def _check_history(history_JD: torch.Tensor, query: torch.Tensor, name: str) -> None:
    if history_JD.dim() != 2 or query.dim() != 2 or history_JD.shape[1] != query.shape[1]:
        raise ValueError(
            f"history_JD has shape {tuple(history_JD.shape)} and {name} {tuple(query.shape)}, expected two matrices of one width D"
        )


def _check_first_layer(history_JD: torch.Tensor, weight_C4D: torch.Tensor, bias_C: torch.Tensor) -> None:
    width = 4 * history_JD.shape[1]
    if weight_C4D.dim() != 2 or weight_C4D.shape[1] != width or bias_C.shape != (weight_C4D.shape[0],):
        raise ValueError(
            f"the first layer has weight {tuple(weight_C4D.shape)} and bias {tuple(bias_C.shape)}, expected [C, {width}] and [C] "
            f"for history vectors of width {history_JD.shape[1]}"
        )
