import dataclasses

import pytest
import torch

from models import build_task
from models.embeddings import EmbeddingConfig
from models.gru4rec import GRU4Rec, GRU4RecConfig
from models.types import InputDims
from tests.models.small_sequences import DIMS, LENGTHS, STARTS, histories, random_weights, served, shortened, trained
from tests.models.synthetic import NEXT_ITEM_SCHEMA, catalogue_of, random_batch


def build(*, dims=DIMS, **options):
    return random_weights(GRU4Rec(GRU4RecConfig(**{"hidden_dim": 5, "dropout": 0.0} | options), dims=dims))


def by_loop(model, history_LD):
    """The user vector of one history by the unit's equations, one behaviour after another."""
    gru, h_H = model.gru, torch.zeros(model.hidden_dim)
    for x_D in history_LD:
        from_x = gru.weight_ih_l0 @ x_D + gru.bias_ih_l0
        from_h = gru.weight_hh_l0 @ h_H + gru.bias_hh_l0
        (r_x, z_x, n_x), (r_h, z_h, n_h) = from_x.chunk(3), from_h.chunk(3)
        reset, keep = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
        h_H = (1 - keep) * torch.tanh(n_x + reset * n_h) + keep * h_H
    return model.output(h_H)


def test_a_user_vector_is_what_the_equations_give_behaviour_by_behaviour():
    model, (users, _) = build(), histories()
    expected = [by_loop(model, history_LD) for history_LD in users.history_JD.split(LENGTHS)]
    torch.testing.assert_close(served(model, users), torch.stack(expected), atol=1e-6, rtol=1e-5)


def test_the_full_softmax_loss_is_the_mean_cross_entropy_of_the_loops():
    torch.manual_seed(0)
    embeddings = EmbeddingConfig(dim=8, init_std=0.5, features=("hist_item", "item"))
    config = GRU4RecConfig(hidden_dim=5, dropout=0.0)
    task = build_task(config, schema=NEXT_ITEM_SCHEMA, embeddings=embeddings, catalogue=catalogue_of())
    task.model = random_weights(task.model)
    batch = random_batch(7, schema=NEXT_ITEM_SCHEMA, history_lengths=[0, 3, 12, 1, 5, 0, 2])
    table_MD = task.embeddings.sequence.embeddings["t_item"].weight
    jagged = batch.sequence["hist_item"]
    users = [by_loop(task.model, table_MD[ids]) for ids in jagged.values().split(jagged.lengths().tolist())]
    expected = torch.nn.functional.cross_entropy(torch.stack(users) @ table_MD.t(), batch.sequence["item"].values())
    torch.testing.assert_close(task(batch)[0], expected)


def test_more_padding_changes_nothing():
    users, _ = histories()
    longer = build(dims=dataclasses.replace(DIMS, history_len=11))
    torch.testing.assert_close(served(longer, users), served(build(), users), atol=1e-6, rtol=0)


def test_at_every_position_the_history_up_to_there_finds_the_next_behaviour():
    model, (users, items) = build(all_positions=True, num_layers=2), histories()
    found = trained(model, users, items)
    assert model.predicts_history
    torch.testing.assert_close(found.user_BC, served(model, users))
    prefixes = [(row, length) for row, longest in enumerate(LENGTHS) for length in range(1, longest)]
    assert found.cloze_place_X.tolist() == [STARTS[row] + length for row, length in prefixes]
    expected = [served(model, shortened(users, row, length)) for row, length in prefixes]
    torch.testing.assert_close(found.cloze_XC, torch.cat(expected), atol=1e-6, rtol=1e-5)


def test_dropout_acts_in_training_alone():
    model, (users, items) = build(dropout=0.5), histories()
    assert torch.equal(served(model, users), served(build(), users))
    model.train()
    assert not torch.equal(trained(model, users, items).user_BC, trained(model, users, items).user_BC)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "GRU4RecConfig.num_layers=0, expected at least 1"),
        ({"hidden_dim": 0}, "GRU4RecConfig.hidden_dim=0, expected at least 1"),
        ({"dropout": 1.0}, "GRU4RecConfig.dropout=1.0, expected 0 <= dropout < 1"),
    ],
)
def test_a_wrong_value_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_inputs_without_history_are_refused():
    with pytest.raises(ValueError, match="GRU4Rec needs a history whose id space the item shares"):
        build(dims=InputDims(profile=3, attributes=0, position=0))
