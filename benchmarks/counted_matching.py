"""Matching baselines that are counted, not trained: popularity and item-based nearest neighbours, ranked as models are.

    python -m benchmarks.counted_matching --data data/ml1m_next_item     # records and prints their rows

Item-kNN is that of Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms" (TOIS 2004): an item's score is the sum of
its similarities, cosines of the sets of users who have it, to the items of the row's history that count it among their k nearest.
"""

# B rows, J behaviours of all histories (jagged), M items, N users

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
import tyro

from benchmarks.paper.cells import ITEM_KNN, POPULARITY
from benchmarks.readme import RESULTS
from benchmarks.result_rows import replace_rows
from dataloaders.negatives import item_frequencies
from dataloaders.parquet_reader import ParquetReader
from dataloaders.parquet_writer import split_types
from dataloaders.schema import Schema
from dataloaders.touched_items import TouchedItems
from models.ranking import ItemsOfUsers, ranks_of_scores
from trainer.cli import one_screen_errors
from trainer.provenance import provenance
from trainer.ranking_metrics import RankingMetrics

NEIGHBOURS = (3, 5, 10, 20, 50, 100, 300)
"""The k that validation picks from."""
METRICS = ("recall@2", "recall@10", "recall@20", "mrr@2", "mrr@20", "ndcg@10", "mrr")
MONITOR = "recall@20"
KEY = ("recipe", "dataset", "left_out")
ROWS_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Count, rank and record the baselines of a next_item data set."""

    data: Path = Path("data/ml1m_next_item")
    """Prepared data with the splits train, validation and test."""
    results: Path = RESULTS / "counted_matching.csv"
    """The file that their rows are added to."""


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    with one_screen_errors():
        rows = counted_rows(arguments.data)
        replace_rows(arguments.results, rows, key=KEY)
    for row in rows:
        print({name: row[name] for name in ("recipe", "left_out", "neighbours", *(f"test_{name}" for name in METRICS))})


def counted_rows(data: Path) -> list[dict[str, str]]:
    """Rows of benchmarks/results: both baselines, where all items compete (`left_out` is "nothing"), all but those of the row's own
    history ("history"), and all but those that the user ever touched ("user items"; without them k is as without the history).

    Raises:
        ValueError: the data is not for next-item ranking.
        DataError: a split is missing or broken.
    """
    schema = Schema.load(data)
    if schema.task != "next_item":
        raise ValueError(f"{schema.name} is of task {schema.task}; prepare the data with --task next_item")
    validation, test = read_histories(data / "validation", schema), read_histories(data / "test", schema)
    similarity = cosines(behaviours_of_users(data / "train", schema))
    neighbours = {k: by_neighbours(nearest(similarity, k)) for k in NEIGHBOURS}
    popularity = by_popularity(torch.from_numpy(item_frequencies(data / "train", schema)).double())
    protocols = {"nothing": (nothing, nothing), "history": (history, history), "user items": (history, touched_of(data, schema))}
    rows = []
    for left_out, (in_validation, in_test) in protocols.items():
        found = {k: measure(scores, validation, seen=in_validation)[MONITOR] for k, scores in neighbours.items()}
        best = max(NEIGHBOURS, key=lambda k: found[k])
        for recipe, scores, k in ((POPULARITY, popularity, ""), (ITEM_KNN, neighbours[best], str(best))):
            measured = measure(scores, test, seen=in_test), measure(scores, validation, seen=in_validation)
            rows.append(_row(schema, *measured) | {"recipe": recipe, "left_out": left_out, "neighbours": k})
    return rows


class Histories(NamedTuple):
    """Rows of a split: what is known of each, and what is to be found."""

    history_BM: sp.csr_array
    """float64: how often each item occurs in a row's history."""
    seen_J: torch.Tensor
    """int64: the items of all histories, row after row."""
    lengths_B: torch.Tensor
    """int64."""
    target_B: torch.Tensor
    """int64."""
    user_B: torch.Tensor
    """int64."""

    def rows(self, start: int, end: int) -> "Histories":
        """Some neighbouring rows."""
        first, last = (int(self.lengths_B[:row].sum()) for row in (start, end))
        history_BM = sp.csr_array(self.history_BM[start:end])
        lengths_B, target_B, user_B = (values_B[start:end] for values_B in (self.lengths_B, self.target_B, self.user_B))
        return Histories(history_BM, self.seen_J[first:last], lengths_B, target_B, user_B)


Scores = Callable[[Histories], torch.Tensor]
"""Scores of all items for each row, [B, M]."""
Seen = Callable[[Histories], dict[str, torch.Tensor]]
"""`seen_ids_J` and `seen_lengths_B` of `ranks_of_scores`: items that do not compete; neither where all do."""


def read_histories(folder: Path, schema: Schema) -> Histories:
    """All rows of a split's folder."""
    item_history = next(feature for feature in schema.side("history") if feature.space == schema.feature(schema.item_key).space)
    names = (item_history.name, schema.item_key, schema.user_key)
    group = ParquetReader.of_split(folder, types={name: split_types(schema)[name] for name in names}).read_all()
    column, num_items = group.lists[item_history.name], item_history.vocab_size
    once_J = np.ones(len(column.values))
    history_BM = sp.csr_array((once_J, column.values, column.offsets), shape=(group.num_rows, num_items))
    return Histories(
        history_BM,
        torch.from_numpy(column.values.astype(np.int64)),
        torch.from_numpy(np.diff(column.offsets).astype(np.int64)),
        *(torch.from_numpy(group.scalars[key].astype(np.int64)) for key in (schema.item_key, schema.user_key)),
    )


def behaviours_of_users(folder: Path, schema: Schema) -> sp.csr_array:
    """Which items each user has in a split's histories or targets, 0 or 1, float64 [N, M]."""
    item_T, end_U = TouchedItems.of_split(folder, schema).jagged
    shape = (len(end_U), schema.feature(schema.item_key).vocab_size)
    return sp.csr_array((np.ones(len(item_T)), item_T, np.concatenate([[0], end_U])), shape=shape)


def cosines(behaviour_NM: sp.csr_array) -> sp.csr_array:
    """Cosine of each two items' columns, without those of an item with itself; [M, M]."""
    common_MM = (behaviour_NM.T @ behaviour_NM).tocoo()
    size_M = np.maximum(behaviour_NM.sum(axis=0), 1.0)
    row_P, column_P = common_MM.coords
    cosine_P = common_MM.data / np.sqrt(size_M[row_P] * size_M[column_P])
    others = row_P != column_P
    return sp.csr_array((cosine_P[others], (row_P[others], column_P[others])), shape=common_MM.shape)


def nearest(similarity_MM: sp.csr_array, k: int) -> sp.csr_array:
    """Only each row's `k` largest entries; of equal ones those of lower items."""
    row_P, column_P = similarity_MM.tocoo().coords
    order_P = np.lexsort((column_P, -similarity_MM.data, row_P))
    place_P = np.arange(len(order_P)) - np.repeat(similarity_MM.indptr[:-1], np.diff(similarity_MM.indptr))
    kept = order_P[place_P < k]
    return sp.csr_array((similarity_MM.data[kept], (row_P[kept], column_P[kept])), shape=similarity_MM.shape)


def by_popularity(frequency_M: torch.Tensor) -> Scores:
    """An item scores how often it was a training row's target."""
    return lambda rows: frequency_M.expand(len(rows.target_B), -1)


def by_neighbours(similarity_MM: sp.csr_array) -> Scores:
    """An item scores the sum of the similarities of the history's items to it, rounded to float32 once."""
    return lambda rows: torch.from_numpy((rows.history_BM @ similarity_MM).toarray()).float()


def nothing(_rows: Histories) -> dict[str, torch.Tensor]:
    """All items compete."""
    return {}


def history(rows: Histories) -> dict[str, torch.Tensor]:
    """Items of a row's own history do not compete."""
    return {"seen_ids_J": rows.seen_J, "seen_lengths_B": rows.lengths_B}


def touched_of(data: Path, schema: Schema) -> Seen:
    """No item competes that the data set in `data` has for a row's user, but the target."""
    items = ItemsOfUsers(*(torch.from_numpy(values) for values in TouchedItems.load(data, schema).jagged))
    return lambda rows: dict(zip(("seen_ids_J", "seen_lengths_B"), items.of(rows.user_B), strict=True))


def measure(scores: Scores, rows: Histories, *, seen: Seen) -> dict[str, float]:
    """trainer.ranking_metrics over all rows; the loss among them means nothing, for such scores are no logits."""
    metrics = RankingMetrics()
    for start in range(0, len(rows.target_B), ROWS_AT_ONCE):
        part = rows.rows(start, min(start + ROWS_AT_ONCE, len(rows.target_B)))
        rank_B = ranks_of_scores(scores(part), part.target_B, **seen(part))
        metrics.update(rank_B, torch.zeros(len(rank_B)))
    return metrics.compute()


def _row(schema: Schema, found: dict[str, float], of_validation: dict[str, float]) -> dict[str, str]:
    return {
        "dataset": schema.name,
        **{f"test_{name}": f"{found[name]:.6f}" for name in METRICS},
        "test_recall@20_se": f"{found['recall@20_se']:.6f}",
        "test_rows": f"{found['num_rows']:.0f}",
        f"validation_{MONITOR}": f"{of_validation[MONITOR]:.6f}",
        "num_parameters": "0",
        "config": schema.identity[:12],
        **provenance(),
    }


if __name__ == "__main__":
    main()
