import dataclasses

import pytest
import torch

from models.layers.mixed_attention import MixedAttention, MixedAttentionConfig
from models.layers.padding import right_aligned, valid_places

DIM, LEN, SESSION, LAGS, PROFILE = 6, 9, 4, 7, 3
CONFIG = MixedAttentionConfig(session_len=SESSION, attention_hidden_dim=5, time_lag_dim=2, encoder_hidden_dim=8, user_hidden_dim=7)
LENGTHS = [9, 6, 4, 2, 1, 0]


def build(*, with_prediction=True, lags=LAGS, **options):
    torch.manual_seed(0)
    module = MixedAttention(
        dataclasses.replace(CONFIG, **options),
        dim=DIM,
        history_len=LEN,
        profile_dim=PROFILE,
        output_dim=3,
        num_time_lags=lags,
        with_prediction=with_prediction,
    )
    if module.position_SD is not None:
        torch.nn.init.normal_(module.position_SD)  # large enough for the order to matter
    return module.eval()


def inputs(lengths=LENGTHS, *, breaks=()):
    """Arguments of forward; `breaks` are places that begin a session in every row, from the end: 1 is the newest."""
    generator = torch.Generator().manual_seed(3)
    lengths_B = torch.tensor(lengths)
    total, rows = sum(lengths), len(lengths)
    valid_BL = valid_places(lengths_B, LEN)
    new_session_BL = torch.zeros(rows, LEN, dtype=torch.int64)
    for place in breaks:
        new_session_BL[:, -place] = 1
    return {
        "history_BLD": right_aligned(torch.randn(total, DIM, generator=generator), lengths_B, LEN),
        "valid_BL": valid_BL,
        "time_lag_BL": torch.randint(0, LAGS, (rows, LEN), generator=generator) * valid_BL,
        "new_session_BL": new_session_BL * valid_BL,
        "predicted_BD": torch.randn(rows, DIM, generator=generator),
        "profile_BU": torch.randn(rows, PROFILE, generator=generator),
    }


def permuted(arguments, places):
    """The behaviours at `places` in another order, with their time lags."""
    order = list(range(LEN))
    for target, source in zip(places, [*places[1:], places[0]], strict=True):
        order[target] = source
    return arguments | {name: arguments[name][:, order] for name in ("history_BLD", "time_lag_BL")}


def interests(module, arguments):
    """h_l and h_s: what eq. 22 is given."""
    seen = []
    hook = module.user_hidden.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    module(**arguments)
    hook.remove()
    older_BD, interest_BD, profile_BU = seen[0].split([DIM, DIM, PROFILE], dim=1)
    assert torch.equal(profile_BU, arguments["profile_BU"])
    return older_BD, interest_BD


def differ(one, other):
    return not torch.allclose(one, other, atol=1e-4)


def test_current_interest_is_the_mean_of_the_encoders_outputs_over_the_session_and_the_prediction():
    module, arguments = build(), inputs()
    _, interest_BD = interests(module, arguments)
    for row, length in enumerate(LENGTHS):
        num = min(length, SESSION)
        session_SD = torch.cat([arguments["history_BLD"][row, LEN - num :], arguments["predicted_BD"][row : row + 1]])
        session_SD = session_SD + module.position_SD[SESSION - num :]
        everything = torch.ones(1, num + 1, num + 1, dtype=torch.bool)
        expected_D = module.encoder(session_SD.unsqueeze(0), everything)[0].mean(0)  # eq. 19
        torch.testing.assert_close(interest_BD[row], expected_D, atol=1e-5, rtol=1e-5)


def test_without_diffusion_the_session_has_no_prediction():
    module, arguments = build(with_prediction=False), inputs()
    assert module.position_SD.shape == (SESSION, DIM)
    _, interest_BD = interests(module, arguments | {"predicted_BD": torch.empty(len(LENGTHS), 0)})
    newest_SD = arguments["history_BLD"][0, -SESSION:] + module.position_SD
    everything = torch.ones(1, SESSION, SESSION, dtype=torch.bool)
    torch.testing.assert_close(interest_BD[0], module.encoder(newest_SD.unsqueeze(0), everything)[0].mean(0), atol=1e-5, rtol=1e-5)
    assert torch.equal(interest_BD[-1], torch.zeros(DIM))  # neither a behaviour nor a prediction


def test_the_prediction_moves_every_user_vector():
    module, arguments = build(), inputs()
    moved_BC = module(**arguments | {"predicted_BD": arguments["predicted_BD"] + 1.0})
    assert ((moved_BC - module(**arguments)).abs().amax(1) > 1e-4).all()


def test_the_order_of_the_older_history_does_not_matter():
    module, arguments = build(), inputs([9])
    torch.testing.assert_close(module(**permuted(arguments, [0, 2, 3, 4])), module(**arguments), atol=1e-6, rtol=1e-5)
    assert differ(module(**arguments | {"history_BLD": permuted(arguments, [0, 1, 3])["history_BLD"]}), module(**arguments))


def test_the_order_of_the_session_matters_through_positions_alone():
    arguments = inputs([9])
    shuffled = permuted(arguments, [5, 6, 8])
    assert differ(build()(**shuffled), build()(**arguments))
    without = build(positions=False)
    torch.testing.assert_close(without(**shuffled), without(**arguments), atol=1e-6, rtol=1e-5)


def test_the_time_lag_changes_the_attention_on_older_behaviours_and_nothing_else():
    module, arguments = build(), inputs([9])
    other = arguments | {"time_lag_BL": arguments["time_lag_BL"].clone()}
    other["time_lag_BL"][:, SESSION + 1 :] = (other["time_lag_BL"][:, SESSION + 1 :] + 1) % LAGS  # of the session
    assert torch.equal(module(**other), module(**arguments))
    other["time_lag_BL"][:, 1] = (other["time_lag_BL"][:, 1] + 1) % LAGS
    before, after = interests(module, arguments), interests(module, other)
    assert differ(after[0], before[0])
    assert torch.equal(after[1], before[1])


def test_a_gap_session_without_a_break_is_the_newest_k():
    arguments = inputs(breaks=(SESSION,))
    torch.testing.assert_close(build(session="gap")(**arguments), build()(**arguments), atol=1e-6, rtol=1e-5)


def test_behaviours_before_the_newest_break_belong_to_the_older_history():
    # the newest two are a session; the place before them begins another one, which is over
    module, arguments = build(session="gap"), inputs([9], breaks=(2, 3))
    older_BD, interest_BD = interests(module, arguments)
    # among themselves and with still older ones they may change places, unlike those of the session
    for places in ([5, 6], [0, 6], [3, 5]):
        torch.testing.assert_close(module(**permuted(arguments, places)), module(**arguments), atol=1e-6, rtol=1e-5)
    for places in ([7, 8], [6, 7]):
        assert differ(module(**permuted(arguments, places)), module(**arguments))
    # h_s is that of a user who has done nothing but these two
    short = arguments | {"valid_BL": valid_places(torch.tensor([2]), LEN)}
    torch.testing.assert_close(interests(module, short)[1], interest_BD, atol=1e-6, rtol=1e-5)
    assert differ(older_BD, interests(build(), arguments)[0])


@pytest.mark.parametrize("session", ["last_k", "gap"])
@pytest.mark.parametrize("norm", ["softmax", "sum", "none"])
def test_target_attention_equals_a_plain_loop(norm, session):
    module, arguments = build(attention_norm=norm, session=session), inputs(breaks=(2,))
    older_BD, interest_BD = interests(module, arguments)
    in_session = 2 if session == "gap" else SESSION
    for row, length in enumerate(LENGTHS):
        places = range(LEN - length, LEN - min(in_session, length))
        vectors = [arguments["history_BLD"][row, place] for place in places]
        scores = []
        for place, x in zip(places, vectors, strict=True):
            lag = module.time_lag.weight[arguments["time_lag_BL"][row, place]]
            hidden = module.unit_history(x) + module.unit_product(x * interest_BD[row]) + module.unit_interest(interest_BD[row])
            scores.append(module.unit_output(torch.relu(hidden + module.unit_time_lag(lag))).squeeze())
        weights = torch.stack(scores) if scores else torch.zeros(0)
        if norm == "softmax":
            weights = weights.softmax(0)
        elif norm == "sum":
            weights = weights / weights.sum()  # eq. 20 to the letter
        expected_D = sum((weight * x for weight, x in zip(weights, vectors, strict=True)), torch.zeros(DIM))  # eq. 21
        torch.testing.assert_close(older_BD[row], expected_D, atol=1e-5, rtol=1e-4)
        assert scores or torch.equal(older_BD[row], torch.zeros(DIM))


def test_the_units_first_layer_is_a_linear_map_of_all_that_eq_20_concatenates():
    module, arguments = build(), inputs([9])
    hidden_dim = CONFIG.attention_hidden_dim
    first = torch.nn.Linear(4 * DIM + CONFIG.time_lag_dim, hidden_dim)  # of [x, x − h, x ∘ h, h, time lag]
    of_x, of_difference, of_product, of_h, of_lag = first.weight.split([DIM, DIM, DIM, DIM, CONFIG.time_lag_dim], dim=1)
    with torch.no_grad():
        module.unit_history.weight.copy_(of_x + of_difference)
        module.unit_product.weight.copy_(of_product)
        module.unit_interest.weight.copy_(of_h - of_difference)
        module.unit_interest.bias.copy_(first.bias)
        module.unit_time_lag.weight.copy_(of_lag)
    older_BD, interest_BD = interests(module, arguments)
    x_HD = arguments["history_BLD"][0, : LEN - SESSION]
    h_HD = interest_BD.expand_as(x_HD)
    lag_HE = module.time_lag(arguments["time_lag_BL"][0, : LEN - SESSION])
    weight_H = module.unit_output(torch.relu(first(torch.cat([x_HD, x_HD - h_HD, x_HD * h_HD, h_HD, lag_HE], dim=1)))).softmax(0)
    torch.testing.assert_close(older_BD[0], (weight_H * x_HD).sum(0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("norm", ["softmax", "sum", "none"])
def test_what_padding_holds_does_not_matter(norm):
    module, arguments = build(attention_norm=norm), inputs()
    padding_BL = ~arguments["valid_BL"]
    other = arguments | {
        "history_BLD": arguments["history_BLD"] + 5.0 * padding_BL.unsqueeze(2),
        "time_lag_BL": arguments["time_lag_BL"] + 2 * padding_BL,
    }
    torch.testing.assert_close(module(**other), module(**arguments), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"session": "gap"}, {"mask_diagonal": True}, {"attention_norm": "sum"}])
@pytest.mark.parametrize("with_prediction", [True, False])
def test_rows_of_any_length_give_finite_vectors_and_gradients(options, with_prediction):
    module = build(with_prediction=with_prediction, **options)
    arguments = inputs(breaks=(2,))
    if not with_prediction:
        arguments["predicted_BD"] = torch.empty(len(LENGTHS), 0)
    history_BLD = arguments["history_BLD"].requires_grad_()
    user_BC = module(**arguments)
    user_BC.square().sum().backward()
    assert torch.isfinite(user_BC).all()
    assert torch.isfinite(history_BLD.grad).all()
    assert torch.equal(history_BLD.grad[~arguments["valid_BL"]], torch.zeros(int((~arguments["valid_BL"]).sum()), DIM))
    for name, parameter in module.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


def test_a_session_as_long_as_the_history_has_no_older_history():
    module = build(session_len=LEN)
    older_BD, _ = interests(module, inputs())
    assert torch.equal(older_BD, torch.zeros(len(LENGTHS), DIM))


def test_with_a_masked_diagonal_a_lone_place_attends_to_nothing():
    module, arguments = build(mask_diagonal=True), inputs([0])  # x̂ alone
    before_BC = module(**arguments)
    torch.nn.init.normal_(module.encoder.project_in.weight)
    assert torch.equal(module(**arguments), before_BC)
    attending = build()
    before_BC = attending(**arguments)
    torch.nn.init.normal_(attending.encoder.project_in.weight)
    assert differ(attending(**arguments), before_BC)


@pytest.mark.parametrize("options", [{}, {"session": "gap", "positions": False}, {"attention_norm": "sum", "mask_diagonal": True}])
def test_it_scripts_with_and_without_time_lag(options):
    for lags in (LAGS, 0):
        module, arguments = build(lags=lags, **options), inputs(breaks=(2,))
        torch.testing.assert_close(torch.jit.script(module)(**arguments), module(**arguments), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("session_len", 0, r"MixedAttentionConfig.session_len=0, expected at least 1"),
        ("user_hidden_dim", -1, r"MixedAttentionConfig.user_hidden_dim=-1, expected at least 1"),
        ("session", "week", r"MixedAttentionConfig.session='week', expected one of \('last_k', 'gap'\)"),
        ("attention_norm", "max", r"MixedAttentionConfig.attention_norm='max', expected one of \('softmax', 'sum', 'none'\)"),
        ("dropout", 1.0, r"MixedAttentionConfig.dropout=1.0, expected 0 <= dropout < 1"),
    ],
)
def test_a_wrong_value_is_refused_by_name(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **{field: value})


def test_a_session_longer_than_the_history_is_refused():
    with pytest.raises(ValueError, match=f"session_len={LEN + 1}, expected at most the history's {LEN} behaviours"):
        build(session_len=LEN + 1)
