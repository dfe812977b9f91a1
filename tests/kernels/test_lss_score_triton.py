"""The scorer's kernels compute what the references do: dense pairs with every gradient, and stored items with their best."""

import pytest
import torch
import triton
import triton.language as tl
from torch._subclasses.fake_tensor import FakeTensorMode

from kernels.lss_score import LSSWeights, StoredItems, launch, lss_score, reference, score_stored, top_stored
from kernels.lss_score.triton_serving import order_keys, scores_of
from tests.kernels.devices import KERNEL_DEVICE
from tests.kernels.poison import poisoned

# X pairs, U user heads, V item heads, P head width, D scorer width, B requests, N user vectors, K candidates, M items


@pytest.fixture(params=[launch.MANY_PAIRS, 0], ids=["small tiles", "large tiles"])
def _tiles(request, monkeypatch):
    """A test runs twice: with tiles for few pairs, which so few take, and with those for many, cut to a size that they fill."""
    monkeypatch.setattr(launch, "MANY_PAIRS", request.param)
    monkeypatch.setattr(launch, "LARGE_TILE", launch.LARGE_TILE | {"BLOCK_R": 32})
    monkeypatch.setattr(launch, "STORED_TILES", {kind: tile | {"BLOCK_R": 32} for kind, tile in launch.STORED_TILES.items()})


def random_pairs(num_pairs, *, heads=(2, 2), width=64, dim=16, dtype=torch.float32):
    """Vectors and weights of one type, on the device that runs kernels."""
    torch.manual_seed(num_pairs)
    shapes = [
        (num_pairs, heads[0], width),
        (num_pairs, heads[1], width),
        (dim, heads[1]),
        (dim,),
        (dim, heads[0]),
        (dim,),
        (dim, dim),
    ]
    return [(torch.randn(shape, device=KERNEL_DEVICE) / 2).to(dtype).requires_grad_() for shape in shapes]


def with_gradients(score, tensors):
    value = score(*tensors)
    torch.manual_seed(1)
    weight = torch.randn(value.shape, device=value.device).to(value.dtype)
    return [value, *torch.autograd.grad((value * weight).sum(), tensors)]


def fused(*tensors):
    with poisoned():
        return lss_score(*tensors, backend="triton")


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize(
    ("num_pairs", "heads", "width", "dim"), [(1, (2, 2), 64, 16), (63, (1, 3), 20, 5), (100, (4, 1), 7, 16), (33, (3, 2), 1, 1)]
)
def test_fused_score_equals_the_reference_with_every_gradient(num_pairs, heads, width, dim):
    tensors = random_pairs(num_pairs, heads=heads, width=width, dim=dim)
    with poisoned():
        found = with_gradients(fused, tensors)
    for ours, theirs in zip(found, with_gradients(reference.lss_score, tensors), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5 * max(1.0, theirs.abs().max().item()), rtol=0)


def test_fused_score_in_bfloat16_errs_no_more_than_the_reference_in_bfloat16():
    rough = random_pairs(63, dtype=torch.bfloat16)
    exact = with_gradients(reference.lss_score, [tensor.detach().double().requires_grad_() for tensor in rough])
    ours, theirs = with_gradients(fused, rough), with_gradients(reference.lss_score, rough)
    for place, (found, expected, baseline) in enumerate(zip(ours, exact, theirs, strict=True)):
        assert found.dtype == torch.bfloat16
        allowed = (2 if place == 0 else 5) * (baseline.double() - expected).abs().max()
        assert (found.double() - expected).abs().max() <= allowed


def test_users_broadcast_over_candidates_in_the_kernel_too():
    user, item, *weights = random_pairs(6, width=8)
    item_BKVP = item.unflatten(0, (3, 2))
    score_BK = lss_score(user[:3].unsqueeze(1), item_BKVP, *weights, backend="triton")
    torch.testing.assert_close(score_BK, reference.lss_score(user[:3].unsqueeze(1), item_BKVP, *weights))


@pytest.mark.usefixtures("_tiles")
def test_not_a_number_in_a_vector_reaches_its_logit_alone():
    user, item, *weights = [tensor.detach() for tensor in random_pairs(5, width=8)]
    user[2, 0, 3] = torch.nan
    assert lss_score(user, item, *weights, backend="triton").isnan().tolist() == [False, False, True, False, False]


def test_float64_is_refused_by_the_kernel_and_left_to_the_reference_by_auto():
    tensors = random_pairs(3, width=4, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"an input is torch.float64; choose backend"):
        lss_score(*tensors, backend="triton")
    assert lss_score(*tensors).dtype == torch.float64


def random_store(vector_type, *, index_type=torch.uint8, num_items=40, num_queries=5, heads=2, width=12):
    torch.manual_seed(0)
    vector_MX, scale_M = torch.randn(num_items, heads * width), None
    if vector_type == torch.int8:
        scale_M = vector_MX.abs().amax(1) / 127
        vector_MX = (vector_MX / scale_M[:, None]).round()
        scale_M = scale_M.to(KERNEL_DEVICE)
    index_M = None if index_type is None else torch.randint(num_queries, (num_items,)).to(index_type).to(KERNEL_DEVICE)
    return StoredItems(vector_MX.to(vector_type).to(KERNEL_DEVICE), scale_M, index_M)


def random_requests(num_requests, num_candidates, *, num_items=40, num_queries=5, width=12):
    torch.manual_seed(num_candidates)
    user_BNUP = torch.randn(num_requests, num_queries, 2, width, device=KERNEL_DEVICE)
    candidate_BK = torch.randint(-1, num_items, (num_requests, num_candidates), device=KERNEL_DEVICE)
    dim = 6
    shapes = [(dim, 2), (dim,), (dim, 2), (dim,), (dim, dim)]
    return user_BNUP, candidate_BK, LSSWeights(*[torch.randn(shape, device=KERNEL_DEVICE) for shape in shapes])


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize(
    ("vector_type", "index_type"),
    [(torch.float32, torch.uint8), (torch.float16, torch.uint16), (torch.int8, torch.uint8), (torch.bfloat16, None)],
)
def test_scores_of_stored_items_equal_the_reference(vector_type, index_type):
    user_BNUP, candidate_BK, weights = random_requests(3, 37)
    items = random_store(vector_type, index_type=index_type)
    expected_BK = score_stored(user_BNUP, items, candidate_BK, weights, backend="torch")
    with poisoned():
        found_BK = score_stored(user_BNUP, items, candidate_BK, weights, backend="triton")
    torch.testing.assert_close(found_BK, expected_BK, atol=1e-5 * expected_BK[candidate_BK >= 0].abs().max().item(), rtol=0)
    assert torch.equal(found_BK == -torch.inf, candidate_BK == -1)


@pytest.mark.parametrize(
    ("num_requests", "num_candidates", "vector_type", "rows"),
    [
        (1, 2000, torch.float16, 16),
        (256, 2000, torch.float16, 256),
        (256, 2000, torch.float32, 64),
        (256, 2000, torch.int8, 128),
        (1000, 50, torch.float16, 16),  # a large tile would be empty for the most part
    ],
)
def test_a_tile_is_large_where_there_are_many_pairs_and_a_request_fills_it(num_requests, num_candidates, vector_type, rows):
    assert launch._stored_tile(num_requests, num_candidates, vector_type)["BLOCK_R"] == rows


@pytest.mark.parametrize(
    ("num_requests", "num_candidates", "ranked"), [(1, 8192, True), (1, 8193, False), (256, 2000, True), (256, 8192, False)]
)
def test_ranks_are_counted_only_while_that_is_cheap(num_requests, num_candidates, ranked):
    assert launch._ranked(num_requests, num_candidates) is ranked


def test_a_traced_call_does_not_overlap_its_kernels():
    with FakeTensorMode():
        assert not launch._overlaps(torch.empty(1, 3, dtype=torch.int64, device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("num_requests", [1, 256])
def test_ranks_wait_for_the_scores_of_their_own_call(num_requests):
    user_BNUP, _, weights = random_requests(num_requests, 2000)
    items = random_store(torch.float16, num_items=4000)
    candidates = [torch.randint(4000, (num_requests, 2000), device="cuda") for _ in range(50)]
    found = [top_stored(user_BNUP, items, candidate_BK, weights, 100, backend="triton") for candidate_BK in candidates]
    for candidate_BK, best in zip(candidates, found, strict=True):
        score_BK = score_stored(user_BNUP, items, candidate_BK, weights, backend="triton")
        expected = torch.sort(score_BK, dim=1, descending=True, stable=True)
        assert torch.equal(best.score_BK, expected.values[:, :100])
        assert torch.equal(best.position_BK, expected.indices[:, :100])


@pytest.mark.parametrize(("programs", "pieces", "per_program"), [(1, 1, 6), (4, 2, 3), (100, 4, 1)])
def test_several_tiles_of_a_program_and_pieces_of_a_tile_give_the_same_scores(programs, pieces, per_program, monkeypatch):
    monkeypatch.setattr(launch, "MANY_PAIRS", 0)
    monkeypatch.setattr(launch, "PROGRAMS", programs)
    monkeypatch.setattr(launch, "STORED_TILES", {})
    monkeypatch.setattr(launch, "LARGE_TILE", {"BLOCK_R": 16, "BLOCK_I": 1, "PIECES": pieces, "num_warps": 4})
    assert launch._tiles_per_program(2, 85, launch.LARGE_TILE) == per_program
    user_BNUP, candidate_BK, weights = random_requests(2, 85)
    items = random_store(torch.float32)
    with poisoned():
        found_BK = score_stored(user_BNUP, items, candidate_BK, weights, backend="triton")
    expected_BK = score_stored(user_BNUP, items, candidate_BK, weights, backend="torch")
    torch.testing.assert_close(found_BK, expected_BK, atol=1e-5 * expected_BK[candidate_BK >= 0].abs().max().item(), rtol=0)


def test_stored_scores_are_those_of_the_user_vector_that_the_index_picks():
    user_BNUP, candidate_BK, weights = random_requests(2, 3)
    items = random_store(torch.float32)
    candidate_BK = candidate_BK.clamp(min=0)
    score_BK = score_stored(user_BNUP, items, candidate_BK, weights, backend="torch")
    for request in range(2):
        for column, item in enumerate(candidate_BK[request].tolist()):
            user_UP = user_BNUP[request, int(items.index_M[item])]
            expected = reference.lss_score(user_UP, items.vector_MX[item].unflatten(0, (2, -1)), *weights)
            torch.testing.assert_close(score_BK[request, column], expected)


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize(("num_requests", "num_candidates", "num_top"), [(1, 1, 1), (2, 63, 10), (3, 100, 3), (1, 40, 40)])
def test_the_best_stored_items_are_those_of_a_stable_sort(num_requests, num_candidates, num_top):
    user_BNUP, candidate_BK, weights = random_requests(num_requests, num_candidates)
    candidate_BK[:, num_candidates // 2 :] = candidate_BK[:, : num_candidates - num_candidates // 2].clone()  # equal scores
    items = random_store(torch.float16)
    with poisoned():
        found = top_stored(user_BNUP, items, candidate_BK, weights, num_top, backend="triton")
    score_BK = score_stored(user_BNUP, items, candidate_BK, weights, backend="triton")
    expected = torch.sort(score_BK, dim=1, descending=True, stable=True)
    assert torch.equal(found.score_BK, expected.values[:, :num_top])
    assert torch.equal(found.position_BK, expected.indices[:, :num_top])


@pytest.mark.parametrize("limit", ["MAX_CHUNK", "MAX_RANKED"], ids=["compared at once", "ranked"])
def test_more_candidates_than_are_compared_at_once_or_ranked_give_the_same_best(limit, monkeypatch):
    user_BNUP, candidate_BK, weights = random_requests(2, 70)
    candidate_BK[0, 31] = 40  # not a number
    items = random_store(torch.float32)
    with poisoned():
        expected = top_stored(user_BNUP, items, candidate_BK, weights, 50, backend="triton")
        monkeypatch.setattr(launch, limit, 16)
        found = top_stored(user_BNUP, items, candidate_BK, weights, 50, backend="triton")
    assert expected.position_BK[0, 0] == 31
    assert torch.equal(found.position_BK, expected.position_BK)
    torch.testing.assert_close(found.score_BK, expected.score_BK, rtol=0, atol=0, equal_nan=True)


@triton.jit
def _keyed(score_ptr, key_ptr, back_ptr, SIZE: tl.constexpr):
    index = tl.arange(0, SIZE)
    key = order_keys(tl.load(score_ptr + index))
    tl.store(key_ptr + index, key)
    tl.store(back_ptr + index, scores_of(key))


def test_keys_order_scores_as_a_sort_does_and_give_them_back():
    torch.manual_seed(0)
    special = [0.0, -0.0, torch.inf, -torch.inf, torch.nan, -torch.nan, 3.4e38, -3.4e38, 1e-45, -1e-45]
    score = torch.tensor([*special, *torch.randn(22).tolist()], device=KERNEL_DEVICE)
    key, back = torch.zeros_like(score, dtype=torch.int32), torch.zeros_like(score)
    _keyed[(1,)](score, key, back, len(score))
    expected, found = (torch.sort(values.cpu(), descending=True, stable=True).indices for values in (score, key))
    assert torch.equal(found, expected)
    torch.testing.assert_close(back, score, rtol=0, atol=0, equal_nan=True)
    assert key.min() > -(2**31)
    assert key.max() < 2**31 - 1


def test_candidates_that_are_no_items_are_not_numbers_and_rank_first():
    user_BNUP, candidate_BK, weights = random_requests(1, 6)
    candidate_BK[0, 4] = 40
    items = random_store(torch.float32)
    assert score_stored(user_BNUP, items, candidate_BK, weights, backend="triton")[0].isnan().tolist() == [False] * 4 + [
        True,
        False,
    ]
    assert top_stored(user_BNUP, items, candidate_BK, weights, 1, backend="triton").position_BK.item() == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidate_BK": torch.zeros(1, 2, dtype=torch.int64)}, r"expected \[2, K\]"),
        ({"vector_MX": torch.zeros(40, 23)}, r"expected \[B, N, U, P\] and \[M, V·P\]"),
        ({"vector_MX": torch.zeros(40, 24, dtype=torch.int8)}, "without scales: int8 alone has them"),
        ({"index_M": torch.zeros(3, dtype=torch.uint8)}, r"index_M has shape \(3,\), expected one entry per item, \[40\]"),
        ({"num_top": 9}, "num_top=9 of 8 candidates"),
    ],
)
def test_stores_and_requests_that_do_not_fit_are_refused(change, message):
    user_BNUP, candidate_BK, weights = [*random_requests(2, 8)]
    items = {"vector_MX": torch.zeros(40, 24), "scale_M": None, "index_M": None} | {k: v for k, v in change.items() if "_M" in k}
    with pytest.raises(ValueError, match=message):
        top_stored(user_BNUP, StoredItems(**items), change.get("candidate_BK", candidate_BK), weights, change.get("num_top", 1))


def test_serving_functions_script_and_equal_eager():
    @torch.jit.script
    def best(user_BNUP: torch.Tensor, items: StoredItems, candidate_BK: torch.Tensor, weights: LSSWeights) -> torch.Tensor:
        return top_stored(user_BNUP, items, candidate_BK, weights, 3).score_BK

    user_BNUP, candidate_BK, weights = random_requests(2, 8)
    items = random_store(torch.int8)
    torch.testing.assert_close(
        best(user_BNUP, items, candidate_BK, weights), top_stored(user_BNUP, items, candidate_BK, weights, 3).score_BK
    )
