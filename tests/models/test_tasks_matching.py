import dataclasses

import pytest
import torch

from models import build_task
from models.embeddings import EmbeddingConfig
from models.layers.mixed_attention import MixedAttentionConfig
from models.losses import mixed_log_expected_count
from models.t2diff import T2DiffConfig
from models.tasks import MatchingLossConfig
from tests.models.synthetic import NEXT_ITEM_SCHEMA, catalogue_of, evaluate, random_batch, take

NUM_ITEMS = 40
ITEMS_ALONE = EmbeddingConfig(dim=8, init_std=0.5, features=("hist_item", "item"))
MIXED_ATTENTION = T2DiffConfig(use_diffusion=False, output_dim=8, attention=MixedAttentionConfig(session_len=3, time_lag=None))
DIFFUSION = dataclasses.replace(MIXED_ATTENTION, use_diffusion=True)
CATALOGUE = catalogue_of()


def build(config=MIXED_ATTENTION, *, embeddings=ITEMS_ALONE, world_size=1, **loss):
    torch.manual_seed(0)
    config = dataclasses.replace(config, loss=MatchingLossConfig(**loss))
    return build_task(config, schema=NEXT_ITEM_SCHEMA, embeddings=embeddings, catalogue=CATALOGUE, world_size=world_size)


def rows(num_rows, *, seed=0, shared_items=0, **options):
    return random_batch(num_rows, seed=seed, schema=NEXT_ITEM_SCHEMA, shared_items=shared_items, **options)


def targets_of(batch):
    return batch.sequence["item"].values()[: batch.num_rows]


def item_table(task):
    return task.embeddings.sequence.embeddings["t_item"].weight


def test_full_loss_is_the_mean_cross_entropy_over_the_catalogue():
    task, batch = build(), rows(9)
    score_BM = task.user_vectors(batch) @ item_table(task).t()  # the training form, too: no diffusion, no dropout
    expected = torch.nn.functional.cross_entropy(score_BM, targets_of(batch))
    for num_items in (1, 7, 64):
        chunked = build(chunk_items=num_items)
        torch.testing.assert_close(chunked(batch)[0], expected)


def test_the_loss_adds_what_the_model_learns_besides():
    loss, out = build(DIFFUSION)(rows(9))
    assert out.auxiliary_B.mean() > 0
    torch.testing.assert_close(loss, (out.softmax_loss_B + out.auxiliary_B).mean())


def test_averaging_unequal_ranks_gives_the_mean_over_the_global_batch():
    task = build(world_size=2)
    losses, each = [], []
    for num_rows, seed in ((7, 1), (3, 2)):
        batch = rows(num_rows, seed=seed)
        batch.global_rows = torch.tensor(10)
        loss, out = task(batch)
        losses.append(loss)
        each.append(out.softmax_loss_B)
    torch.testing.assert_close(torch.stack(losses).mean().detach(), torch.cat(each).mean())


def test_training_noise_is_drawn_anew_in_every_step_and_follows_the_seed():
    batch, losses = rows(6), []
    for _ in range(2):
        task = build(DIFFUSION)  # anew: the drift scale moves with every step
        torch.manual_seed(5)
        losses.append([task(batch)[0].item(), task(batch)[0].item()])
    assert losses[0] == losses[1]
    assert losses[0][0] != losses[0][1]


def with_targets(batch, ids):
    batch.sequence["item"].values().copy_(torch.tensor(ids))
    assert batch.sequence["item"].values().tolist() == ids
    return batch


def test_sampled_loss_equals_a_plain_loop_over_other_rows_targets_and_shared_items():
    task = build(item_softmax="sampled")
    ids = [4, 9, 4, 30, 9, 17, 4]  # rows 0 and 2 have one target, which is shared as well; so has row 1
    batch = with_targets(rows(4, shared_items=3), ids)
    loss, out = task(batch)
    table, user_BC = item_table(task), task.user_vectors(batch)
    log_count_K = mixed_log_expected_count(torch.tensor(ids), CATALOGUE.log_q_M, num_in_batch=3, num_uniform=3)
    for row in range(4):
        positive = user_BC[row] @ table[ids[row]]
        others = [user_BC[row] @ table[item] - log_count_K[k] for k, item in enumerate(ids) if item != ids[row]]
        expected = torch.stack([positive, *others]).logsumexp(0) - positive
        torch.testing.assert_close(out.softmax_loss_B[row], expected.detach())
    torch.testing.assert_close(loss, out.softmax_loss_B.mean())


def test_item_only_rows_are_no_users_and_have_no_loss():
    batch = rows(5, shared_items=20)
    own = take(batch, range(5))
    assert (batch.sequence.stride(), own.sequence.stride()) == (25, 5)
    torch.testing.assert_close(build()(batch)[0], build()(own)[0])  # the full softmax knows all items anyway
    _, out = build(DIFFUSION, item_softmax="sampled")(batch)
    assert out.softmax_loss_B.shape == out.auxiliary_B.shape == out.rank_B.shape == (5,)
    for features in (("hist_item", "item"), ("user", "hist_item", "item")):
        task = build(DIFFUSION, embeddings=dataclasses.replace(ITEMS_ALONE, features=features)).eval()
        torch.testing.assert_close(task.user_vectors(batch), task.user_vectors(own), atol=1e-6, rtol=1e-5)


def test_evaluation_needs_the_catalogue_encoded_since_the_last_training():
    task, batch = build(), rows(4)
    with pytest.raises(RuntimeError, match=r"call encode_catalogue\(\) after eval\(\)"):
        task.eval()(batch)
    task.encode_catalogue()
    task.eval()(batch)
    task.train()
    with pytest.raises(RuntimeError, match="encode_catalogue is for evaluation mode"):
        task.encode_catalogue()
    with pytest.raises(RuntimeError, match=r"call encode_catalogue\(\) after eval\(\)"):
        task.eval()(batch)


@pytest.mark.parametrize("config", [MIXED_ATTENTION, DIFFUSION])
def test_metrics_do_not_depend_on_batch_size_and_order(config):
    task, batch = build(config), rows(10)
    together = evaluate(task, batch)
    order = [7, 2, 9, 0, 4, 1, 8, 3, 6, 5]
    parts = [evaluate(task, take(batch, order[start : start + 3])) for start in range(0, 10, 3)]
    assert torch.equal(torch.cat([part.rank_B for part in parts]), together.rank_B[order])
    losses_B = torch.cat([part.softmax_loss_B for part in parts])
    torch.testing.assert_close(losses_B, together.softmax_loss_B[order], atol=1e-5, rtol=1e-5)


def test_evaluation_noise_follows_the_row():
    task, batch = build(DIFFUSION).eval(), rows(6, history_lengths=[3] * 6)
    other = dataclasses.replace(batch, row_id_B=batch.row_id_B + torch.tensor([0, 0, 100, 0, 0, 0]))
    differ_B = (task.user_vectors(batch) != task.user_vectors(other)).any(1)
    assert differ_B.tolist() == [False, False, True, False, False, False]


def test_a_masked_history_does_not_compete_with_the_target():
    batch = rows(30)
    plain, masked = evaluate(build(), batch), evaluate(build(mask_history=True), batch)
    task = build().eval()
    score_BM = task.user_vectors(batch) @ item_table(task).t()
    histories = batch.sequence["hist_item"].values().split(batch.sequence["hist_item"].lengths().tolist())
    for row, (target, history) in enumerate(zip(targets_of(batch).tolist(), histories, strict=True)):
        above = {item for item in range(NUM_ITEMS) if item != target and score_BM[row, item] >= score_BM[row, target]}
        assert plain.rank_B[row] == 1 + len(above)
        assert masked.rank_B[row] == 1 + len(above - set(history.tolist()))
    assert (masked.rank_B < plain.rank_B).any()
    assert torch.equal(masked.softmax_loss_B, plain.softmax_loss_B)


def test_ties_count_against_the_model():
    task = build()
    with torch.no_grad():
        task.model.attention.user_output.weight.zero_()
        task.model.attention.user_output.bias.zero_()
    assert evaluate(task, rows(5)).rank_B.tolist() == [NUM_ITEMS] * 5


def test_the_leak_check_ranks_by_the_training_form_which_sees_the_target():
    task, batch = build(DIFFUSION), rows(6, history_lengths=[3] * 6)
    served = evaluate(task, batch)
    task.leaks_target = True
    leaked = evaluate(task, batch)
    assert not torch.allclose(leaked.softmax_loss_B, served.softmax_loss_B)
    assert torch.equal(evaluate(task, batch).softmax_loss_B, leaked.softmax_loss_B)
    backwards = evaluate(task, take(batch, range(5, -1, -1)))
    torch.testing.assert_close(backwards.softmax_loss_B.flip(0), leaked.softmax_loss_B, atol=1e-5, rtol=1e-5)
    task.leaks_target = False
    assert torch.equal(evaluate(task, batch).softmax_loss_B, served.softmax_loss_B)


def test_the_catalogue_moves_with_the_module_and_is_no_part_of_a_checkpoint():
    task = build()
    assert not any(name.startswith("_") for name in task.state_dict())
    buffers = dict(task.named_buffers())
    assert {"_pooled_ids", "_pooled_lengths", "_sequence_ids", "_sequence_lengths", "_log_q_M"} <= set(buffers)


def test_a_matching_model_without_catalogue_is_refused():
    with pytest.raises(ValueError, match="T2DiffConfig is a matching model's: pass catalogue="):
        build_task(MIXED_ATTENTION, schema=NEXT_ITEM_SCHEMA, embeddings=ITEMS_ALONE)


def test_an_item_that_is_no_part_of_the_history_is_refused():
    features = dataclasses.replace(ITEMS_ALONE, features=("hist_category", "category"))
    with pytest.raises(ValueError, match="item feature 'item' shares its id space with no history"):
        build(embeddings=features)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("item_softmax", "half", r"MatchingLossConfig.item_softmax='half', expected one of \('full', 'sampled'\)"),
        ("chunk_items", 0, "MatchingLossConfig.chunk_items=0, expected at least 1"),
    ],
)
def test_a_wrong_value_is_refused_by_name(field, value, message):
    with pytest.raises(ValueError, match=message):
        MatchingLossConfig(**{field: value})


def test_world_size_below_one_is_refused():
    with pytest.raises(ValueError, match=r"MatchingTask\(world_size=0\), expected at least 1"):
        build(world_size=0)
