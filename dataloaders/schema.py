"""The one contract that data preparation, models, export and the C++ server share: which features a row has.

A prepared data set is a folder::

    DIR/
      schema.json                    this module's Schema
      items.parquet                  one row per item id: the item-side columns (row i describes item id i)
      user_items.parquet             optional: every (user, item) pair ever touched, sorted, for negative sampling
      train/part-00000.parquet ...   rows; columns named as the features, list columns where max_len > 1
      validation/part-00000.parquet ...
      test/part-00000.parquet ...
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dataloaders.errors import DataError

Side = Literal["user", "item", "history"]
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One categorical column of the data: ids in [0, vocab_size), `max_len` of them at most in a row.

    Features that name the same id space share one embedding table, ``t_<space>``.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    name: str
    """Column name in the Parquet files."""
    side: Side
    """`user` and `item` describe one side of the pair; `history` is aligned with the user's past behaviours."""
    space: str
    """Id space: `hist_item` and `item` both have space `item`, and so one table."""
    vocab_size: int
    """Number of ids; a row's ids are in [0, vocab_size)."""
    max_len: int = 1
    """1: a scalar column of exactly one id. Above 1: a list column of at most this many ids."""
    min_len: int = 1
    """Fewest ids in a row; 0 allows an empty list (a new user's history, an item without genres)."""

    def __post_init__(self) -> None:
        where = f"feature {self.name!r}"
        if not self.name or not self.space:
            raise ValueError(f"{where}: name and space must not be empty (space={self.space!r})")
        if self.side not in ("user", "item", "history"):
            raise ValueError(f"{where}: side={self.side!r}, expected user, item or history")
        if self.vocab_size < 1:
            raise ValueError(f"{where}: vocab_size={self.vocab_size}, expected at least 1")
        if self.max_len < 1 or not 0 <= self.min_len <= self.max_len:
            raise ValueError(
                f"{where}: min_len={self.min_len}, max_len={self.max_len}, expected 0 <= min_len <= max_len, 1 <= max_len"
            )

    @property
    def is_list(self) -> bool:
        """Whether the column holds lists (histories are lists even where max_len is 1)."""
        return self.max_len > 1 or self.side == "history" or self.min_len == 0

    @property
    def table(self) -> str:
        """Name of the embedding table that this feature looks up."""
        return f"t_{self.space}"


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The columns of a prepared data set, in their fixed order.

    Raises:
        ValueError: names repeat, a table's features disagree about vocab_size, or a key does not name a feature.

    Example::

        schema = Schema.load(Path("data/ml1m"))
        [feature.name for feature in schema.side("history")]  # ['hist_item', 'hist_category']
    """

    name: str
    """Data set and protocol, for reports: `ml1m/next_behaviour/leave_one_out`."""
    features: tuple[Feature, ...]
    """Every feature, in the order in which batches carry them."""
    user_key: str
    """The feature that identifies the user."""
    item_key: str
    """The feature that identifies the target item."""
    label: str = "label"
    """Float column in [0, 1]; finite."""
    row_id: str = "row_id"
    """int64 column, unique over a split: names a row in errors and keys its negatives."""
    task: str = "next_behaviour"
    """What rows are: `next_behaviour` (positives, against sampled items), `next_item` (positives, against all items), or labelled
    ones: `rating`, `click`."""
    num_rows: dict[str, int] = dataclasses.field(default_factory=dict)
    """Rows of each split."""
    content_id: str = ""
    """sha256 over the data set's Parquet files (`content_id_of`), written by the preparation; empty for hand-made data."""

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"schema {self.name!r}: features {repeated} are declared more than once; names must be unique")
        for key, expected in ((self.user_key, "user"), (self.item_key, "item")):
            if key not in names or self.feature(key).side != expected:
                raise ValueError(f"schema {self.name!r}: key {key!r} must name a feature of side {expected}; have {names}")
        for space in {feature.space for feature in self.features}:
            sizes = {f.name: f.vocab_size for f in self.features if f.space == space}
            if len(set(sizes.values())) > 1:
                raise ValueError(f"schema {self.name!r}: space {space!r} is one table, but its features disagree: {sizes}")

    def feature(self, name: str) -> Feature:
        """The feature called `name`; KeyError lists the known ones."""
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(f"no feature {name!r} in schema {self.name!r}; have {[f.name for f in self.features]}")

    def side(self, side: Side) -> tuple[Feature, ...]:
        """All features of one side, in order."""
        return tuple(feature for feature in self.features if feature.side == side)

    @property
    def sequence_features(self) -> tuple[Feature, ...]:
        """Features looked up one vector per id: the history, and the item features that share a space with it (eq. 4 of FIT)."""
        spaces = {feature.space for feature in self.side("history")}
        return tuple(f for f in self.features if f.side == "history" or (f.side == "item" and f.space in spaces and not f.is_list))

    @property
    def pooled_features(self) -> tuple[Feature, ...]:
        """Features looked up as one pooled vector per row: everything that is not a sequence feature."""
        sequence = {feature.name for feature in self.sequence_features}
        return tuple(feature for feature in self.features if feature.name not in sequence)

    @property
    def fingerprint(self) -> str:
        """sha256 over everything but row counts and content: two data sets with one fingerprint feed the same model."""
        content = dataclasses.asdict(self) | {"num_rows": None}
        del content["content_id"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def identity(self) -> str:
        """sha256 over the fingerprint and the content: two data sets with one identity hold the same rows."""
        return hashlib.sha256(f"{self.fingerprint}\0{self.content_id}".encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write `folder`/schema.json."""
        content = {"format_version": FORMAT_VERSION} | dataclasses.asdict(self)
        (folder / "schema.json").write_text(json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Schema":
        """Read `folder`/schema.json; DataError names the file and what is wrong with it."""
        path = folder / "schema.json"
        try:
            content = json.loads(path.read_text())
            version = content.pop("format_version")
            content["features"] = tuple(Feature(**feature) for feature in content["features"])
            schema = cls(**content)
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; prepare the data set first: python -m dataloaders.prepare.<name>") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path}: not a schema of format {FORMAT_VERSION}: {error}; prepare the data set again") from error
        if version != FORMAT_VERSION:
            raise DataError(f"{path}: format_version={version}, expected {FORMAT_VERSION}; prepare the data set again")
        return schema


def content_id_of(folder: Path) -> str:
    """sha256 over (path below `folder`, sha256 of the bytes) of every Parquet file, ordered by path; reads in blocks.

    Raises:
        DataError: there is no Parquet file.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.parquet")}
    if not paths:
        raise DataError(f"{folder}: no *.parquet files below it, so there is no content to identify; prepare the data set first")
    digest = hashlib.sha256()
    for name, path in sorted(paths.items()):
        with path.open("rb") as file:
            digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
