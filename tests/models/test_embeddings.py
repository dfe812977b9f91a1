import dataclasses
import zlib

import pytest
import torch

from dataloaders.schema import Feature
from models import build_task
from models.embeddings import INIT_BLOCK_ROWS, EmbeddingConfig, FeatureEmbeddings, TableInit
from models.fit import FITConfig
from models.two_tower import TwoTower, TwoTowerConfig
from models.types import InputDims
from tests.models.synthetic import SCHEMA, random_batch

SMALL = EmbeddingConfig(dim=4)


def only(*features):
    return dataclasses.replace(SMALL, features=features)


def rows_of(jagged, name):
    """The ids of one feature, row by row."""
    feature = jagged[name]
    return [ids.tolist() for ids in feature.values().split(feature.lengths().tolist())]


def test_features_of_one_space_share_one_table():
    embeddings = FeatureEmbeddings(SCHEMA, config=SMALL)
    assert [(c.name, c.feature_names) for c in embeddings.pooled.embedding_bag_configs()] == [
        ("t_user", ["user"]),
        ("t_tag", ["tags", "item_tags"]),
        ("t_shop", ["shop"]),
    ]
    assert [(c.name, c.feature_names) for c in embeddings.sequence.embedding_configs()] == [
        ("t_item", ["hist_item", "item"]),
        ("t_category", ["hist_category", "category"]),
    ]


def test_outputs_are_the_tables_rows_in_schema_order():
    embeddings = FeatureEmbeddings(SCHEMA, config=SMALL)
    batch = random_batch(9)
    users, items = embeddings(batch.pooled, batch.sequence)
    tag = embeddings.pooled.embedding_bags["t_tag"].weight
    user = embeddings.pooled.embedding_bags["t_user"].weight
    shop = embeddings.pooled.embedding_bags["t_shop"].weight
    item, category = embeddings.sequence.embeddings["t_item"].weight, embeddings.sequence.embeddings["t_category"].weight
    for row in range(9):
        tags = rows_of(batch.pooled, "tags")[row]
        mean = tag[tags].mean(0) if tags else torch.zeros(4)
        torch.testing.assert_close(users.profile_BU[row], torch.cat([user[rows_of(batch.pooled, "user")[row][0]], mean]))
        attributes = torch.cat([shop[rows_of(batch.pooled, "shop")[row][0]], tag[rows_of(batch.pooled, "item_tags")[row]].mean(0)])
        torch.testing.assert_close(items.attributes_BA[row], attributes)
        target = torch.cat([item[rows_of(batch.sequence, "item")[row]], category[rows_of(batch.sequence, "category")[row]]], dim=1)
        torch.testing.assert_close(items.item_BD[row], target[0])
        history = users.history_JD.split(users.history_lengths_B.tolist())[row]
        ids = rows_of(batch.sequence, "hist_item")[row], rows_of(batch.sequence, "hist_category")[row]
        torch.testing.assert_close(history, torch.cat([item[ids[0]], category[ids[1]]], dim=1))
    assert users.history_lengths_B.dtype == torch.int64
    assert (embeddings.dims.profile, embeddings.dims.attributes, embeddings.dims.position) == (8, 8, 8)
    assert embeddings.dims.profile_fields == (("user", 4), ("tags", 4))
    assert embeddings.dims.attribute_fields == (("shop", 4), ("item_tags", 4))
    assert embeddings.dims.position_fields == (("item", 4), ("category", 4))


def test_tables_start_from_seed_and_name_whatever_else_is_built():
    torch.manual_seed(3)
    full = FeatureEmbeddings(SCHEMA, config=SMALL)
    torch.manual_seed(3)
    torch.randn(1000)
    few = FeatureEmbeddings(SCHEMA, config=only("user", "hist_category", "category"))
    torch.manual_seed(4)
    other_seed = FeatureEmbeddings(SCHEMA, config=SMALL)
    weight = full.sequence.embeddings["t_category"].weight
    assert torch.equal(few.sequence.embeddings["t_category"].weight, weight)
    assert not torch.equal(other_seed.sequence.embeddings["t_category"].weight, weight)


def test_table_start_has_the_configured_spread():
    weight = torch.empty(4000, 8)
    TableInit(table="t_item", std=0.2)(weight)
    assert weight.std().item() == pytest.approx(0.2, rel=0.05)
    assert abs(weight.mean().item()) < 0.01


def test_tables_of_one_shape_start_differently():
    first, second = torch.empty(10, 8), torch.empty(10, 8)
    TableInit(table="t_item", std=0.2)(first)
    TableInit(table="t_user", std=0.2)(second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("shape", [(3, 4), (6040, 16), (INIT_BLOCK_ROWS, 2)])
def test_a_table_of_one_block_is_one_draw_from_seed_and_name(shape):
    torch.manual_seed(12)
    weight = torch.empty(shape)
    TableInit(table="t_item", std=0.2)(weight)
    generator = torch.Generator().manual_seed(12 + zlib.crc32(b"t_item"))
    assert torch.equal(weight, torch.normal(0.0, 0.2, shape, generator=generator))


def test_blocks_drawn_alone_are_the_rows_of_the_whole_table_and_differ():
    torch.manual_seed(12)
    start, shape = TableInit(table="t_item", std=0.2), (2 * INIT_BLOCK_ROWS + 1, 3)
    whole = torch.empty(shape)
    start(whole)
    blocks = [start.draw_block(block, seed=12, shape=shape) for block in (2, 0, 1)]
    assert [block.shape[0] for block in blocks] == [1, INIT_BLOCK_ROWS, INIT_BLOCK_ROWS]
    assert torch.equal(whole, torch.cat([blocks[1], blocks[2], blocks[0]]))
    assert not torch.equal(blocks[1], blocks[2])
    assert whole.isfinite().all()


@pytest.mark.parametrize("config", [FITConfig(), TwoTowerConfig()])
def test_tables_on_meta_leave_the_dense_weights_as_they_are_with_tables_on_the_cpu(config):
    tasks = []
    for device in (None, torch.device("meta")):
        torch.manual_seed(3)
        tasks.append(build_task(config, schema=SCHEMA, embeddings=SMALL, table_device=device))
    on_cpu, on_meta = (task.state_dict() for task in tasks)
    assert {name for name, value in on_meta.items() if value.is_meta} == {name for name in on_cpu if name.startswith("embeddings.")}
    assert all(torch.equal(value, on_cpu[name]) for name, value in on_meta.items() if not value.is_meta)


def test_dense_weights_start_as_if_torch_had_drawn_every_table():
    torch.manual_seed(3)
    build_task(TwoTowerConfig(), schema=SCHEMA, embeddings=SMALL, table_device=torch.device("meta"))
    after = torch.rand(1)
    torch.manual_seed(3)
    for rows in (50, 7, 11, 40, 9):
        torch.nn.Embedding(rows, 4)
    TwoTower(TwoTowerConfig(), dims=InputDims(profile=8, attributes=8, position=8))
    assert torch.equal(torch.rand(1), after)


def test_history_without_partner_has_no_table_and_reaches_the_model_as_ids():
    embeddings = FeatureEmbeddings(SCHEMA, config=SMALL)
    assert "t_time_lag" not in {c.name for c in embeddings.sequence.embedding_configs()}
    assert embeddings.dims.context == (("hist_time_lag", 5),)
    batch = random_batch(7)
    users, _ = embeddings(batch.pooled, batch.sequence)
    assert torch.equal(users.context_JF, batch.sequence["hist_time_lag"].values().unsqueeze(1))
    batch = random_batch(3, history_lengths=[0, 0, 0])
    assert embeddings(batch.pooled, batch.sequence)[0].context_JF.shape == (0, 1)


def test_without_time_lag_there_is_no_context():
    embeddings = FeatureEmbeddings(SCHEMA, config=only("hist_item", "item"))
    batch = random_batch(7)
    users, _ = embeddings(batch.pooled, batch.sequence)
    assert embeddings.dims.context == ()
    assert users.context_JF.shape == (users.history_JD.shape[0], 0)


def test_an_items_history_is_that_of_its_space():
    embeddings = FeatureEmbeddings(SCHEMA, config=SMALL)
    assert (embeddings.history_of("item"), embeddings.history_of("category")) == ("hist_item", "hist_category")
    with pytest.raises(ValueError, match="item feature 'shop' shares its id space with no history"):
        embeddings.history_of("shop")


def test_the_longest_history_is_told_of_the_features_that_are_used():
    longer = [dataclasses.replace(f, max_len=9) if f.name == "hist_category" else f for f in SCHEMA.features]
    schema = dataclasses.replace(SCHEMA, features=tuple(longer))
    assert FeatureEmbeddings(schema, config=SMALL).dims.history_len == 9
    assert FeatureEmbeddings(schema, config=only("hist_item", "item")).dims.history_len == 6
    assert FeatureEmbeddings(schema, config=only("user")).dims.history_len == 0


def test_context_without_a_history_is_refused():
    with pytest.raises(ValueError, match=r"\['hist_time_lag'\] would be looked up without a partner"):
        FeatureEmbeddings(SCHEMA, config=only("user", "hist_time_lag"))


def test_a_history_and_its_item_feature_come_together():
    with pytest.raises(ValueError, match=r"\['hist_item'\] would be looked up without a partner"):
        FeatureEmbeddings(SCHEMA, config=only("user", "hist_item"))


@pytest.mark.parametrize("features", [("user", "nobody"), ("user", "user"), ()])
def test_unknown_repeated_or_no_features_are_refused(features):
    with pytest.raises(ValueError, match="expected distinct names out of"):
        FeatureEmbeddings(SCHEMA, config=only(*features))


def test_a_space_that_is_pooled_and_sequential_is_refused_by_name():
    favourite = Feature(name="favourite", side="user", space="item", vocab_size=40)
    schema = dataclasses.replace(SCHEMA, features=(*SCHEMA.features, favourite))
    with pytest.raises(ValueError, match=r"id spaces \['item'\] are used by pooled and by sequence features"):
        FeatureEmbeddings(schema, config=SMALL)
    # left out, the rest is fine
    features = tuple(f.name for f in SCHEMA.features if f.name != "hist_time_lag")
    assert FeatureEmbeddings(schema, config=only(*features)).dims.position == 8


def test_two_item_features_for_one_history_are_refused():
    second = Feature(name="other_item", side="item", space="item", vocab_size=40)
    schema = dataclasses.replace(SCHEMA, features=(*SCHEMA.features, second))
    with pytest.raises(ValueError, match="several item features in its space 'item'"):
        FeatureEmbeddings(schema, config=SMALL)


def test_absent_kinds_of_features_have_width_zero():
    batch = random_batch(5)
    embeddings = FeatureEmbeddings(SCHEMA, config=only("user"))
    users, items = embeddings(batch.pooled, batch.sequence)
    assert embeddings.sequence is None
    assert users.history_JD.shape == (0, 0)
    assert users.history_lengths_B.tolist() == [0] * 5
    assert items.item_BD.shape == items.attributes_BA.shape == (5, 0)
    embeddings = FeatureEmbeddings(SCHEMA, config=only("hist_item", "item"))
    users, items = embeddings(batch.pooled, batch.sequence)
    assert embeddings.pooled is None
    assert users.profile_BU.shape == items.attributes_BA.shape == (5, 0)
    assert items.item_BD.shape == (5, 4)


@pytest.mark.parametrize("fields", [{"dim": 0}, {"init_std": 0.0}])
def test_bad_config_names_the_field(fields):
    with pytest.raises(ValueError, match=f"EmbeddingConfig.{next(iter(fields))}="):
        EmbeddingConfig(**fields)


def test_a_schema_without_history_trains_the_two_tower():
    batch = random_batch(5)
    task = build_task(TwoTowerConfig(), schema=SCHEMA, embeddings=only("user", "shop"))
    loss, _ = task(batch)
    loss.backward()
    assert task.embeddings.dims.position == 0
    assert torch.isfinite(loss)
