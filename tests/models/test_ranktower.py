import pytest
import torch
import torch.nn.functional as F

from models.ranktower import CrossAttentionScorer, GatedCrossAttention, RankTower, RankTowerConfig
from models.two_tower import TwoTower, TwoTowerConfig
from tests.models.synthetic import DIMS, random_inputs

WIDTH, USER_HEADS, ITEM_HEADS, HEAD = 16, 2, 3, 5


def build_scorer():
    torch.manual_seed(0)
    return CrossAttentionScorer(WIDTH, num_user_heads=USER_HEADS, num_item_heads=ITEM_HEADS, head_dim=HEAD)


def test_default_config_stores_as_much_as_two_tower():
    config = RankTowerConfig()
    assert config.num_item_heads * config.head_dim == TwoTowerConfig().tower.hidden_dims[-1]


def test_cross_attention_equals_its_loop_form():
    torch.manual_seed(0)
    attention, asking_BXP, asked_BYP = GatedCrossAttention(HEAD), torch.randn(4, 2, HEAD), torch.randn(4, 3, HEAD)
    found = attention(asking_BXP, asked_BYP)
    for row in range(4):
        for asking in range(2):
            x_P = asking_BXP[row, asking]
            scores = [torch.dot(attention.query(x_P), attention.key(asked_BYP[row, asked])) / HEAD**0.5 for asked in range(3)]
            shares = torch.softmax(torch.stack(scores), dim=0)
            context_P = sum(shares[asked] * attention.value(asked_BYP[row, asked]) for asked in range(3))
            gate_P = 1 / (1 + torch.exp(-attention.gate(x_P)))
            torch.testing.assert_close(found[row, asking], x_P + gate_P * context_P)


def test_a_closed_gate_lets_nothing_of_the_other_side_through():
    attention, asking_BXP, asked_BYP = GatedCrossAttention(HEAD), torch.randn(4, 2, HEAD), torch.randn(4, 3, HEAD)
    assert not torch.allclose(attention(asking_BXP, asked_BYP), asking_BXP)
    torch.nn.init.constant_(attention.gate.bias, -100.0)
    torch.testing.assert_close(attention(asking_BXP, asked_BYP), asking_BXP)


def test_the_score_equals_its_loop_form():
    scorer, user_BC, item_BC = build_scorer(), torch.randn(4, WIDTH), torch.randn(4, WIDTH)
    logit_B = scorer(user_BC, item_BC)
    user_BUP, item_BVP = scorer.project_user(user_BC), scorer.project_item(item_BC)
    for row in range(4):
        users = scorer.user_attention(user_BUP[row], item_BVP[row])
        items = scorer.item_attention(item_BVP[row], user_BUP[row])
        total = sum(max(F.cosine_similarity(user, item, dim=0) for item in items) for user in users)
        torch.testing.assert_close(logit_B[row], 10.0 * total / USER_HEADS)


def test_a_towers_gate_scales_each_number_of_a_head():
    scorer, user_BC, item_BC = build_scorer(), torch.randn(4, WIDTH), torch.randn(4, WIDTH)
    for project, heads, gates, input_BC in (
        (scorer.project_user, scorer.user_heads, scorer.user_gates, user_BC),
        (scorer.project_item, scorer.item_heads, scorer.item_gates, item_BC),
    ):
        expected = heads(input_BC) / (1 + torch.exp(-gates(input_BC)))
        torch.testing.assert_close(project(input_BC).flatten(1), expected)


def test_either_side_sees_the_other():
    scorer, user_BUP, item_BVP = build_scorer(), torch.randn(1, USER_HEADS, HEAD), torch.randn(1, ITEM_HEADS, HEAD)
    other_BVP, other_BUP = torch.randn(1, ITEM_HEADS, HEAD), torch.randn(1, USER_HEADS, HEAD)
    assert not torch.allclose(scorer.user_attention(user_BUP, item_BVP), scorer.user_attention(user_BUP, other_BVP))
    assert not torch.allclose(scorer.item_attention(item_BVP, user_BUP), scorer.item_attention(item_BVP, other_BUP))


def test_the_towers_are_two_towers():
    models = []
    for build in (
        lambda: RankTower(RankTowerConfig(num_user_heads=1, head_dim=8), dims=DIMS),
        lambda: TwoTower(TwoTowerConfig(), dims=DIMS),
    ):
        torch.manual_seed(0)
        models.append(build())
    ours, theirs = ({name for name in model.state_dict() if not name.startswith("scorer.")} for model in models)
    assert ours == theirs
    models[0].load_state_dict(models[1].state_dict(), strict=False)
    users, items = random_inputs(6)
    assert torch.equal(models[0].user_tower(users), models[1].user_tower(users))
    assert torch.equal(models[0].item_tower(items), models[1].item_tower(items))


@pytest.mark.parametrize("name", ["num_user_heads", "num_item_heads", "head_dim"])
def test_a_field_outside_its_range_is_refused(name):
    with pytest.raises(ValueError, match=f"RankTowerConfig.{name}=0"):
        RankTowerConfig(**{name: 0})
