"""The prepared forms of MovieLens-1M that the papers' tables read, each made from the raw files where it is missing."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.readme import ROOT
from dataloaders.prepare.ml1m import Ml1mConfig, prepare_ml1m
from dataloaders.prepare.protocols import ProtocolConfig
from trainer.recipes.ml1m_matching_baselines import SEQUENCES, TIME_GAPS

LAST_BUT_ONE: dict[str, Any] = {"validation": "last_but_one"}
EVERY_FIFTIETH = LAST_BUT_ONE | {"train_stride": 50}
SETTINGS: dict[Path, dict[str, Any]] = {
    Path("data/ml1m"): {"protocol": {}},
    Path("data/ml1m_stride10"): {"protocol": LAST_BUT_ONE | {"train_stride": 10}},
    Path("data/ml1m_stride50"): {"protocol": EVERY_FIFTIETH},
    Path("data/ml1m_last"): {"protocol": {"train_rows": "last"}},
    Path("data/ml1m_next_item"): {"task": "next_item", "protocol": LAST_BUT_ONE},
    TIME_GAPS: {"task": "next_item", "protocol": LAST_BUT_ONE, "time_gaps": True},
    SEQUENCES: {"task": "next_item", "protocol": EVERY_FIFTIETH, "time_gaps": True},
    Path("data/ml1m_user_windows"): {"task": "next_item", "protocol": {"split": "user_windows"}},
}
"""Folder -> fields of Ml1mConfig, and of its ProtocolConfig, that differ from their defaults."""


def prepare_missing(folders: Iterable[Path], *, raw: Path, download: bool) -> None:
    """Prepare each of SETTINGS that is named and is not there; other folders are passed over.

    Args:
        folders: of prepared data, below the repository's root.
        raw: folder of MovieLens-1M's files, below it too.
        download: whether to fetch them where one is missing.

    Raises:
        DataError: a raw file is missing or malformed.
    """
    for folder in dict.fromkeys(folders):
        if folder in SETTINGS and not (ROOT / folder / "schema.json").exists():
            prepare_ml1m(config_of_data(folder, raw=raw, download=download))


def config_of_data(folder: Path, *, raw: Path, download: bool) -> Ml1mConfig:
    """How one of SETTINGS is prepared."""
    settings = SETTINGS[folder]
    own = settings | {"protocol": ProtocolConfig(**settings["protocol"])}
    return Ml1mConfig(raw=ROOT / raw, out=ROOT / folder, download=download, **own)
