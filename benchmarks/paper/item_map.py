"""FIT Fig. 6: every item's embedding and the item meta vectors, projected to two dimensions by t-SNE."""

# M items, N meta queries, D width of an item's attributes

import logging

import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from benchmarks.readme import ROOT
from dataloaders.catalogue import read_catalogue
from trainer.config import RunConfig
from trainer.errors import CheckpointError
from trainer.evaluation import load_run
from trainer.process_group import distributed

log = logging.getLogger(__name__)
SEED = 0


def draw_item_map(config: RunConfig) -> Figure | None:
    """The map of a finished FIT run; None where its data or its checkpoints are gone."""
    run, data = ROOT / config.run_dir, ROOT / config.data
    if not (data / "schema.json").exists():
        return None
    with distributed("cpu") as ranks:
        try:
            loaded = load_run(config, run=run, data=data, ranks=ranks)
        except CheckpointError as error:
            log.warning("no map of the items: %s", error)
            return None
        catalogue = read_catalogue(data, loaded.schema)
        with torch.no_grad():
            _, items = loaded.sharded.task.embeddings(catalogue.pooled, catalogue.sequence)
            queries = loaded.sharded.task.model.meta_query
            return plot_items(items.item_BD, queries.query_group(), queries(items.item_BD).index_B)


def plot_items(item_MD: torch.Tensor, query_ND: torch.Tensor, index_M: torch.Tensor) -> Figure:
    """Items as dots, coloured by their query's index; meta vectors that some item maps to as crosses of that colour.

    Cosine distances: a query is picked by a dot product, and Q* is as long as eq. 5 makes it.
    """
    used_K = index_M.unique()
    joined_XD = torch.cat([item_MD, query_ND[used_K]]).numpy()
    place_X2 = TSNE(metric="cosine", init="random", perplexity=min(30.0, len(joined_XD) / 4), random_state=SEED).fit_transform(
        joined_XD
    )
    colour_X = np.concatenate([index_M.numpy(), used_K.numpy()]) % 20
    figure, axes = pyplot.subplots(figsize=(6.4, 6.0), layout="constrained")
    num_items = len(item_MD)
    axes.scatter(*place_X2[:num_items].T, c=colour_X[:num_items], cmap="tab20", vmin=0, vmax=19, s=3, linewidths=0)
    axes.scatter(
        *place_X2[num_items:].T, c=colour_X[num_items:], cmap="tab20", vmin=0, vmax=19, s=60, marker="X", edgecolors="black"
    )
    title = f"{num_items:,} items, {len(used_K)} of {len(query_ND)} item meta vectors in use (FIT Fig. 6; t-SNE, cosine)"
    axes.set_title(title, fontsize="small")
    axes.set_xticks([])
    axes.set_yticks([])
    return figure
