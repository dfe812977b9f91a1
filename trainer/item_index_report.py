"""What each kind of item index costs and finds: build time, bytes, recall against exact search, time per query."""

# B users, M items, C vector width

import time
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import faiss
import torch
from rich.table import Table

from trainer.console import console
from trainer.item_index import ItemIndex, ItemIndexConfig, build_index, recall_against_exact, search

SINGLE_QUERIES = 200
"""Users that are asked for one at a time, at most; their median is told."""
BATCH_ROUNDS = 3
"""Times that all users are asked for at once; the fastest is told."""


class IndexCost(NamedTuple):
    """Measurements of one index."""

    config: ItemIndexConfig
    """What was built."""
    build_seconds: float
    """Clustering and adding all items."""
    num_bytes: int
    """Size of the saved index."""
    recall: float
    """recall_against_exact over all users."""
    single_us: float
    """Median µs of a query alone."""
    batched_us: float
    """µs per query where all users are asked for in one call."""


def measure(item_MC: torch.Tensor, user_BC: torch.Tensor, config: ItemIndexConfig, *, k: int) -> tuple[ItemIndex, IndexCost]:
    """Build an index over `item_MC` [M, C] and search the `k` best items of every user of `user_BC` [B, C].

    Raises:
        ValueError: there are no users; or as `build_index` and `search`.
    """
    if user_BC.shape[0] == 0:
        raise ValueError("user_BC has no rows: an index is measured by searching for at least one user")
    started = time.perf_counter()
    index = build_index(item_MC, config)
    built = time.perf_counter() - started
    single = [_seconds(index, user_BC[row : row + 1], k) for row in range(min(SINGLE_QUERIES, user_BC.shape[0]))]
    batched = min(_seconds(index, user_BC, k) for _ in range(BATCH_ROUNDS))
    return index, IndexCost(
        config=config,
        build_seconds=built,
        num_bytes=len(faiss.serialize_index(index.faiss_index)),
        recall=recall_against_exact(index, user_BC, item_MC, k),
        single_us=median(single) * 1e6,
        batched_us=batched / user_BC.shape[0] * 1e6,
    )


def _seconds(index: ItemIndex, user_BC: torch.Tensor, k: int) -> float:
    started = time.perf_counter()
    search(index, user_BC, k)
    return time.perf_counter() - started


def report(costs: Sequence[IndexCost], *, title: str, k: int) -> None:
    """Print a row per index: recall@k against exact search, µs per query."""
    table = Table(title=title)
    table.add_column("kind")
    table.add_column("settings")
    for column in ("threads", "build s", "bytes", f"recall@{k}", "µs, one query", "µs, in a batch"):
        table.add_column(column, justify="right")
    for cost in costs:
        table.add_row(
            cost.config.kind,
            _settings(cost.config),
            str(cost.config.threads),
            f"{cost.build_seconds:.2f}",
            f"{cost.num_bytes:,}",
            f"{cost.recall:.4f}",
            f"{cost.single_us:,.0f}",
            f"{cost.batched_us:,.0f}",
        )
    console.print(table)


def _settings(config: ItemIndexConfig) -> str:
    """The fields that the kind uses."""
    used = {"flat": (), "ivf": ("nlist", "nprobe"), "hnsw": ("m", "ef_construction", "ef_search")}[config.kind]
    return " ".join(f"{name}={getattr(config, name)}" for name in used)
