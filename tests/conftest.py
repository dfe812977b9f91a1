"""Options and fixtures that every test may use."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from dataloaders.prepare.synthetic import SyntheticConfig, prepare_synthetic

if TYPE_CHECKING:
    from trainer.config import RunConfig

if torch.cuda.is_available():
    # tests/kernels/poison.py has to turn deterministic algorithms on, with which cuBLAS refuses to run under any other setting
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
else:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read where a kernel is decorated, so before anything imports one


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ml1m-raw", type=Path, default=None, help="folder of MovieLens-1M's .dat files (default: data/raw/ml-1m)")
    parser.addoption("--server-sanitizers", action="store_true", help="run the C++ server's tests under address and UB sanitizers")


@pytest.fixture(scope="session")
def ml1m_raw(pytestconfig: pytest.Config) -> Path:
    """Folder of the real MovieLens-1M files; skips where they are absent."""
    folder = pytestconfig.getoption("ml1m_raw") or pytestconfig.rootpath / "data" / "raw" / "ml-1m"
    if not (folder / "ratings.dat").is_file():
        pytest.skip(
            f"MovieLens-1M is not at {folder}: pass --ml1m-raw DIR, or run dataloaders.prepare.ml1m --download --raw {folder}"
        )
    return folder


@pytest.fixture(scope="session")
def small_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo data set at a thirtieth of its size: recipes on it take about ten steps an epoch at the demo's batch size."""
    folder = tmp_path_factory.mktemp("small_demo") / "data"
    prepare_synthetic(
        SyntheticConfig(out=folder, num_users=400, num_items=480, train_rows=10_001, validation_rows=1_000, test_rows=1_000)
    )
    return folder


@pytest.fixture(scope="session")
def small_matching(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared next_item data set of 120 users and 90 items; see small_matching.py."""
    from tests.trainer.small_matching import prepare_small_matching

    return prepare_small_matching(tmp_path_factory.mktemp("small_matching"))


@pytest.fixture(scope="session")
def matching_run(small_matching: Path, tmp_path_factory: pytest.TempPathFactory) -> "RunConfig":
    """A T2Diff run that was trained for two epochs on it and tested; whoever opens its folder must change nothing."""
    from tests.trainer.small_matching import small_t2diff
    from trainer.process_group import distributed
    from trainer.trainer import Trainer

    config = small_t2diff(small_matching, tmp_path_factory.mktemp("matching_run") / "runs")
    with distributed("cpu") as ranks, Trainer(config, ranks=ranks) as trainer:
        assert trainer.fit()
        trainer.test()
    return config
