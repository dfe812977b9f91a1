import torch

from trainer.export.requests import draw_requests, user_tensors
from trainer.export.signature import InputFeature, UserSignature

SIGNATURE = UserSignature(
    features=(
        InputFeature(name="user", vocab_size=50, max_len=1, min_len=1, is_list=False, table="t_user"),
        InputFeature(name="tags", vocab_size=9, max_len=3, min_len=0, is_list=True, table="t_tag"),
    ),
    history=(
        InputFeature(name="hist_item", vocab_size=80, max_len=5, min_len=0, is_list=True, table="t_item"),
        InputFeature(name="hist_lag", vocab_size=4, max_len=5, min_len=0, is_list=True, table=None),
    ),
    noise_size=3,
    seed=7,
    num_queries=1,
    heads=1,
    width=8,
)


def test_requests_become_values_feature_by_feature_and_histories_row_by_row() -> None:
    first = {"user": {"user": 7, "tags": [3, 5]}, "history": {"hist_item": [10, 11], "hist_lag": [0, 1]}, "row_id": 99}
    second = {"user": {"user": 8, "tags": []}, "history": {"hist_item": [], "hist_lag": []}}
    third = {"user": {"user": 9, "tags": [1]}, "history": {"hist_item": [12], "hist_lag": [3]}}
    found = user_tensors([first, second, third], SIGNATURE)
    assert found.user_values.tolist() == [7, 8, 9, 3, 5, 1]
    assert found.user_lengths.tolist() == [[1, 1, 1], [2, 0, 1]]
    assert found.history_values.tolist() == [[10, 11, 12], [0, 1, 3]]
    assert found.history_lengths.tolist() == [2, 0, 1]
    assert found.row_id.tolist() == [99, 0, 0]
    assert {tensor.dtype for tensor in found} == {torch.int64}


def test_a_model_without_inputs_still_has_rows() -> None:
    nothing = UserSignature(features=(), history=(), noise_size=0, seed=0, num_queries=1, heads=1, width=8)
    found = user_tensors([{"user": {}, "history": {}}] * 4, nothing)
    assert found.user_lengths.shape == (0, 4)
    assert found.history_values.shape == (0, 0)
    assert found.history_lengths.tolist() == [0] * 4


def test_drawn_requests_have_the_lengths_that_were_asked_for_as_far_as_they_are_allowed() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = draw_requests(300, signature=SIGNATURE, max_history=5, history_lengths=[0, 3, 9] * 100, generator=generator)
    assert [len(request["history"]["hist_item"]) for request in drawn[:3]] == [0, 3, 5]
    assert {len(request["user"]["tags"]) for request in drawn} == {0, 1, 2, 3}
    assert {request["user"]["user"] for request in drawn} == set(range(50))
    assert sum("row_id" in request for request in drawn) == 150
