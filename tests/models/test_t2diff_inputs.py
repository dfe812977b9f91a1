"""T2Diff's histories, context, item tower and sizes; what it refuses; that every form scripts."""

import dataclasses

import pytest
import torch
from torch import nn

from models.t2diff import T2Diff, T2DiffConfig
from models.types import InputDims, ItemInputs, UserInputs
from tests.models.small_t2diff import ATTENTION, CONFIG, CONTEXT, DIMS, LENGTHS, build, training_noise, users_and_items


def reordered(users, order):
    """One row's behaviours, with their context, in another order."""
    return users._replace(history_JD=users.history_JD[order], context_JF=users.context_JF[order])


def test_the_order_of_the_older_history_does_not_matter_without_diffusion_and_the_sessions_does():
    model = build(use_diffusion=False).eval()
    nn.init.normal_(model.attention.position_SD)
    users, _ = users_and_items([7])
    before_BC = model.user_vectors(users, torch.empty(1, 0))
    older, session = reordered(users, [3, 1, 0, 2, 4, 5, 6]), reordered(users, [0, 1, 2, 3, 4, 6, 5])
    torch.testing.assert_close(model.user_vectors(older, torch.empty(1, 0)), before_BC, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(model.user_vectors(session, torch.empty(1, 0)), before_BC, atol=1e-4)


def test_how_far_histories_are_padded_changes_nothing():
    wide = dataclasses.replace(DIMS, history_len=11)
    users, items = users_and_items()
    noise_BLD = torch.randn(5, 11, 8)
    narrow_BX = noise_BLD[:, 4:].reshape(5, -1)
    for options in ({}, {"use_diffusion": False}):
        short, long = build(**options).eval(), build(dims=wide, **options).eval()
        long.load_state_dict(short.state_dict())
        served = [model.user_vectors(users, noise_BX) for model, noise_BX in ((short, narrow_BX), (long, noise_BLD.flatten(1)))]
        torch.testing.assert_close(*served, atol=1e-5, rtol=1e-5)
    assert torch.equal(short.item_vectors(items), items.item_BD)


def test_context_columns_are_found_by_name():
    gap = dataclasses.replace(ATTENTION, session="gap")
    swapped = dataclasses.replace(DIMS, context=CONTEXT[::-1])
    users, _ = users_and_items([7, 5])
    one, other = (build(dims=dims, use_diffusion=False, attention=gap).eval() for dims in (DIMS, swapped))
    flipped = users._replace(context_JF=users.context_JF.flip(1))
    nothing = torch.empty(2, 0)
    assert users.context_JF[:, 1].max() > 1  # a time lag's id, so that columns can be told from each other
    assert torch.equal(one.user_vectors(users, nothing), other.user_vectors(flipped, nothing))


def test_vectors_longer_than_max_norm_are_scaled_down_on_both_sides():
    model, free = (build(use_diffusion=False, max_norm=norm).eval() for norm in (1.5, None))
    users, items = users_and_items()
    scaled_MD = model.item_vectors(items)
    norm_M = items.item_BD.norm(dim=1)
    torch.testing.assert_close(scaled_MD.norm(dim=1), norm_M.clamp(max=1.5))
    torch.testing.assert_close(torch.cosine_similarity(scaled_MD, items.item_BD), torch.ones(5))
    short_JD = users.history_JD * (1.5 / users.history_JD.norm(dim=1, keepdim=True)).clamp(max=1.0)
    nothing = torch.empty(5, 0)
    torch.testing.assert_close(
        model.user_vectors(users, nothing), free.user_vectors(users._replace(history_JD=short_JD), nothing), atol=1e-6, rtol=1e-5
    )
    zero = ItemInputs(items.attributes_BA, torch.zeros(5, 8, requires_grad=True))
    model.item_vectors(zero).sum().backward()
    assert torch.isfinite(zero.item_BD.grad).all()


def test_an_item_tower_reads_the_pooled_item_features():
    dims = dataclasses.replace(DIMS, attributes=4)
    model = build(dims=dims, item_tower="mlp", output_dim=5, item_hidden_dims=(6, 7))
    _, items = users_and_items(dims=dims)
    assert model.item_vectors(items).shape == (5, 5)
    other = items._replace(attributes_BA=items.attributes_BA + 1.0)
    assert not torch.allclose(model.item_vectors(items), model.item_vectors(other))


def num_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_number_of_parameters_is_that_of_table_2():
    """0.187M with diffusion and 0.126M without, of which 3,648 items of width 32 are 0.117M."""
    dims = InputDims(profile=0, attributes=0, position=32, history_len=50, context=(("hist_time_lag", 30),))
    t2diff, mixed = (T2Diff(T2DiffConfig(use_diffusion=use), dims=dims) for use in (True, False))
    items = 3_648 * 32
    assert 0.185e6 < num_parameters(t2diff) + items < 0.205e6
    assert 0.125e6 < num_parameters(mixed) + items < 0.142e6
    assert 0.055e6 < num_parameters(t2diff) - num_parameters(mixed) < 0.065e6  # the U-Net: 0.061M


CASES = [
    ({"use_diffusion": True, "attention": dataclasses.replace(ATTENTION, session="gap")}, DIMS),
    ({"use_diffusion": False, "attention": dataclasses.replace(ATTENTION, session="gap", time_lag=None)}, DIMS),
    (
        {"item_tower": "mlp", "max_norm": 1.5, "attention": dataclasses.replace(ATTENTION, time_lag=None)},
        dataclasses.replace(DIMS, attributes=4, profile=0, context=()),
    ),
    ({"use_diffusion": False}, dataclasses.replace(DIMS, profile=0)),
]


@pytest.mark.parametrize(("options", "dims"), CASES, ids=["gap", "gap, no diffusion, no lag", "mlp, bare", "no diffusion"])
def test_every_form_scripts_and_takes_rows_of_any_length(options, dims):
    model = build(dims=dims, **options).eval()
    scripted = torch.jit.script(model)
    for lengths in (LENGTHS, [0, 0], [1]):
        users, items = _inputs(lengths, dims)
        noise_BX = torch.randn(len(lengths), model.serving_noise_size)
        served_BC = model.user_vectors(users, noise_BX)
        assert torch.isfinite(served_BC).all()
        torch.testing.assert_close(scripted.user_vectors(users, noise_BX), served_BC, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(scripted.item_vectors(items), model.item_vectors(items), atol=1e-6, rtol=1e-5)
        noise = training_noise(model, len(lengths))
        torch.testing.assert_close(tuple(scripted(users, items, *noise)), tuple(model(users, items, *noise)), atol=1e-6, rtol=1e-5)


def _inputs(lengths, dims):
    users, items = users_and_items(lengths, dims=dataclasses.replace(dims, context=CONTEXT))
    return UserInputs(users.profile_BU, users.history_JD, users.history_lengths_B, users.context_JF[:, : len(dims.context)]), items


@pytest.mark.parametrize(
    ("options", "dims", "message"),
    [
        ({}, dataclasses.replace(DIMS, context=()), r"attention.time_lag='hist_time_lag' is no history feature of the inputs"),
        (
            {"attention": dataclasses.replace(ATTENTION, session="gap", new_session="begins")},
            DIMS,
            r"new_session='begins' is no history feature of the inputs, which have \['hist_new_session', 'hist_time_lag'\]",
        ),
        ({}, dataclasses.replace(DIMS, position=0), "needs a history whose id space the item shares"),
        ({}, dataclasses.replace(DIMS, history_len=0), "needs a history whose id space the item shares"),
        ({}, dataclasses.replace(DIMS, attributes=4), "uses no pooled item features .width 4."),
        ({"output_dim": 5}, DIMS, "gives vectors of width 8 .* but output_dim=5"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(options, dims, message):
    with pytest.raises(ValueError, match=message):
        build(dims=dims, **options)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("item_tower", "tree", r"T2DiffConfig.item_tower='tree', expected one of \('embedding', 'mlp'\)"),
        ("output_dim", 0, "output_dim=0, .* expected widths of at least 1"),
        ("item_hidden_dims", (4, 0), r"item_hidden_dims=\(4, 0\), expected widths of at least 1"),
        ("diffusion_weight", -0.1, "T2DiffConfig.diffusion_weight=-0.1, expected at least 0"),
        ("max_norm", 0.0, "T2DiffConfig.max_norm=0.0, expected more than 0, or None"),
    ],
)
def test_a_wrong_value_is_refused_by_name(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **{field: value})
