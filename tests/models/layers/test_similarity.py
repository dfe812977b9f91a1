import pytest
import torch
import torch.nn.functional as F

from models.layers.similarity import LSS, DotProduct, FlattenFC, SumMax

# B rows, C tower width, U and V heads, P head width, D scorer width
HEADS = {"num_user_heads": 2, "num_item_heads": 3, "head_dim": 5}


def towers(rows=6, width=8):
    torch.manual_seed(0)
    return torch.randn(rows, width), torch.randn(rows, width)


def shapes(module):
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def test_lss_has_the_settled_shapes():
    assert shapes(LSS(8, hidden_dim=4, **HEADS)) == {
        "user_heads.weight": (10, 8),
        "user_heads.bias": (10,),
        "item_heads.weight": (15, 8),
        "item_heads.bias": (15,),
        "row.weight": (4, 3),  # W1 is d×H_v
        "row.bias": (4,),
        "column.weight": (4, 2),  # W2 is d×H_u
        "column.bias": (4,),
        "output_DD": (4, 4),  # w ∈ R^{d²}, no bias
    }


def test_flatten_fc_has_the_settled_shapes():
    assert shapes(FlattenFC(8, hidden_dim=4, **HEADS)) | {"user_heads.weight": 0, "item_heads.weight": 0} == {
        "user_heads.weight": 0,
        "user_heads.bias": (10,),
        "item_heads.weight": 0,
        "item_heads.bias": (15,),
        "hidden.weight": (4, 6),
        "hidden.bias": (4,),  # b3 ∈ R^d
        "output.weight": (1, 4),
    }


def test_sum_max_adds_each_user_heads_best_item_head():
    scorer = SumMax(8, **HEADS)
    user, item = towers()
    user_BUP, item_BVP = scorer.project_user(user), scorer.project_item(item)
    expected = [sum(max((u @ v).item() for v in item_BVP[b]) for u in user_BUP[b]) for b in range(6)]
    torch.testing.assert_close(scorer(user, item), torch.tensor(expected))


def test_flatten_fc_is_a_layer_on_the_flattened_similarity_matrix():
    scorer = FlattenFC(8, hidden_dim=4, **HEADS)
    user, item = towers()
    similarity = torch.einsum("bup,bvp->buv", scorer.project_user(user), scorer.project_item(item)).flatten(1)
    expected = F.relu(similarity @ scorer.hidden.weight.t() + scorer.hidden.bias) @ scorer.output.weight[0]
    torch.testing.assert_close(scorer(user, item), expected)


def test_heads_see_the_towers_outputs_before_any_normalisation():
    scorer = LSS(8, **HEADS)
    user, _ = towers()
    torch.testing.assert_close(scorer.project_user(user).flatten(1), scorer.user_heads(user))
    assert not torch.allclose(scorer.project_user(2 * user), scorer.project_user(user))


def test_dot_product_is_a_scaled_and_shifted_cosine():
    scorer = DotProduct()
    user, item = towers()
    cosine = F.cosine_similarity(user, item)
    torch.testing.assert_close(scorer(user, item), 10 * (cosine - 0.5))
    torch.testing.assert_close(scorer(3 * user, 0.1 * item), scorer(user, item))


def test_dot_product_of_a_dead_tower_has_finite_gradients():
    scorer = DotProduct()
    user, item = torch.zeros(2, 8, requires_grad=True), torch.randn(2, 8)
    logit = scorer(user, item)
    logit.sum().backward()
    torch.testing.assert_close(logit, torch.full((2,), -5.0))
    assert torch.isfinite(user.grad).all()


@pytest.mark.parametrize("scorer", [DotProduct(), SumMax(8, **HEADS), FlattenFC(8, **HEADS), LSS(8, **HEADS)])
def test_score_of_projections_broadcasts_over_candidates_and_scripts(scorer):
    user, item = towers()
    user_B1HP, item_1KHP = scorer.project_user(user).unsqueeze(1), scorer.project_item(item).unsqueeze(0)
    score_BK = scorer.score(user_B1HP, item_1KHP)
    assert score_BK.shape == (6, 6)
    torch.testing.assert_close(score_BK.diagonal(), scorer(user, item))
    torch.testing.assert_close(torch.jit.script(scorer).score(user_B1HP, item_1KHP), score_BK)
