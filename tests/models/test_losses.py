import math

import pytest
import torch
import torch.nn.functional as F

from models.losses import category_alignment, full_softmax, mixed_log_expected_count, sampled_softmax


def vectors(
    rows: int, items: int, *, dim: int = 7, dtype: torch.dtype = torch.float32, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Users, items, targets; the vectors want gradients."""
    random = torch.Generator().manual_seed(rows + 1000 * items)
    user_BC, item_MC = (scale * torch.randn(n, dim, generator=random, dtype=torch.float64) for n in (rows, items))
    target_B = torch.randint(items, (rows,), generator=random)
    return user_BC.to(dtype).requires_grad_(), item_MC.to(dtype).requires_grad_(), target_B


def loss_and_gradients(loss_B: torch.Tensor, weight_B: torch.Tensor, *leaves: torch.Tensor) -> list[torch.Tensor]:
    return [loss_B.detach(), *torch.autograd.grad((loss_B * weight_B).sum(), leaves)]


@pytest.mark.parametrize("rows", [1, 63, 100])
@pytest.mark.parametrize(("items", "chunk_items"), [(1, 1), (63, 64), (63, 63), (100, 1), (100, 33), (101, 100)])
def test_full_softmax_is_cross_entropy_over_the_catalogue_however_it_is_cut(rows: int, items: int, chunk_items: int) -> None:
    user_BC, item_MC, target_B = vectors(rows, items)
    weight_B = torch.linspace(-1, 2, rows)
    found = loss_and_gradients(full_softmax(user_BC, item_MC, target_B, chunk_items=chunk_items), weight_B, user_BC, item_MC)
    direct_B = F.cross_entropy(user_BC @ item_MC.t(), target_B, reduction="none")
    expected = loss_and_gradients(direct_B, weight_B, user_BC, item_MC)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6 * max(1.0, float(theirs.abs().max())), rtol=0)


@pytest.mark.parametrize("chunk_items", [1, 4, 11])
def test_gradients_of_full_softmax_are_those_of_finite_differences(chunk_items: int) -> None:
    user_BC, item_MC, target_B = vectors(5, 11, dim=3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda user, item: full_softmax(user, item, target_B, chunk_items=chunk_items), (user_BC, item_MC)
    )


@pytest.mark.parametrize("needed", ["user", "item"])
def test_full_softmax_gives_the_one_gradient_that_is_wanted(needed: str) -> None:
    user_BC, item_MC, target_B = vectors(6, 10)
    frozen, wanted = (item_MC, user_BC) if needed == "user" else (user_BC, item_MC)
    expected = torch.autograd.grad(F.cross_entropy(user_BC @ item_MC.t(), target_B, reduction="sum"), wanted)[0]
    frozen.requires_grad_(requires_grad=False)
    full_softmax(user_BC, item_MC, target_B, chunk_items=4).sum().backward()
    torch.testing.assert_close(wanted.grad, expected)
    assert frozen.grad is None


def test_full_softmax_never_holds_the_scores_of_the_whole_catalogue() -> None:
    rows, items, chunk_items = 20, 1000, 50
    user_BC, item_MC, target_B = vectors(rows, items)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            largest = max(
                [largest, *(t.numel() for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, torch.Tensor))]
            )
            return out

    with Watch():
        full_softmax(user_BC, item_MC, target_B, chunk_items=chunk_items).sum().backward()
    assert item_MC.grad is not None
    assert largest == item_MC.numel() < rows * items  # the gradient of the items is the largest thing there is


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_full_softmax_of_16_bit_vectors_accumulates_in_float32(dtype: torch.dtype) -> None:
    user_BC, item_MC, target_B = vectors(40, 500, dtype=dtype)
    weight_B = torch.ones(40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found_B = full_softmax(user_BC, item_MC, target_B, chunk_items=64)
    wide = [tensor.detach().float().requires_grad_() for tensor in (user_BC, item_MC)]
    expected = loss_and_gradients(F.cross_entropy(wide[0] @ wide[1].t(), target_B, reduction="none"), weight_B, *wide)
    loss_B, *gradients = loss_and_gradients(found_B, weight_B, user_BC, item_MC)
    assert loss_B.dtype == torch.float32
    torch.testing.assert_close(loss_B, expected[0], atol=1e-5, rtol=1e-6)
    for mine, theirs in zip(gradients, expected[1:], strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine, theirs.to(dtype), atol=1e-6, rtol=torch.finfo(dtype).eps)


def test_full_softmax_of_large_scores_stays_finite() -> None:
    user_BC, item_MC, target_B = vectors(8, 90, scale=40.0)
    found = loss_and_gradients(full_softmax(user_BC, item_MC, target_B, chunk_items=7), torch.ones(8), user_BC, item_MC)
    assert all(bool(tensor.isfinite().all()) for tensor in found)
    torch.testing.assert_close(
        found[0], F.cross_entropy(user_BC.double() @ item_MC.double().t(), target_B, reduction="none").float()
    )


def test_full_softmax_of_no_rows_has_zero_gradients() -> None:
    user_BC, item_MC, target_B = vectors(0, 9)
    loss_B = full_softmax(user_BC, item_MC, target_B, chunk_items=4)
    assert loss_B.shape == (0,)
    loss_B.sum().backward()
    assert bool((item_MC.grad == 0).all())


@pytest.mark.parametrize("target", [-100, -1, 5])
def test_a_target_outside_the_catalogue_is_refused(target: int) -> None:
    user_BC, item_MC, _ = vectors(3, 5)
    with pytest.raises(ValueError, match=rf"target_B\[1\]={target}, expected an item in \[0, 5\)"):
        full_softmax(user_BC, item_MC, torch.tensor([0, target, 4]), chunk_items=2)


def test_full_softmax_refuses_shapes_and_chunks_that_make_no_sense() -> None:
    user_BC, item_MC, target_B = vectors(3, 5)
    with pytest.raises(ValueError, match="chunk_items=0 of 5 items"):
        full_softmax(user_BC, item_MC, target_B, chunk_items=0)
    with pytest.raises(ValueError, match="of 0 items"):
        full_softmax(user_BC, item_MC[:0], target_B, chunk_items=1)
    with pytest.raises(ValueError, match="expected \\[B, C\\]"):
        full_softmax(user_BC, item_MC[:, :2], target_B, chunk_items=1)
    with pytest.raises(ValueError, match="targets \\(2,\\)"):
        full_softmax(user_BC, item_MC, target_B[:2], chunk_items=1)


def popularity(items: int) -> torch.Tensor:
    return torch.log_softmax(torch.arange(items).flip(0) / items * 3, 0)


def sampled(
    user_BC: torch.Tensor, item_MC: torch.Tensor, target_B: torch.Tensor, candidate_K: torch.Tensor, log_count_K: torch.Tensor
):
    return sampled_softmax(
        user_BC,
        item_MC[target_B],
        item_MC[candidate_K],
        target_B=target_B,
        candidate_K=candidate_K,
        log_expected_count_K=log_count_K,
    )


def test_gradients_of_the_sampled_loss_approach_the_full_ones_in_expectation_as_candidates_grow() -> None:
    user_BC, item_MC, target_B = vectors(32, 200, dtype=torch.float64)
    weight_B, log_q_M = torch.ones(32, dtype=torch.float64), popularity(200)
    exact = loss_and_gradients(full_softmax(user_BC, item_MC, target_B, chunk_items=200), weight_B, user_BC, item_MC)
    random = torch.Generator().manual_seed(4)
    errors = []
    for size in (16, 128, 1024):
        means = [torch.zeros_like(tensor) for tensor in exact]
        draws = 60
        for _ in range(draws):
            popular = torch.multinomial(log_q_M.exp(), size, replacement=True, generator=random)
            candidate_K = torch.cat([popular, torch.randint(200, (size,), generator=random)])
            log_count_K = mixed_log_expected_count(candidate_K, log_q_M, num_in_batch=size, num_uniform=size)
            parts = loss_and_gradients(sampled(user_BC, item_MC, target_B, candidate_K, log_count_K), weight_B, user_BC, item_MC)
            means = [mean + part / draws for mean, part in zip(means, parts, strict=True)]
        errors.append([float((mean - full).norm() / full.norm()) for mean, full in zip(means, exact, strict=True)])
    for coarse, middle, fine in zip(*errors, strict=True):
        assert coarse > 2 * middle > 4 * fine, errors
        assert fine < 0.03, errors


def test_the_estimate_of_the_normaliser_is_unbiased_with_in_batch_positives_and_accidental_hits() -> None:
    """Exact expectation over every batch of 3 rows: the first row's own target is item 1, the other two rows' are drawn from q."""
    user_BC, item_MC, _ = vectors(3, 4, dtype=torch.float64)
    user_BC, item_MC = user_BC.detach(), item_MC.detach()
    log_q_M = torch.tensor([0.6, 0.2, 0.2, 0.0], dtype=torch.float64).log()
    own = 1
    expected = 0.0
    for second in range(4):
        for third in range(4):
            for uniform in range(4):
                target_B = torch.tensor([own, second, third])
                candidate_K = torch.cat([target_B, torch.tensor([uniform])])
                log_count_K = mixed_log_expected_count(candidate_K, log_q_M, num_in_batch=2, num_uniform=1)
                loss = sampled(user_BC[:1], item_MC, target_B[:1], candidate_K, log_count_K)[0]
                normaliser = loss.exp() * (user_BC[0] @ item_MC[own]).exp()
                expected += float(normaliser * log_q_M[second].exp() * log_q_M[third].exp() / 4)
    exact = float((item_MC @ user_BC[0]).exp().sum())
    assert expected == pytest.approx(exact, rel=1e-6)  # counts are float32


def test_every_item_drawn_once_makes_the_sampled_loss_the_full_one() -> None:
    user_BC, item_MC, target_B = vectors(63, 100)
    found_B = sampled(user_BC, item_MC, target_B, torch.arange(100), torch.zeros(100))
    torch.testing.assert_close(found_B, full_softmax(user_BC, item_MC, target_B, chunk_items=30), atol=1e-5, rtol=1e-6)


def test_a_row_whose_candidates_are_all_its_target_has_no_loss_and_no_gradient() -> None:
    user_BC, item_MC, target_B = vectors(1, 3)
    loss_B = sampled(user_BC, item_MC, target_B, target_B.repeat(5), torch.zeros(5))
    assert loss_B.item() == 0
    loss_B.sum().backward()
    assert bool((user_BC.grad == 0).all())
    assert bool((item_MC.grad == 0).all())


def test_the_sampled_loss_of_bfloat16_vectors_is_float32_whatever_autocast_says() -> None:
    user_BC, item_MC, target_B = vectors(9, 50, dtype=torch.bfloat16)
    candidate_K = torch.arange(0, 50, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found_B = sampled(user_BC, item_MC, target_B, candidate_K, torch.ones(17))
    expected_B = sampled(user_BC.float(), item_MC.float(), target_B, candidate_K, torch.ones(17))
    assert found_B.dtype == torch.float32
    assert torch.equal(found_B, expected_B)


def test_expected_counts_are_those_of_both_kinds_of_draws() -> None:
    log_q_M = torch.tensor([0.7, 0.3, 0.0, 0.0]).log()
    found = mixed_log_expected_count(torch.tensor([0, 2, 0]), log_q_M, num_in_batch=10, num_uniform=8).exp()
    torch.testing.assert_close(found, torch.tensor([9.0, 2.0, 9.0]))
    assert mixed_log_expected_count(torch.tensor([3]), log_q_M, num_in_batch=10, num_uniform=0).item() == -math.inf


def test_sampled_softmax_refuses_what_makes_no_sense() -> None:
    user_BC, item_MC, target_B = vectors(3, 5)
    none = torch.empty(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="0 candidate vectors"):
        sampled(user_BC, item_MC, target_B, none, torch.empty(0))
    with pytest.raises(ValueError, match="expected counts \\(1,\\)"):
        sampled(user_BC, item_MC, target_B, torch.tensor([0, 1]), torch.zeros(1))
    with pytest.raises(ValueError, match="expected \\[B, C\\], \\[B, C\\], \\[K, C\\], \\[B\\]"):
        sampled(user_BC[:2], item_MC, target_B, torch.tensor([0]), torch.zeros(1))
    with pytest.raises(ValueError, match="num_in_batch=0, num_uniform=0"):
        mixed_log_expected_count(target_B, torch.zeros(5), num_in_batch=0, num_uniform=0)
    with pytest.raises(ValueError, match="log_q_M has shape"):
        mixed_log_expected_count(target_B, torch.zeros(5, 1), num_in_batch=1, num_uniform=0)


def alignment_in_a_loop(item_BC: torch.Tensor, category_B: torch.Tensor, *, min_rows: int) -> torch.Tensor:
    groups = [item_BC[category_B == category] for category in category_B.unique()]
    major = torch.cov(max(groups, key=len).t())
    return sum((torch.cov(group.t()) - major).square().sum() for group in groups if len(group) >= min_rows)


def test_category_alignment_equals_its_loop_form_and_leaves_small_categories_out() -> None:
    torch.manual_seed(0)
    item_BC, category_B = torch.randn(30, 5), torch.tensor([0] * 12 + [1] * 9 + [2] * 6 + [3] * 2 + [4])[torch.randperm(30)]
    vector_BD = torch.randn(5, 3)[category_B]
    found = [category_alignment(item_BC, vector_BD, min_rows=rows) for rows in (2, 3, 7)]
    for rows, loss in zip((2, 3, 7), found, strict=True):
        torch.testing.assert_close(loss, alignment_in_a_loop(item_BC, category_B, min_rows=rows))
    assert found[0] > found[1] > found[2] > 0
    assert category_alignment(item_BC, vector_BD, min_rows=10).item() == 0


def test_category_alignment_is_0_for_equal_covariances_wherever_the_means_are_and_its_gradient_brings_them_closer() -> None:
    torch.manual_seed(0)
    major_XC = torch.randn(8, 4)
    category_B1 = torch.tensor([0] * 8 + [1] * 8 + [2]).unsqueeze(1)
    equal_BC = torch.cat([major_XC, 3.0 - major_XC, torch.randn(1, 4)])
    assert category_alignment(equal_BC, category_B1, min_rows=2).item() < 1e-10
    item_BC = torch.cat([major_XC, 0.2 * torch.randn(8, 4), torch.randn(1, 4)]).requires_grad_()
    losses = []
    for _ in range(50):
        losses.append(category_alignment(item_BC, category_B1, min_rows=2))
        (gradient_BC,) = torch.autograd.grad(losses[-1], item_BC)
        item_BC = (item_BC - 0.1 * gradient_BC).detach().requires_grad_()
    assert losses[-1] < 0.2 * losses[0]
    assert not gradient_BC[-1].any()


def test_category_alignment_of_bfloat16_outputs_is_float32() -> None:
    item_BC, category_B1 = torch.randn(20, 4).bfloat16(), (torch.arange(20) % 3).unsqueeze(1)
    found = category_alignment(item_BC, category_B1, min_rows=2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, category_alignment(item_BC.float(), category_B1, min_rows=2))
