"""Scores of stored items, and the best of them."""

# B requests, N user vectors of a request, K candidates of a request, C candidates of a chunk, k best, M items, U user heads,
# V item heads, P head width, D scorer width, R candidates of a tile

import triton
import triton.language as tl

from kernels.lss_score.triton_kernel import load_heads, logits, similarities


@triton.jit
def stored_similarities(
    user, vector, scale, index, candidate, column_R, num_candidates, num_items, num_queries,
    U: tl.constexpr, V: tl.constexpr, P: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Eq. 13 of a request's columns; the first of S is NaN, and so will be the logit, for what is no item or has no user vector."""
    item_R = tl.load(candidate + column_R, mask=column_R < num_candidates, other=-1).to(tl.int64)
    known_R = (item_R >= 0) & (item_R < num_items)
    query_R = tl.zeros_like(item_R)
    if index is not None:
        query_R = tl.load(index + item_R, mask=known_R, other=0).to(tl.int64)
    known_R = known_R & (query_R >= 0) & (query_R < num_queries)
    users = load_heads(user, query_R * (U * P), known_R, U, P, BLOCK_P, "")
    # past L1, which is to keep the user's vectors
    items = load_heads(vector, item_R * (V * P), known_R, V, P, BLOCK_P, ".cg")
    if scale is not None:
        scale_R = tl.load(scale + item_R, mask=known_R, other=0.0)
        scaled = ()
        for v in tl.static_range(V):
            scaled = scaled + (items[v] * scale_R[:, None],)  # noqa: RUF005 - Triton has no unpacking of tuples
        items = scaled
    similarity = similarities(users, items, U, V)
    return (tl.where(known_R, similarity[0], float("nan")),) + similarity[1:]  # noqa: RUF005


@triton.jit
def order_keys(score_R):
    """int32 that orders scores, NaN above all; neither the least nor the largest int32 is one."""
    # -0.0 and 0.0 are one score; the bits of negative numbers order the wrong way round
    bits_R = tl.where(score_R == 0, 0.0, score_R).to(tl.int32, bitcast=True)
    bits_R = tl.where(bits_R < 0, bits_R ^ 0x7FFFFFFF, bits_R)
    return tl.where(score_R != score_R, 0x7FFFFFFE, bits_R)


@triton.jit
def scores_of(key_R):
    """The scores of `order_keys`."""
    return tl.where(key_R < 0, key_R ^ 0x7FFFFFFF, key_R).to(tl.float32, bitcast=True)


@triton.jit
def score_kernel(
    user, vector, scale, index, candidate, weight1, bias1, weight2, bias2, weight3, score,
    num_candidates, num_items, num_queries, num_tiles,
    U: tl.constexpr, V: tl.constexpr, P: tl.constexpr, D: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_I: tl.constexpr, PIECES: tl.constexpr,
    KEYS: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program per request and `num_tiles` tiles of its candidates; `score` [B, K], with KEYS the int32 of order_keys.

    PIECES: of a tile, as in forward_kernel. OVERLAP: rank_kernel follows, and its programs may be put in place.
    """
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
    programs = tl.cdiv(num_candidates, BLOCK_R * num_tiles)
    request = (tl.program_id(0) // programs).to(tl.int64)
    begin = (tl.program_id(0) % programs) * (BLOCK_R * num_tiles)
    user += request * num_queries * (U * P)
    candidate += request * num_candidates
    score += request * num_candidates
    for first in range(begin, min(begin + BLOCK_R * num_tiles, num_candidates), BLOCK_R):
        parts = ()
        for t in tl.static_range(PIECES):
            parts = parts + stored_similarities(
                user, vector, scale, index, candidate, first + PIECES * tl.arange(0, BLOCK_R // PIECES) + t,
                num_candidates, num_items, num_queries, U, V, P, BLOCK_P,
            )  # fmt: skip
        score_R = logits(parts, weight1, bias1, weight2, bias2, weight3, U, V, D, BLOCK_D, BLOCK_I, PIECES)
        column_R = first + tl.arange(0, BLOCK_R)
        mask_R = column_R < num_candidates
        score_R = tl.where(tl.load(candidate + column_R, mask=mask_R, other=-1) == -1, float("-inf"), score_R)
        if KEYS:
            score_R = order_keys(score_R)
        tl.store(score + column_R, score_R, mask=mask_R)


@triton.jit
def rank_kernel(
    key, top_score, top_column, num_candidates, num_top,
    BLOCK_R: tl.constexpr, CHUNK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program per request and tile of `key` [B, K]; the best go to `top_score` and `top_column` [B, k].

    How many of all K come before a candidate is its place. OVERLAP: the program may be there before the keys are.
    """
    tiles = tl.cdiv(num_candidates, BLOCK_R)
    request = (tl.program_id(0) // tiles).to(tl.int64)
    first = (tl.program_id(0) % tiles) * BLOCK_R
    column_R = first + tl.arange(0, BLOCK_R)
    key += request * num_candidates
    if OVERLAP:
        tl.extra.cuda.gdc_wait()
    # past L1, which may hold lines from before these keys were written
    key_R = tl.load(key + column_R, mask=column_R < num_candidates, other=-2147483648, cache_modifier=".cg")
    rank_R = tl.zeros([BLOCK_R], tl.int32)
    for start in range(0, num_candidates, CHUNK):
        column_C = start + tl.arange(0, CHUNK)
        key_C = tl.load(key + column_C, mask=column_C < num_candidates, other=-2147483648, cache_modifier=".cg")
        # to the tile's left an equal key comes first too: one more makes it the greater, so that a pair takes one comparison
        key_C += (column_C < first).to(tl.int32)
        rank_R += tl.sum((key_C[None, :] > key_R[:, None]).to(tl.int32), 1)
    left_RR = (key_R[None, :] == key_R[:, None]) & (column_R[None, :] < column_R[:, None])
    rank_R += tl.sum(left_RR.to(tl.int32), 1)
    mask_R = (column_R < num_candidates) & (rank_R < num_top)
    tl.store(top_score + request * num_top + rank_R, scores_of(key_R), mask=mask_R)
    tl.store(top_column + request * num_top + rank_R, column_R.to(tl.int64), mask=mask_R)
