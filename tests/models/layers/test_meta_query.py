import pytest
import torch
import torch.nn.functional as F

from models.layers.meta_query import MetaQuery, MetaQueryConfig, temperature_at


def module(**fields):
    torch.manual_seed(0)
    return MetaQuery(MetaQueryConfig(num_queries=8) if not fields else MetaQueryConfig(num_queries=8, **fields), dim=5)


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (25, 0.75), (99, 0.01), (100, 0.001), (10_000, 0.001)])
def test_temperature_falls_linearly_from_one_to_its_floor(step, expected):
    assert temperature_at(step, 100) == pytest.approx(expected)


def test_temperature_refuses_negative_steps():
    with pytest.raises(ValueError, match="expected step >= 0"):
        temperature_at(-1, 100)


def test_query_group_is_the_literal_product():
    queries = module()
    meta = queries.meta_ND
    torch.testing.assert_close(queries.query_group(), (meta @ meta.t()) @ meta)


def test_query_group_options_are_what_they_say():
    meta = module().meta_ND
    torch.testing.assert_close(module(query_attention="scaled").query_group(), (meta @ meta.t() / 8) @ meta)
    torch.testing.assert_close(
        module(query_attention="softmax").query_group(), torch.softmax(meta @ meta.t() / 5**0.5, dim=1) @ meta
    )
    assert torch.equal(module(query_attention="none").query_group(), meta)


def test_autocast_does_not_lower_the_query_groups_precision():
    queries = module()
    items = torch.randn(20, 5)
    exact, picked = queries.query_group(), queries(items)
    exact_gradient = torch.autograd.grad(exact.square().sum(), queries.meta_ND)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        group, output = queries.query_group(), queries(items)
        gradient = torch.autograd.grad(group.square().sum(), queries.meta_ND)[0]
    assert group.dtype == output.query_BD.dtype == torch.float32
    assert torch.equal(group, exact)
    assert torch.equal(gradient, exact_gradient)
    assert torch.equal(output.query_BD, picked.query_BD)


def test_soft_query_is_the_softmax_weighted_group():
    queries = module()
    queries.set_step(40, steps_per_epoch=100)
    items = torch.randn(20, 5)
    group = queries.query_group()
    weights = torch.softmax(items @ group.t() / 0.6, dim=1)
    torch.testing.assert_close(queries(items).query_BD, weights @ group)
    assert torch.equal(queries(items).index_B, weights.argmax(1))


def test_hard_query_equals_soft_query_as_temperature_vanishes():
    queries = module()
    items = torch.randn(20, 5)
    distances = []
    for step in (0, 90, 100):
        queries.train().set_step(step, steps_per_epoch=100)
        soft, hard = queries(items).query_BD, queries.eval()(items).query_BD
        distances.append((soft - hard).abs().max().item())
    assert distances[0] > distances[1] > distances[2]
    queries.train().temperature.fill_(1e-7)
    assert torch.equal(queries(items).query_BD, queries.eval()(items).query_BD)


def test_evaluation_gives_rows_of_the_group_by_index():
    queries = module().eval()
    output = queries(torch.randn(20, 5))
    assert torch.equal(output.query_BD, queries.query_group()[output.index_B])
    assert output.index_B.dtype == torch.int64


def test_hard_selection_trains_only_through_the_picked_rows():
    queries = module(selection="hard", query_attention="none")
    items = torch.randn(3, 5, requires_grad=True)
    output = queries(items)
    assert torch.equal(output.query_BD, queries.query_group()[output.index_B])
    output.query_BD.sum().backward()
    touched = queries.meta_ND.grad.abs().sum(1) > 0
    assert set(touched.nonzero().flatten().tolist()) == set(output.index_B.tolist())
    assert items.grad is None


def test_selection_without_temperature_ignores_the_step():
    queries = module(selection="soft_no_temperature")
    items = torch.randn(20, 5)
    before = queries(items).query_BD
    queries.set_step(1000, steps_per_epoch=10)
    assert torch.equal(queries(items).query_BD, before)
    group = queries.query_group()
    torch.testing.assert_close(before, torch.softmax(items @ group.t(), dim=1) @ group)


def test_query_similarity_is_the_mean_cosine_of_soft_and_hard_queries():
    queries = module()
    items = torch.randn(20, 5)
    output = queries(items)
    expected = F.cosine_similarity(output.query_BD, queries.eval()(items).query_BD, dim=1).mean()
    torch.testing.assert_close(output.similarity, expected.detach())
    assert queries.log_values()["query_similarity"] == pytest.approx(expected.item(), rel=1e-5)
    assert queries.log_values()["query_norm"] == pytest.approx(queries.query_group().norm().item(), rel=1e-5)


def test_decay_takes_the_configured_number_of_epochs():
    queries = module(decay_epochs=2.0, min_temperature=0.1)
    queries.set_step(100, steps_per_epoch=100)
    assert queries.temperature.item() == pytest.approx(0.5)
    queries.set_step(500, steps_per_epoch=100)
    assert queries.temperature.item() == pytest.approx(0.1)


def test_temperature_is_not_saved_because_the_step_sets_it():
    assert set(module().state_dict()) == {"meta_ND"}


def test_initial_matrix_is_kaiming_uniform():
    meta = MetaQuery(MetaQueryConfig(num_queries=500), dim=24).meta_ND
    bound = (6 / 24) ** 0.5
    assert meta.abs().max().item() <= bound
    assert meta.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize(
    "fields",
    [{"num_queries": 0}, {"query_attention": "linear"}, {"selection": "firm"}, {"decay_epochs": 0.0}, {"min_temperature": 0.0}],
)
def test_bad_config_names_the_field(fields):
    with pytest.raises(ValueError, match=f"MetaQueryConfig.{next(iter(fields))}="):
        MetaQueryConfig(**fields)
