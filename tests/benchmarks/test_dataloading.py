"""The benchmark's variants make batches of the same rows."""

from pathlib import Path

import pytest
import torch

from benchmarks.dataloading import Options, generate, measure_all, python_rows, report, torch_dataloader
from dataloaders.batch import Batch

OPTIONS = Options(rows=700, slow_rows=700, batch_size=128, repeats=1, out=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    generate(folder, num_rows=OPTIONS.rows, seed=0)
    return folder


def histories(batches: list[Batch]) -> dict[int, tuple]:
    """row_id -> its ids of every key."""
    rows = {}
    for batch in batches:
        keyed = [jagged for tensor in (batch.pooled, batch.sequence) for jagged in tensor.to_dict().values()]
        split = [torch.split(jagged.values(), jagged.lengths().tolist()) for jagged in keyed]
        for place, row_id in enumerate(batch.row_id_B.tolist()):
            rows[row_id] = tuple(tuple(column[place].tolist()) for column in split)
    return rows


def test_the_slow_variants_read_the_same_rows_as_each_other(folder: Path) -> None:
    first, second = (histories(list(variant(folder, OPTIONS))) for variant in (python_rows, torch_dataloader))
    assert len(first) == OPTIONS.rows
    assert first == second


def test_a_run_reports_every_variant_with_its_ratios(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = report(measure_all(folder, OPTIONS), OPTIONS)
    assert [row["variant"] for row in rows] == [
        "python_rows",
        "torch_dataloader",
        "loader cold",
        "loader cached",
        "loader+uniform cold",
        "loader+uniform cached",
    ]
    assert rows[0]["times_python_rows"] == 1
    assert all(row["least"] <= row["rows_per_cpu_second"] <= row["most"] for row in rows)
    assert "loader cached" in capsys.readouterr().out
