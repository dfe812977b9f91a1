"""Nearest items of a user vector by FAISS: exact, inverted lists, or a graph, always by the inner product."""

# B users, M items, K neighbours, C vector width

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import faiss
import numpy as np
import torch

from models.ranking import exact_scores, top_items
from trainer.durable_file import write_durably
from trainer.errors import CheckpointError

Kind = Literal["flat", "ivf", "hnsw"]
FORMAT_VERSION = 1
MIN_ITEMS_PER_LIST = faiss.ClusteringParameters().min_points_per_centroid
"""Below this FAISS itself warns that a list's centre is not learned from enough items (39)."""
ROWS_AT_ONCE = 256
"""Users whose found items' vectors are looked at together where recall is measured."""


@dataclass(frozen=True, kw_only=True)
class ItemIndexConfig:
    """How items are indexed and how hard a search looks.

    The metric is no choice: the towers' score is a dot product, so the index compares by the inner product, and nothing is
    normalised.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    kind: Kind = "hnsw"
    """`flat` compares with every item and is exact; `ivf` with those of the nearest lists; `hnsw` walks a graph of neighbours."""
    nlist: int = 64
    """Lists that items are clustered into; `ivf` only. About the square root of the number of items."""
    nprobe: int = 8
    """Lists that a search looks into, at most `nlist`; `ivf` only."""
    m: int = 32
    """Neighbours of an item in the graph (twice as many in its lowest layer); `hnsw` only."""
    ef_construction: int = 200
    """Candidates that are kept while an item's neighbours are chosen; `hnsw` only."""
    ef_search: int = 128
    """Candidates that a search keeps, at least the number of items asked for; `hnsw` only."""
    seed: int = 0
    """Of the clustering (`ivf`) or of the items' layers (`hnsw`)."""
    threads: int = 1
    """Threads that build and search. With more than 1 an `hnsw` graph differs from build to build."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"ItemIndexConfig.kind={self.kind!r}, expected one of {get_args(Kind)}")
        for name, least in {"nlist": 1, "nprobe": 1, "m": 2, "ef_construction": 1, "ef_search": 1, "seed": 0, "threads": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"ItemIndexConfig.{name}={getattr(self, name)}, expected at least {least}")
        if self.nprobe > self.nlist:
            raise ValueError(f"ItemIndexConfig.nprobe={self.nprobe}, expected at most nlist={self.nlist}")
        if self.seed >= 2**31:
            raise ValueError(f"ItemIndexConfig.seed={self.seed}, expected below 2**31")


class ItemIndex(NamedTuple):
    """An index that is ready to search; item i is row i of the vectors that it was built from."""

    config: ItemIndexConfig
    """How it was built, and how it is searched."""
    faiss_index: faiss.Index
    """FAISS's own object; carries nprobe and ef_search."""

    @property
    def num_items(self) -> int:
        """M."""
        return self.faiss_index.ntotal

    @property
    def dim(self) -> int:
        """C."""
        return self.faiss_index.d


def build_index(item_MC: torch.Tensor, config: ItemIndexConfig) -> ItemIndex:
    """Index the vectors of all items, float [M, C]; they are copied, as float32.

    Raises:
        ValueError: a vector is not finite, there are none, or too few of them for `nlist` lists.
    """
    vectors_MC = _as_array("item_MC", item_MC)
    num_items, dim = vectors_MC.shape
    if num_items == 0 or dim == 0:
        raise ValueError(f"item_MC has shape {vectors_MC.shape}, expected at least one item and one dimension")
    if config.kind == "ivf" and num_items < MIN_ITEMS_PER_LIST * config.nlist:
        most = num_items // MIN_ITEMS_PER_LIST
        choose = f"choose nlist of at most {most}, or kind=flat" if most else "choose kind=flat"
        needed = f"each list needs {MIN_ITEMS_PER_LIST} to learn its centre"
        raise ValueError(f"{num_items} items are too few for nlist={config.nlist}: {needed}; {choose}")
    index = _empty_index(dim, config)
    with _threads(config.threads):
        index.train(vectors_MC)
        index.add(vectors_MC)
    return ItemIndex(config, index)


def _empty_index(dim: int, config: ItemIndexConfig) -> faiss.Index:
    if config.kind == "flat":
        return faiss.IndexFlatIP(dim)
    if config.kind == "hnsw":
        graph = faiss.IndexHNSWFlat(dim, config.m, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = config.ef_construction
        graph.hnsw.efSearch = config.ef_search
        graph.hnsw.rng = faiss.RandomGenerator(config.seed)
        return graph
    lists = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, config.nlist, faiss.METRIC_INNER_PRODUCT)
    lists.cp.seed = config.seed
    lists.nprobe = config.nprobe
    return lists


def search(index: ItemIndex, user_BC: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each user's `k` items of highest inner product that the index finds, best first.

    Returns:
        Scores float32 [B, k] and ids int64 [B, k], on the CPU. Where the index finds fewer (an `ivf` whose lists hold fewer), the
        last places hold -inf and -1, as in `models.ranking.top_items`.

    Raises:
        ValueError: the width is another than the items', a vector is not finite, or k is not in 1 … M.
    """
    queries_BC = _as_array("user_BC", user_BC)
    if queries_BC.shape[1] != index.dim:
        raise ValueError(f"user_BC has shape {queries_BC.shape}, expected [B, {index.dim}], the width of the indexed items")
    if not 1 <= k <= index.num_items:
        raise ValueError(f"k={k}, expected 1 to {index.num_items}, the number of items")
    with _threads(index.config.threads):
        score_BK, item_BK = index.faiss_index.search(queries_BC, k)
    items = torch.from_numpy(item_BK)
    return torch.from_numpy(score_BK).masked_fill_(items < 0, -torch.inf), items


def recall_against_exact(index: ItemIndex, user_BC: torch.Tensor, item_MC: torch.Tensor, k: int) -> float:
    """Mean share of each user's exact top `k` that the index returns; NaN for no users.

    An item that ties with the k-th counts as one of the top k, so that equal vectors can stand for each other.

    Args:
        index: over `item_MC`.
        user_BC: user vectors, float [B, C].
        item_MC: the vectors that the index was built from, float [M, C].
        k: items per user.

    Raises:
        ValueError: `item_MC` has another shape than the indexed vectors; or as `search`.
    """
    if tuple(item_MC.shape) != (index.num_items, index.dim):
        raise ValueError(f"item_MC has shape {tuple(item_MC.shape)}, but the index holds [{index.num_items}, {index.dim}]")
    _, found_BK = search(index, user_BC, k)
    hits, item_MC = 0, item_MC.cpu()
    for users_BC, items_BK in zip(user_BC.cpu().split(ROWS_AT_ONCE), found_BK.split(ROWS_AT_ONCE), strict=True):
        exact_BK, _ = top_items(users_BC, item_MC, k)
        scores_BK = exact_scores(users_BC, item_MC[items_BK.clamp(min=0)])
        hits += int(((scores_BK >= exact_BK[:, -1:]) & (items_BK >= 0)).sum())
    return hits / found_BK.numel() if found_BK.numel() else float("nan")


def save_index(index: ItemIndex, path: Path) -> None:
    """Write FAISS's own format to `path`, which any FAISS can read, and what it is and its sha256 to `path`.json beside it."""
    content = faiss.serialize_index(index.faiss_index).tobytes()
    description = {
        "format_version": FORMAT_VERSION,
        "num_items": index.num_items,
        "dim": index.dim,
        "metric": "inner_product",
        "config": dataclasses.asdict(index.config),
        "faiss_version": faiss.__version__,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_durably(path, content)
    # last: whoever finds it finds the index that it describes, or by its digest that it does not
    write_durably(_description_path(path), json.dumps(description, indent=2) + "\n")


def load_index(path: Path) -> ItemIndex:
    """Read what `save_index` wrote; nothing is handed to FAISS before its digest is right.

    Raises:
        CheckpointError: a file is missing, damaged, of another format, or the two do not belong together.
    """
    beside = _description_path(path)
    again = "build and save the index again"
    try:
        description, content = json.loads(beside.read_text()), path.read_bytes()
        if description["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format_version {description['format_version']}, this program reads {FORMAT_VERSION}")
        config, shape = ItemIndexConfig(**description["config"]), (description["num_items"], description["dim"])
        digest = description["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: no readable item index with its description {beside.name} ({error!r}); {again}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise CheckpointError(f"{path}: its {len(content)} bytes are not those that {beside.name} describes (sha256); {again}")
    index = faiss.deserialize_index(np.frombuffer(content, dtype=np.uint8))
    if (index.ntotal, index.d) != shape or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise CheckpointError(f"{path}: holds {index.ntotal} items of width {index.d}, which {beside.name} does not say; {again}")
    return ItemIndex(config, index)


def _description_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _as_array(name: str, vectors: torch.Tensor) -> np.ndarray:
    if vectors.dim() != 2:
        raise ValueError(f"{name} has shape {tuple(vectors.shape)}, expected [rows, C]")
    array = np.ascontiguousarray(vectors.detach().float().cpu().numpy())
    wrong = int((~np.isfinite(array)).any(axis=1).sum())
    if wrong:
        raise ValueError(f"{wrong} of {len(array)} vectors of {name} are NaN or infinite")
    return array


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """FAISS's thread number is one for the whole process: set it, and put it back."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(number)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
