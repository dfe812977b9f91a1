import pytest
import torch
import torch.nn.functional as F

from kernels.target_attention import (
    AttentionWeights,
    DiceWeights,
    dice_gate,
    first_layer,
    row_index,
    target_attention,
    target_attention_all,
    weighted_sum,
)

# B rows, J history positions, D width of a position, C and E hidden widths, N queries


def random_weights(dim, *, widths=(10, 6), dtype=torch.float64):
    def dice(width):
        return DiceWeights(
            torch.randn(width, dtype=dtype), torch.rand(width, dtype=dtype) + 0.5, torch.rand(width, dtype=dtype), 1e-8
        )

    def matrix(rows, columns):
        return torch.randn(rows, columns, dtype=dtype, requires_grad=True)

    def bias(width):
        return torch.randn(width, dtype=dtype, requires_grad=True)

    first, second = widths
    return AttentionWeights(
        matrix(first, 4 * dim),
        bias(first),
        dice(first),
        matrix(second, first),
        bias(second),
        dice(second),
        matrix(1, second),
        bias(1),
    )


def random_history(lengths, dim, dtype=torch.float64):
    history_JD = torch.randn(sum(lengths), dim, dtype=dtype, requires_grad=True)
    query_BD = torch.randn(len(lengths), dim, dtype=dtype, requires_grad=True)
    return history_JD, torch.tensor(lengths), query_BD


def padded_loop(history_JD, lengths_B, query_BD, weights):
    """Eq. 19 written for humans: one row, one position at a time, on the concatenated input."""

    def dice(hidden_C, constants):
        gate_C = torch.sigmoid((hidden_C - constants.mean_C) / torch.sqrt(constants.var_C + constants.eps))
        return hidden_C * (gate_C + (1 - gate_C) * constants.alpha_C)

    pooled, start = [], 0
    for length, query in zip(lengths_B.tolist(), query_BD, strict=True):
        total = torch.zeros_like(query)
        for event in history_JD[start : start + length]:
            hidden = weights.weight1_C4D @ torch.cat([event, query, event - query, event * query]) + weights.bias1_C
            hidden = weights.weight2_EC @ dice(hidden, weights.dice1) + weights.bias2_E
            total = total + (weights.weight3_1E @ dice(hidden, weights.dice2) + weights.bias3_1) * event
        pooled.append(total)
        start += length
    return torch.stack(pooled)


def gradients(output, tensors):
    torch.manual_seed(1)
    return torch.autograd.grad((output * torch.randn_like(output)).sum(), tensors)


@pytest.mark.parametrize("lengths", [[3, 0, 5, 1], [1], [0, 0], [7] * 9])
@pytest.mark.parametrize("dim", [1, 5, 32])
def test_jagged_attention_equals_a_loop_over_rows_with_every_gradient(lengths, dim):
    torch.manual_seed(0)
    history_JD, lengths_B, query_BD = random_history(lengths, dim)
    weights = random_weights(dim)
    learned = [history_JD, query_BD, *[w for w in weights if isinstance(w, torch.Tensor)]]
    actual = target_attention(history_JD, lengths_B, query_BD, weights)
    expected = padded_loop(history_JD, lengths_B, query_BD, weights)
    torch.testing.assert_close(actual, expected)
    if sum(lengths) > 0:
        for ours, theirs in zip(gradients(actual, learned), gradients(expected, learned), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_split_first_layer_equals_the_concatenated_form_with_every_gradient():
    torch.manual_seed(0)
    history_JD, lengths_B, query_BD = random_history([4, 0, 2], 6)
    weights = random_weights(6)
    row_J = row_index(lengths_B, 6)
    assert row_J.tolist() == [0, 0, 0, 0, 2, 2]
    query_JD = query_BD[row_J]
    concatenated = torch.cat([history_JD, query_JD, history_JD - query_JD, history_JD * query_JD], dim=1)
    expected = F.linear(concatenated, weights.weight1_C4D, weights.bias1_C)
    actual = first_layer(history_JD, query_BD, row_J, weights.weight1_C4D, weights.bias1_C)
    torch.testing.assert_close(actual, expected)
    learned = [history_JD, query_BD, weights.weight1_C4D, weights.bias1_C]
    for ours, theirs in zip(gradients(actual, learned), gradients(expected, learned), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_row_with_empty_history_is_exactly_zero():
    history_JD, lengths_B, query_BD = random_history([2, 0, 1], 4)
    pooled_BD = target_attention(history_JD, lengths_B, query_BD, random_weights(4))
    assert torch.equal(pooled_BD[1], torch.zeros(4, dtype=torch.float64))
    assert (pooled_BD[[0, 2]] != 0).all()


@pytest.mark.parametrize("lengths", [[3, 0, 5], [0, 0], [1]])
@pytest.mark.parametrize("num_queries", [1, 7])
def test_all_queries_in_one_pass_equal_one_query_at_a_time(lengths, num_queries):
    torch.manual_seed(0)
    history_JD, lengths_B, _ = random_history(lengths, 5)
    query_ND = torch.randn(num_queries, 5, dtype=torch.float64)
    weights = random_weights(5)
    pooled_BND = target_attention_all(history_JD, lengths_B, query_ND, weights)
    assert pooled_BND.shape == (len(lengths), num_queries, 5)
    for number, query_D in enumerate(query_ND):
        expected = target_attention(history_JD, lengths_B, query_D.expand(len(lengths), -1), weights)
        torch.testing.assert_close(pooled_BND[:, number], expected)


def test_rows_do_not_see_each_other():
    torch.manual_seed(0)
    history_JD, lengths_B, query_BD = random_history([3, 4], 5)
    weights = random_weights(5)
    changed_JD = history_JD.detach().clone()
    changed_JD[3:] += 1
    before = target_attention(history_JD, lengths_B, query_BD, weights)
    after = target_attention(changed_JD, lengths_B, query_BD, weights)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def test_dice_gate_leaves_open_channels_alone_and_scales_closed_ones_by_alpha():
    hidden_XC, alpha_C = torch.tensor([[2.0, 2.0, -3.0]]), torch.tensor([0.5, 0.5, 0.0])
    normal_XC = torch.tensor([[100.0, -100.0, 0.0]])
    assert dice_gate(hidden_XC, normal_XC, alpha_C).tolist() == [[2.0, 1.0, -1.5]]


def test_weighted_sum_adds_each_position_to_its_row():
    history_JD = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    pooled = weighted_sum(history_JD, torch.tensor([1.0, 10.0, -1.0]), torch.tensor([0, 0, 2]), 3)
    assert pooled.tolist() == [[31.0, 42.0], [0.0, 0.0], [-5.0, -6.0]]


def test_public_functions_script_and_equal_eager():
    @torch.jit.script
    def attend(
        history_JD: torch.Tensor, lengths_B: torch.Tensor, query_BD: torch.Tensor, weights: AttentionWeights
    ) -> torch.Tensor:
        every = target_attention_all(history_JD, lengths_B, query_BD, weights)
        return torch.cat([target_attention(history_JD, lengths_B, query_BD, weights), every.flatten(0, 1)])

    history_JD, lengths_B, query_BD = random_history([2, 0, 3], 4, dtype=torch.float32)
    weights = random_weights(4, dtype=torch.float32)
    eager = torch.cat(
        [
            target_attention(history_JD, lengths_B, query_BD, weights),
            target_attention_all(history_JD, lengths_B, query_BD, weights).flatten(0, 1),
        ]
    )
    torch.testing.assert_close(attend(history_JD, lengths_B, query_BD, weights), eager, atol=1e-6, rtol=0)


def test_bfloat16_autocast_runs_forward_and_backward():
    torch.manual_seed(0)
    history_JD, lengths_B, query_BD = random_history([3, 0, 5], 8, dtype=torch.float32)
    weights = random_weights(8, dtype=torch.float32)
    exact = target_attention(history_JD, lengths_B, query_BD, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = target_attention(history_JD, lengths_B, query_BD, weights)
    gradient = gradients(rough, [history_JD])[0]
    assert gradient.dtype == torch.float32
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(rough.float(), exact, atol=0.05 * exact.abs().max().item(), rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_BD": torch.zeros(3, 5)}, "expected two matrices of one width D"),
        ({"lengths_B": torch.tensor([2, 3])}, "lengths_B has shape"),
        ({"history_JD": torch.zeros(5, 3), "query_BD": torch.zeros(3, 3)}, r"expected \[C, 12\] and \[C\]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change, message):
    arguments = {"history_JD": torch.zeros(5, 4), "lengths_B": torch.tensor([2, 0, 3]), "query_BD": torch.zeros(3, 4)} | change
    with pytest.raises(ValueError, match=message):
        target_attention(**arguments, weights=random_weights(4, dtype=torch.float32))
