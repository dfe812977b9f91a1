import dataclasses

import pytest
import torch
import torch.nn.functional as F

from models import build_task
from models.embeddings import EmbeddingConfig
from models.inttower import IntTower, IntTowerConfig
from models.layers.mlp import TowerConfig
from models.types import InputDims
from tests.models.synthetic import DIMS, SCHEMA, evaluate, random_batch, random_inputs, random_statistics

# B rows, H heads of all user layers, V item heads, P head width, K candidates
SMALL = IntTowerConfig(tower=TowerConfig(hidden_dims=(7, 6, 5)), num_user_heads=2, num_item_heads=3, head_dim=4)


def build(config=SMALL, *, seed=0):
    torch.manual_seed(seed)
    return IntTower(config, dims=DIMS)


def task_of(config):
    torch.manual_seed(0)
    return build_task(config, schema=SCHEMA, embeddings=EmbeddingConfig(dim=4))


def test_sum_max_equals_its_loop_form():
    model = random_statistics(build())
    users, items = random_inputs(5)
    layers, item_BC = model.user_layers(users), model.item_tower(items)
    for row, logit in enumerate(model(users, items, torch.ones(5)).logit_B.tolist()):
        item_heads = model.item_heads(item_BC[row]).split(4)
        expected = model.bias.item()
        for project, layer_BX in zip(model.user_heads, layers, strict=True):
            for user_head in project(layer_BX[row]).split(4):
                expected += max((user_head @ item_head).item() for item_head in item_heads)
        assert logit == pytest.approx(expected, abs=1e-6)


def test_candidates_are_scored_each_on_its_own():
    model = random_statistics(build())
    users, items = random_inputs(6)
    user_BNHP, item_BVP = model.all_user_vectors(users), model.item_vectors(items).item_BHP
    together_BK = model.score_candidates(user_BNHP, torch.zeros(6, 6, dtype=torch.int64), item_BVP.expand(6, -1, -1, -1))
    for place in range(6):
        alone_B1 = model.score_candidates(user_BNHP, torch.zeros(6, 1, dtype=torch.int64), item_BVP[place].expand(6, 1, -1, -1))
        torch.testing.assert_close(alone_B1.squeeze(1), together_BK[:, place])


def test_users_have_heads_of_every_layer_and_items_of_the_last_one():
    model = random_statistics(build())
    users, items = random_inputs(5)
    assert model.all_user_vectors(users).shape == (5, 1, 3 * 2, 4)
    assert model.item_vectors(items).item_BHP.shape == (5, 3, 4)
    expected_B = model(users, items, torch.ones(5)).logit_B
    for project in model.user_heads:
        with torch.no_grad():
            project.weight.mul_(1.5)
        logit_B = model(users, items, torch.ones(5)).logit_B
        assert not torch.allclose(logit_B, expected_B, atol=1e-5)
        expected_B = logit_B


def test_an_item_takes_eight_times_as_many_numbers_as_two_towers():
    _, items = random_inputs(2)
    assert build(IntTowerConfig()).item_vectors(items).item_BHP[0].numel() == 8 * 128


@pytest.mark.parametrize("num_heads", [1, 4, 32])
def test_logits_start_near_0_with_any_number_of_heads(num_heads):
    users, items = random_inputs(200)
    model = build(IntTowerConfig(num_user_heads=num_heads, num_item_heads=num_heads))
    logit_B = model(users, items, torch.ones(200)).logit_B
    assert logit_B.abs().max() < 4


def test_the_contrastive_interaction_is_in_the_loss_with_its_weight():
    batch, losses = random_batch(24), []
    for weight in (0.0, 0.5, 1.0):
        task = task_of(dataclasses.replace(SMALL, contrast_weight=weight))
        loss, out = task(batch)
        entropy = F.binary_cross_entropy_with_logits(out.logit_B, out.label_B)
        torch.testing.assert_close(loss.detach(), entropy + out.auxiliary_B.mean())
        assert torch.equal(out.auxiliary_B > 0, (out.label_B > 0) & (weight > 0))
        losses.append(out.auxiliary_B.mean().item())
    assert losses[0] == 0
    assert losses[2] == pytest.approx(2 * losses[1])
    assert evaluate(task, batch).auxiliary_B.abs().sum() == 0


def test_the_contrastive_interaction_reaches_both_towers_and_the_fields_and_not_the_heads():
    model = build()
    users, items = random_inputs(12)
    model(users, items, torch.arange(12) % 2.0).auxiliary_B.sum().backward()
    for name, parameter in model.named_parameters():
        if name == "bias" or "_heads." in name:
            assert parameter.grad is None, name
        else:
            assert (parameter.grad != 0).any(), name


def test_steps_on_the_contrastive_interaction_alone_bring_a_user_and_its_positive_together():
    model = build()
    users, items = random_inputs(16)
    label_B = torch.arange(16) % 2.0
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def mean_cosines():
        cosine_BB = F.cosine_similarity(model.user_layers(users)[-1][:, None], model.item_tower(items)[None], dim=2)[label_B > 0]
        own_X = cosine_BB[:, label_B > 0].diagonal()
        return own_X.mean().item(), cosine_BB.mean().item()

    before, company_before = mean_cosines()
    for _ in range(40):
        optimizer.zero_grad()
        model(users, items, label_B).auxiliary_B.mean().backward()
        optimizer.step()
    after, company = mean_cosines()
    assert after > before + 0.1
    assert after - company > before - company_before + 0.2


def test_fields_must_be_known():
    with pytest.raises(ValueError, match=r"profile_fields=\(\), but the model weights fields"):
        IntTower(SMALL, dims=InputDims(profile=4, attributes=0, position=4, position_fields=(("item", 4),)))


@pytest.mark.parametrize(
    "fields",
    [{"num_user_heads": 0}, {"num_item_heads": 0}, {"head_dim": 0}, {"contrast_weight": -0.1}, {"contrast_temperature": 0.0}],
)
def test_bad_config_names_the_field(fields):
    with pytest.raises(ValueError, match=f"IntTowerConfig.{next(iter(fields))}="):
        IntTowerConfig(**fields)
