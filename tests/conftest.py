"""Options and fixtures that every test may use."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ml1m-raw", type=Path, default=None, help="folder of MovieLens-1M's .dat files (default: data/raw/ml-1m)")


@pytest.fixture(scope="session")
def ml1m_raw(pytestconfig: pytest.Config) -> Path:
    """Folder of the real MovieLens-1M files; skips where they are absent."""
    folder = pytestconfig.getoption("ml1m_raw") or pytestconfig.rootpath / "data" / "raw" / "ml-1m"
    if not (folder / "ratings.dat").is_file():
        pytest.skip(
            f"MovieLens-1M is not at {folder}: pass --ml1m-raw DIR, or run dataloaders.prepare.ml1m --download --raw {folder}"
        )
    return folder
