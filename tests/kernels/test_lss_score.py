import pytest
import torch

from kernels.lss_score import lss_score

# U user heads, V item heads, P head width, D scorer width


def random_weights(user_heads, item_heads, dim, dtype=torch.float64):
    shapes = [(dim, item_heads), (dim,), (dim, user_heads), (dim,), (dim, dim)]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def loop_score(user_UP, item_VP, weight1, bias1, weight2, bias2, weight3):
    """Eq. 13-16 entry by entry."""
    num_users, num_items, dim = len(user_UP), len(item_VP), len(bias1)
    similarity = torch.stack([torch.stack([user_UP[i] @ item_VP[j] for j in range(num_items)]) for i in range(num_users)])
    rows = torch.stack([torch.relu(weight1 @ similarity[i] + bias1) for i in range(num_users)])
    columns = torch.stack([torch.relu(weight2 @ rows[:, j] + bias2) for j in range(dim)], dim=1)
    return sum(weight3[i, j] * columns[i, j] for i in range(dim) for j in range(dim))


@pytest.mark.parametrize(("user_heads", "item_heads"), [(2, 2), (1, 3), (4, 1)])
def test_score_equals_the_explicit_loop_with_every_gradient(user_heads, item_heads):
    torch.manual_seed(0)
    user = torch.randn(5, user_heads, 7, dtype=torch.float64, requires_grad=True)
    item = torch.randn(5, item_heads, 7, dtype=torch.float64, requires_grad=True)
    weights = random_weights(user_heads, item_heads, 4)
    actual = lss_score(user, item, *weights)
    expected = torch.stack([loop_score(u, i, *weights) for u, i in zip(user, item, strict=True)])
    torch.testing.assert_close(actual, expected)
    scale = torch.randn_like(actual)
    ours = torch.autograd.grad((actual * scale).sum(), [user, item, *weights])
    theirs = torch.autograd.grad((expected * scale).sum(), [user, item, *weights])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_users_broadcast_over_candidates():
    torch.manual_seed(0)
    user_BUP, item_BKVP = torch.randn(3, 2, 6).double(), torch.randn(3, 8, 2, 6).double()
    weights = random_weights(2, 2, 4)
    score_BK = lss_score(user_BUP.unsqueeze(1), item_BKVP, *weights)
    assert score_BK.shape == (3, 8)
    for k in range(8):
        torch.testing.assert_close(score_BK[:, k], lss_score(user_BUP, item_BKVP[:, k], *weights))


def test_one_pair_without_leading_dimensions_gives_a_scalar():
    weights = random_weights(2, 3, 4)
    user, item = torch.randn(2, 6).double(), torch.randn(3, 6).double()
    score = lss_score(user, item, *weights)
    assert score.shape == ()
    torch.testing.assert_close(score, loop_score(user, item, *weights))


def test_shapes_that_do_not_fit_are_refused_by_name():
    weights = random_weights(2, 3, 4)
    with pytest.raises(ValueError, match=r"expected \[\.\.\., U, P\] and \[\.\.\., V, P\]"):
        lss_score(torch.zeros(1, 2, 5), torch.zeros(1, 3, 6), *weights)
    with pytest.raises(ValueError, match=r"weight1_DV has shape \(4, 3\), expected \(4, 2\)"):
        lss_score(torch.zeros(1, 2, 5), torch.zeros(1, 2, 5), *weights)
