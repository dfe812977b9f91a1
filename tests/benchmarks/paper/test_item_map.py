from pathlib import Path

import pytest
import torch
from matplotlib import pyplot

from benchmarks.paper.cells import Cell
from benchmarks.paper.item_map import draw_item_map, plot_items
from benchmarks.paper.rows import config_of
from benchmarks.paper.smoke import prepare, train_all, words_for


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


def test_items_of_one_query_lie_together_around_it():
    generator = torch.Generator().manual_seed(0)
    query_ND = 5 * torch.eye(3, 8)
    index_M = torch.arange(3).repeat_interleave(20)
    item_MD = query_ND[index_M] + 0.3 * torch.randn(60, 8, generator=generator)
    figure = plot_items(item_MD, query_ND, index_M)
    items, queries = (torch.tensor(collection.get_offsets().tolist()) for collection in figure.axes[0].collections)
    assert (torch.cdist(items, queries).argmin(1) == index_M).float().mean() > 0.9
    assert "60 items, 3 of 3 item meta vectors" in figure.axes[0].get_title()


def test_meta_vectors_that_no_item_maps_to_are_left_out():
    figure = plot_items(torch.randn(30, 4), torch.randn(5, 4), torch.arange(30) % 2)
    assert [len(collection.get_offsets()) for collection in figure.axes[0].collections] == [30, 2]


def test_every_item_of_a_finished_runs_catalogue_is_on_the_map(tmp_path: Path):
    data = prepare("fit", tmp_path)
    cell = Cell(label="FIT", recipe="fit_ml1m_paper", overrides=words_for("fit", data))
    config = config_of(cell, seed=0)
    assert draw_item_map(config) is None  # no checkpoint yet
    train_all([cell])
    figure = draw_item_map(config)
    assert figure is not None
    assert len(figure.axes[0].collections[0].get_offsets()) == 60
