import math
from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
from tiny import TinyTask, batch_of, build, train
from torch import nn

from trainer.optim import OptimizerConfig, build_optimizer, learning_rate_factor, set_learning_rate
from trainer.sharding import ShardingConfig

REPLICATED = ShardingConfig(kind="replicated")


def one_step(task: nn.Module, optimizer: torch.optim.Optimizer, *, scale: float = 1.0) -> None:
    optimizer.zero_grad()
    (task(batch_of(0, range(12)))[0] * scale).backward()
    optimizer.step()


@pytest.mark.parametrize("sharding", [REPLICATED, ShardingConfig(default_type="table_wise")])
def test_learning_rates_of_every_part_follow_the_factor(sharding: ShardingConfig, one_rank: dist.ProcessGroup) -> None:
    config = OptimizerConfig(learning_rate=0.2, sparse="adagrad", sparse_learning_rate=0.4, sequence_learning_rate=0.8)
    sharded, optimizer = build(sharding, config, one_rank)
    before = {name: value.clone() for name, value in flat_weights(sharded.module).items()}
    set_learning_rate(optimizer, 0.0)
    one_step(sharded.module, optimizer)
    frozen = flat_weights(sharded.module)
    assert all(torch.equal(before[name], frozen[name]) for name, _ in sharded.module.named_parameters())
    set_learning_rate(optimizer, 0.5)
    assert sorted({round(group["lr"], 6) for group in optimizer.param_groups}) == [0.1, 0.2, 0.4]
    one_step(sharded.module, optimizer)
    moved = flat_weights(sharded.module)
    assert not any(torch.equal(before[name], moved[name]) for name, _ in sharded.module.named_parameters())


def flat_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """Values of a task on one rank, sharded or not."""
    state = module.state_dict()
    return {name: value.local_shards()[0].tensor if hasattr(value, "local_shards") else value for name, value in state.items()}


def test_first_step_is_that_of_a_fresh_adam(one_rank: dist.ProcessGroup) -> None:
    sharded, optimizer = build(REPLICATED, OptimizerConfig(weight_decay=0.1, embedding_decay=0.2), one_rank)
    plain = TinyTask(world_size=1)
    plain.load_state_dict(sharded.module.state_dict())
    tables = [parameter for name, parameter in plain.named_parameters() if "embedding" in name]
    dense = [parameter for name, parameter in plain.named_parameters() if "embedding" not in name]
    reference = torch.optim.Adam([{"params": tables, "weight_decay": 0.2}, {"params": dense, "weight_decay": 0.1}], lr=1e-3)
    for _ in range(3):
        one_step(sharded.module, optimizer)
        one_step(plain, reference)
    for name, expected in plain.state_dict().items():
        torch.testing.assert_close(sharded.module.state_dict()[name], expected, rtol=1e-5, atol=1e-7)


def test_building_an_optimizer_leaves_weights_gradients_and_moments_untouched(one_rank: dist.ProcessGroup) -> None:
    sharded, _ = build(REPLICATED, OptimizerConfig(), one_rank)
    before = {name: value.clone() for name, value in sharded.module.state_dict().items()}
    optimizer = build_optimizer(sharded.module, OptimizerConfig(weight_decay=0.5, embedding_decay=0.5))
    assert all(torch.equal(before[name], value) for name, value in sharded.module.state_dict().items())
    assert all(parameter.grad is None for parameter in sharded.module.parameters())
    states = optimizer.state_dict()["state"]
    assert set(states) == {name for name, _ in sharded.module.named_parameters()}
    for name, state in states.items():
        assert set(state) == {"step", "exp_avg", "exp_avg_sq"}, name
        assert not any(value.any() for value in state.values()), name


def test_clipping_bounds_the_norm_over_all_dense_parameters_and_no_table(one_rank: dist.ProcessGroup) -> None:
    config = OptimizerConfig(sparse="sgd", clip_norm=0.01)
    sharded, optimizer = build(REPLICATED, config, one_rank)
    optimizer.zero_grad()
    (sharded.module(batch_of(0, range(12)))[0] * 100).backward()
    tables = {name: p.grad.clone() for name, p in sharded.module.named_parameters() if "embedding" in name}
    optimizer.step()
    named = dict(sharded.module.named_parameters())
    dense = [parameter.grad for name, parameter in named.items() if name not in tables]
    assert torch.cat([gradient.flatten() for gradient in dense]).norm().item() == pytest.approx(0.01, rel=1e-4)
    assert all(torch.equal(named[name].grad, gradient) for name, gradient in tables.items())


def test_sequence_tables_can_have_an_optimizer_of_their_own(one_rank: dist.ProcessGroup) -> None:
    config = OptimizerConfig(sparse="adam", sequence_sparse="rowwise_adagrad", sequence_learning_rate=0.05)
    _, optimizer = build(REPLICATED, config, one_rank)
    states = optimizer.state_dict()["state"]
    assert set(states["pooled.embedding_bags.t_user.weight"]) == {"step", "exp_avg", "exp_avg_sq"}
    assert states["sequence.embeddings.t_item.weight"]["sum"].shape == (41, 1)


def test_frozen_parameters_are_left_out(one_rank: dist.ProcessGroup) -> None:
    sharded, _ = build(REPLICATED, OptimizerConfig(), one_rank)
    sharded.task.tower[0].weight.requires_grad_(False)
    assert "tower.0.weight" not in build_optimizer(sharded.module, OptimizerConfig()).params


def test_embedding_decay_shrinks_rows_that_no_batch_looks_up(one_rank: dist.ProcessGroup) -> None:
    config = OptimizerConfig(sparse="sgd", sparse_learning_rate=0.1, embedding_decay=0.5)
    sharded, optimizer = build(REPLICATED, config, one_rank)
    before = sharded.module.state_dict()["pooled.embedding_bags.t_user.weight"].clone()
    train(sharded, optimizer, config, steps=range(1))
    after = sharded.module.state_dict()["pooled.embedding_bags.t_user.weight"]
    idle = [row for row in range(53) if row not in batch_of(0, range(12)).pooled["user"].values()]
    torch.testing.assert_close(after[idle], before[idle] * 0.95)


def test_schedules_warm_up_linearly_and_end_at_the_final_fraction() -> None:
    cosine = OptimizerConfig(schedule="cosine", warmup_steps=4, final_fraction=0.2)
    linear = OptimizerConfig(schedule="linear", warmup_steps=4, final_fraction=0.2)
    for config in (cosine, linear):
        factors = [learning_rate_factor(step, total_steps=24, config=config) for step in range(30)]
        assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
        assert all(later <= earlier for earlier, later in pairwise(factors[4:]))
        assert factors[14] == pytest.approx(0.6)
        assert factors[24:] == pytest.approx([0.2] * 6)
    assert learning_rate_factor(9, total_steps=24, config=cosine) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert learning_rate_factor(9, total_steps=24, config=linear) == pytest.approx(0.2 + 0.8 * 0.75)
    constant = OptimizerConfig(warmup_steps=2)
    assert [learning_rate_factor(step, total_steps=3, config=constant) for step in range(4)] == [0.5, 1, 1, 1]


def test_a_schedule_without_room_to_fall_is_refused() -> None:
    config = OptimizerConfig(schedule="linear", warmup_steps=10)
    with pytest.raises(ValueError, match="warmup_steps=10"):
        learning_rate_factor(10, total_steps=10, config=config)
    with pytest.raises(ValueError, match="step=-1"):
        learning_rate_factor(-1, total_steps=10, config=config)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("sparse_learning_rate", -1.0),
        ("sequence_learning_rate", math.nan),
        ("eps", 0.0),
        ("clip_norm", 0.0),
        ("weight_decay", -0.1),
        ("embedding_decay", math.inf),
        ("warmup_steps", -1),
        ("final_fraction", 1.5),
        ("sparse", "lamb"),
        ("sequence_sparse", "lamb"),
        ("schedule", "step"),
        ("dense", "sgd"),
    ],
)
def test_optimizer_config_names_the_field_it_rejects(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"optimizer.{name}="):
        OptimizerConfig(**{name: value})
