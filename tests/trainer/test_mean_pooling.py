import pytest
import torch
import torch.distributed as dist
from model_task import ADAGRAD, MODEL_CONFIGS, REPLICATED, build_model, global_batch

from trainer.sharding import ShardingConfig


@pytest.mark.parametrize("others", ["table_wise", "column_wise", "data_parallel"])
@pytest.mark.parametrize("row_wise", ["t_user", "t_tag"])
def test_a_list_beside_a_row_wise_table_is_averaged_once(row_wise: str, others: str, one_rank: dist.ProcessGroup) -> None:
    plan = ShardingConfig(types=((row_wise, "row_wise"), ("embeddings.pooled", others)))
    batch, vectors = global_batch(0), []
    for sharding in (plan, REPLICATED):
        sharded, _ = build_model(MODEL_CONFIGS["two_tower"], sharding=sharding, optimizer=ADAGRAD, group=one_rank)
        users, items = sharded.task.embeddings(batch.pooled, batch.sequence)
        vectors.append(torch.cat([users.profile_BU, items.attributes_BA], dim=1))
    assert int(batch.pooled["item_tags"].lengths().max()) > 1
    torch.testing.assert_close(*vectors, rtol=3e-7, atol=0)
