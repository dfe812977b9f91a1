import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from models.hstu import HSTU, HSTUConfig, HSTULayer, seconds_of_gaps, time_buckets
from models.types import InputDims
from tests.models.small_sequences import DIMS, LENGTHS, STARTS, histories, random_weights, served, trained, with_another

TIME_GAP, NUM_GAPS = DIMS.context[0]
"""A history feature whose ids are read as buckets of time to the next behaviour."""


def build(*, dims=DIMS, **options):
    return random_weights(HSTU(HSTUConfig(**{"time_gap": TIME_GAP} | options), dims=dims))


def layer_by_loop(layer, input_LD, gaps):
    """The layer's outputs for one history by eq. 1-3, place after place; `gaps` are seconds to the next behaviour."""
    gate_LD, value_LD, query_LD, key_LD = F.silu(layer.project_in(F.layer_norm(input_LD, input_LD.shape[1:]))).chunk(4, dim=1)
    heads = [
        slice(start, start + query_LD.shape[1] // layer.num_heads) for start in range(0, query_LD.shape[1], 8 // layer.num_heads)
    ]
    outputs = []
    for place in range(len(input_LD)):
        attended_D = torch.zeros(8)
        for older in range(place + 1):
            bias = layer.position_bias_L[place - older]
            if layer.time_bias_V is not None:
                seconds = sum(gaps[older : place + 1])  # a place asks when the next behaviour comes
                bias = bias + layer.time_bias_V[int(math.log(max(seconds, 1.0)) / 0.301)]
            for head in heads:
                attended_D[head] += F.silu(query_LD[place, head] @ key_LD[older, head] + bias) * value_LD[older, head]
        gated_D = F.layer_norm(attended_D, (8,)) * gate_LD[place]
        outputs.append(input_LD[place] + layer.project_out(gated_D))
    return torch.stack(outputs)


def with_long_gaps(users):
    """The same rows, their gaps from none to a few weeks."""
    gap_J = torch.arange(len(users.context_JF)) * 23 % 173
    return users._replace(context_JF=torch.stack([gap_J, users.context_JF[:, 1]], dim=1))


@pytest.mark.parametrize("options", [{}, {"num_heads": 2}, {"time_gap": None, "num_layers": 3}])
def test_user_vectors_are_those_of_the_equations_place_by_place(options):
    dims = dataclasses.replace(DIMS, context=((TIME_GAP, 173), DIMS.context[1]))
    model, users = build(dims=dims, **options), with_long_gaps(histories()[0])
    seconds_J = seconds_of_gaps(173)[users.context_JF[:, 0]].tolist()
    user_BD = served(model, users)
    for row, (start, length) in enumerate(zip(STARTS, LENGTHS, strict=True)):
        hidden_LD = users.history_JD[start : start + length] * 8**0.5 + model.position_LD[model.history_len - length :]
        for layer in model.layers if length else ():
            hidden_LD = layer_by_loop(layer, hidden_LD, seconds_J[start : start + length])
        expected_D = model.norm(hidden_LD[-1]) if length else torch.zeros(8)
        torch.testing.assert_close(user_BD[row], expected_D, atol=1e-5, rtol=1e-5)


def test_what_places_are_given_is_added_up_so_that_none_takes_from_another():
    layer = random_weights(HSTULayer(8, num_heads=2, history_len=6, with_times=False, dropout=0.0))
    layer.norm_attended = torch.nn.Identity()
    input_BLD = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    no_times = torch.zeros(3, 6, 0, dtype=torch.int64)
    some_BLL = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(1)) < 0.5

    def attended(allowed_BLL):
        return layer(input_BLD, allowed_BLL, no_times) - input_BLD - layer.project_out.bias

    everything_BLD = attended(torch.ones_like(some_BLL))
    torch.testing.assert_close(attended(some_BLL) + attended(~some_BLL), everything_BLD, atol=1e-5, rtol=1e-5)
    assert everything_BLD.abs().min() > 0


@pytest.mark.parametrize(("row", "step"), [(1, 0), (1, 3), (1, 5), (2, 1)])
def test_a_behaviour_changes_no_output_before_it(row, step):
    model, (users, items) = build(all_positions=True), histories()
    before, after = (trained(model, given, items) for given in (users, with_another(users, STARTS[row] + step)))
    asking = [(other, place) for other, length in enumerate(LENGTHS) for place in range(length - 1)]
    changed = [(other, LENGTHS[other] - 1) for other in range(len(LENGTHS)) if not torch.equal(before.user_BC, after.user_BC)]
    changed = [asks for asks in changed if not torch.allclose(before.user_BC[asks[0]], after.user_BC[asks[0]], atol=1e-6, rtol=0)]
    same_X = torch.isclose(before.cloze_XC, after.cloze_XC, atol=1e-6, rtol=0).all(1)
    changed += [asks for asks, same in zip(asking, same_X.tolist(), strict=True) if not same]
    assert sorted(changed) == [(row, place) for place in range(step, LENGTHS[row])]


def test_user_vectors_are_the_newest_outputs_whatever_else_is_predicted():
    users, items = histories()
    every, last = build(all_positions=True), build()
    assert (every.predicts_history, last.predicts_history) == (True, False)
    for model in (every, last):
        torch.testing.assert_close(trained(model, users, items).user_BC, served(last, users), atol=1e-6, rtol=1e-5)


def test_a_row_without_history_has_the_vector_0():
    user_BD = served(build(), histories()[0])
    assert user_BD.abs().sum(1).eq(0).tolist() == [length == 0 for length in LENGTHS]


def test_more_padding_changes_nothing():
    users, _ = histories()
    longer, weights = build(dims=dataclasses.replace(DIMS, history_len=11)), build().state_dict()
    weights["position_LD"] = torch.cat([torch.full((5, 8), 9.0), weights["position_LD"]])
    for depth in range(2):
        name = f"layers.{depth}.position_bias_L"
        weights[name] = torch.cat([weights[name], torch.full((5,), 9.0)])
    longer.load_state_dict(weights)
    torch.testing.assert_close(served(longer, users), served(build(), users), atol=1e-6, rtol=1e-5)


def test_user_vectors_follow_the_times_unless_there_is_no_such_bias():
    users, _ = histories()
    context_JF = users.context_JF.clone()
    context_JF[STARTS[1], 0] = (context_JF[STARTS[1], 0] + 4) % NUM_GAPS
    other = users._replace(context_JF=context_JF)
    differ_B = (served(build(), users) != served(build(), other)).any(1)
    assert differ_B.tolist() == [row == 1 for row in range(len(LENGTHS))]
    without = build(time_gap=None)
    assert torch.equal(served(without, users), served(without, other))


def test_behaviours_a_second_apart_are_told_apart_however_long_ago_they_were():
    gap_BL = torch.tensor([[1.0, 1.0, 30.0, 40_000_000.0]], dtype=torch.float64)  # the newest one was more than a year ago
    bucket_LL = time_buckets(gap_BL)[0]
    expected = [[0, 0, 0, 0], [2, 0, 0, 0], [11, 11, 11, 0], [58, 58, 58, 58]]
    assert bucket_LL.tolist() == expected


def test_a_place_asks_as_late_in_training_as_in_serving():
    """What it sees of the times is what the newest place of the shorter history sees."""
    gap_BL = torch.rand(1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 10**6
    whole_LL = time_buckets(gap_BL)[0]
    for place in range(6):
        assert torch.equal(whole_LL[place, : place + 1], time_buckets(gap_BL[:, : place + 1])[0, -1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "HSTUConfig.num_layers=0, expected at least 1"),
        ({"num_heads": 0}, "HSTUConfig.num_heads=0, expected at least 1"),
        ({"dropout": 1.0}, "HSTUConfig.dropout=1.0, expected 0 <= dropout < 1"),
        ({"num_heads": 3}, "num_heads=3 does not divide the width 8"),
        ({"time_gap": "hist_gap"}, r"HSTUConfig.time_gap='hist_gap' is no history feature .* do without \(time_gap None\)"),
    ],
)
def test_a_wrong_value_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_inputs_without_history_are_refused():
    with pytest.raises(ValueError, match="HSTU needs a history whose id space the item shares"):
        build(dims=InputDims(profile=3, attributes=0, position=0))
