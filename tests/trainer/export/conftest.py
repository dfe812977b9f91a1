import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.trainer.export.small_runs import export, small_matching_model, small_pre_ranking, train
from trainer.config import RunConfig
from trainer.export.export import Exported
from trainer.export.golden import Shape

FEW = [Shape(*size) for size in ((1, 1), (1, 300), (7, 20), (7, 2), (256, 4))]
"""Golden requests of exports that need not show all sizes again."""


class Case(NamedTuple):
    """A run and an artefact of it; whoever opens their folders must change nothing."""

    run: RunConfig
    folder: Path
    exported: Exported


@pytest.fixture(scope="session")
def fit_run(small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """FIT with 6 queries, 2 user heads and 3 item heads."""
    heads = ("--model.num-user-heads", "2", "--model.num-item-heads", "3", "--model.head-dim", "5")
    queries = ("--model.meta-query.num-queries", "6")
    return train(small_pre_ranking("fit_demo", small_demo, tmp_path_factory.mktemp("fit_run"), *heads, *queries))


@pytest.fixture(scope="session")
def two_tower_run(small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return train(small_pre_ranking("two_tower_demo", small_demo, tmp_path_factory.mktemp("two_tower_run")))


def case(run: RunConfig, folder: Path, **options: object) -> Case:
    return Case(run, folder / "artefact", export(run, folder / "artefact", **options))


@pytest.fixture(scope="session")
def fit_case(fit_run: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case(fit_run, tmp_path_factory.mktemp("fit_case"))


@pytest.fixture(scope="session")
def two_tower_case(two_tower_run: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case(two_tower_run, tmp_path_factory.mktemp("two_tower_case"))


def baseline_case(recipe: str, data: Path, folder: Path, *overrides: str) -> Case:
    """Of a recipe on MovieLens-1M, on the demo data."""
    demo = ("--loader.negatives.kind", "none", "--loader.batch-size", "1024")
    return case(train(small_pre_ranking(recipe, data, folder, *demo, *overrides)), folder)


@pytest.fixture(scope="session")
def dat_case(small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """DAT with augmented vectors of width 5 in rows of width 8."""
    widths = ("--model.augmented-dim", "5", "--model.category-rows", "2")
    return baseline_case("dat_ml1m", small_demo, tmp_path_factory.mktemp("dat_case"), *widths)


@pytest.fixture(scope="session")
def ranktower_case(small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """RankTower with 2 user heads and 3 item heads."""
    heads = ("--model.num-item-heads", "3", "--model.head-dim", "6")
    return baseline_case("ranktower_ml1m", small_demo, tmp_path_factory.mktemp("ranktower_case"), *heads)


@pytest.fixture(scope="session")
def inttower_case(small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """IntTower with 2 heads for each of two user layers and 3 item heads."""
    heads = ("--model.num-user-heads", "2", "--model.num-item-heads", "3", "--model.head-dim", "5")
    return baseline_case("inttower_ml1m", small_demo, tmp_path_factory.mktemp("inttower_case"), *heads)


@pytest.fixture(scope="session")
def cold_case(small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """COLD that keeps three fields."""
    return baseline_case("cold_ml1m", small_demo, tmp_path_factory.mktemp("cold_case"), "--model.num-fields", "3")


@pytest.fixture(scope="session")
def t2diff_case(matching_run: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case(matching_run, tmp_path_factory.mktemp("t2diff_case"))


@pytest.fixture(scope="session")
def fit_bytes_case(fit_run: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """FIT with 8-bit tables and items."""
    return case(fit_run, tmp_path_factory.mktemp("fit_bytes_case"), tables="quantised", vectors="int8")


@pytest.fixture(scope="session")
def t2diff_triton_case(matching_run: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """T2Diff in Triton's layout, with tables outside and 16-bit items."""
    folder = tmp_path_factory.mktemp("t2diff_triton_case")
    return case(matching_run, folder, tables="outside", vectors="float16", layout="triton")


@pytest.fixture(scope="session")
def matching_case(small_matching: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """The artefact of a short run of a matching recipe, made once, with the golden requests of FEW."""

    @functools.cache
    def made(recipe: str) -> Case:
        folder = tmp_path_factory.mktemp(recipe)
        run = train(small_matching_model(recipe, small_matching, folder / "runs"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("trainer.export.golden._shapes", lambda: FEW)
            return case(run, folder)

    return made


@pytest.fixture
def few_golden_requests(monkeypatch: pytest.MonkeyPatch) -> int:
    """Exports that a test makes itself are checked by the golden requests of FEW only."""
    monkeypatch.setattr("trainer.export.golden._shapes", lambda: FEW)
    return len(FEW)


@pytest.fixture(scope="session", params=["fit", "two_tower", "t2diff"])
def any_case(request: pytest.FixtureRequest) -> Case:
    """Each model's artefact in the default form in turn."""
    return request.getfixturevalue(f"{request.param}_case")


@pytest.fixture(scope="session", params=["fit", "two_tower", "dat", "ranktower", "t2diff", "fit_bytes", "t2diff_triton"])
def every_case(request: pytest.FixtureRequest) -> Case:
    """The artefacts of all models and forms in turn."""
    return request.getfixturevalue(f"{request.param}_case")
