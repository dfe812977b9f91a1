"""Scores of stored items, and the best of them, in one launch."""

# B requests, N user vectors of a request, K candidates of a request, k best, M items, U user heads, V item heads, P head width,
# D scorer width, R candidates of a tile

import triton
import triton.language as tl

from kernels.lss_score.triton_kernel import load_heads, project, row_layer


@triton.jit
def tile_scores(
    user, vector, scale, index, candidate, weight1, bias1, weight2, bias2, weight3,
    request, column_R, num_candidates, num_items, num_queries,
    U: tl.constexpr, V: tl.constexpr, P: tl.constexpr, D: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_I: tl.constexpr,
):  # fmt: skip
    """[R] logits; -inf for a candidate of -1, NaN for one that is no item or whose index is no user vector."""
    mask_R = column_R < num_candidates
    item_R = tl.load(candidate + request * num_candidates + column_R, mask=mask_R, other=-1).to(tl.int64)
    known_R = (item_R >= 0) & (item_R < num_items)
    query_R = tl.zeros_like(item_R)
    if index is not None:
        query_R = tl.load(index + item_R, mask=known_R, other=0).to(tl.int64)
    known_R = known_R & (query_R >= 0) & (query_R < num_queries)
    users = load_heads(user, (request * num_queries + query_R) * (U * P), known_R, U, P, BLOCK_P)
    items = load_heads(vector, item_R * (V * P), known_R, V, P, BLOCK_P)
    if scale is not None:
        scale_R = tl.load(scale + item_R, mask=known_R, other=0.0)
        scaled = ()
        for v in tl.static_range(V):
            scaled = scaled + (items[v] * scale_R[:, None],)  # noqa: RUF005 - Triton has no unpacking of tuples
        items = scaled
    _, rows = row_layer(users, items, weight1, bias1, U, V, D, BLOCK_D)
    score_R = project(rows, weight2, bias2, weight3, U, D, BLOCK_D, BLOCK_I)
    return tl.where(known_R, score_R, tl.where(item_R == -1, float("-inf"), float("nan")))


@triton.jit
def sort_keys(score_R, column_R, num_candidates):
    """int64 keys that order scores, NaN above all, then columns from left to right; columns that do not exist come last."""
    # -0.0 and 0.0 are one score; the bits of negative numbers order the wrong way round
    bits_R = tl.where(score_R == 0, 0.0, score_R).to(tl.int32, bitcast=True)
    bits_R = tl.where(bits_R < 0, bits_R ^ 0x7FFFFFFF, bits_R)
    bits_R = tl.where(score_R != score_R, 0x7FFFFFFF, bits_R)
    key_R = bits_R.to(tl.int64) * 4294967296 + (2147483647 - column_R)
    return tl.where(column_R < num_candidates, key_R, -9223372036854775808)


@triton.jit
def chunk_top(score, start, num_candidates, CHUNK: tl.constexpr, TOP: tl.constexpr):
    """Keys of the TOP best of CHUNK scores, best first."""
    # keys lie in any order: with the neighbours of the sorting network in one thread, it exchanges a fifth as many between threads
    THREADS: tl.constexpr = min(CHUNK, 128)
    column_TX = start + (tl.arange(0, THREADS)[:, None] + THREADS * tl.arange(0, CHUNK // THREADS)[None, :]).to(tl.int64)
    # past L1, which may hold a neighbour's lines from before these scores were written
    score_TX = tl.load(score + column_TX, mask=column_TX < num_candidates, other=0.0, cache_modifier=".cg")
    return tl.topk(tl.reshape(sort_keys(score_TX, column_TX, num_candidates), [CHUNK]), TOP)


@triton.jit
def request_top(score, num_candidates, CHUNK: tl.constexpr, TOP: tl.constexpr, ONE_CHUNK: tl.constexpr):
    """Keys of the TOP best of one request's scores, best first."""
    if ONE_CHUNK:
        best = chunk_top(score, 0, num_candidates, CHUNK, TOP)
    else:
        best = tl.full([TOP], -9223372036854775808, tl.int64)
        for start in range(0, num_candidates, CHUNK):
            more = chunk_top(score, start, num_candidates, CHUNK, TOP)
            best = tl.topk(tl.reshape(tl.join(best, more), [2 * TOP]), TOP)
    return best


@triton.jit
def score_kernel(
    user, vector, scale, index, candidate, weight1, bias1, weight2, bias2, weight3, score,
    num_candidates, num_items, num_queries,
    U: tl.constexpr, V: tl.constexpr, P: tl.constexpr, D: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_I: tl.constexpr,
):  # fmt: skip
    """One program per request and tile of candidates; `score` [B, K]."""
    tiles = tl.cdiv(num_candidates, BLOCK_R)
    request = (tl.program_id(0) // tiles).to(tl.int64)
    column_R = (tl.program_id(0) % tiles).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    score_R = tile_scores(
        user, vector, scale, index, candidate, weight1, bias1, weight2, bias2, weight3,
        request, column_R, num_candidates, num_items, num_queries, U, V, P, D, BLOCK_P, BLOCK_D, BLOCK_I,
    )  # fmt: skip
    tl.store(score + request * num_candidates + column_R, score_R, mask=column_R < num_candidates)


@triton.jit
def top_kernel(
    user, vector, scale, index, candidate, weight1, bias1, weight2, bias2, weight3, score, arrived, top_score, top_column,
    num_candidates, num_items, num_queries, num_top,
    U: tl.constexpr, V: tl.constexpr, P: tl.constexpr, D: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_I: tl.constexpr,
    CHUNK: tl.constexpr, TOP: tl.constexpr, ONE_CHUNK: tl.constexpr,
):  # fmt: skip
    """As score_kernel; the program that is the last of its request, by the counter `arrived` [B], then picks the best."""
    tiles = tl.cdiv(num_candidates, BLOCK_R)
    request = (tl.program_id(0) // tiles).to(tl.int64)
    column_R = (tl.program_id(0) % tiles).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    score_R = tile_scores(
        user, vector, scale, index, candidate, weight1, bias1, weight2, bias2, weight3,
        request, column_R, num_candidates, num_items, num_queries, U, V, P, D, BLOCK_P, BLOCK_D, BLOCK_I,
    )  # fmt: skip
    tl.store(score + request * num_candidates + column_R, score_R, mask=column_R < num_candidates)
    tl.debug_barrier()  # every thread's score before this program counts as arrived
    if tl.atomic_add(arrived + request, 1, sem="acq_rel") == tiles - 1:
        best = request_top(score + request * num_candidates, num_candidates, CHUNK, TOP, ONE_CHUNK)
        column = 2147483647 - (best & 4294967295)
        place = tl.arange(0, TOP)
        mask = place < num_top
        best_score = tl.load(score + request * num_candidates + column, mask=mask, cache_modifier=".cg")
        tl.store(top_score + request * num_top + place, best_score, mask=mask)
        tl.store(top_column + request * num_top + place, column, mask=mask)
