import pytest
import torch

from trainer.item_index import ItemIndexConfig
from trainer.item_index_report import measure, report

ITEMS, USERS = (torch.randn(rows, 8, generator=torch.Generator().manual_seed(rows)) for rows in (400, 60))


def test_the_report_has_a_row_per_index_with_the_settings_of_its_kind(capsys: pytest.CaptureFixture[str]) -> None:
    configs = [
        ItemIndexConfig(kind="flat", threads=2),
        ItemIndexConfig(kind="ivf", nlist=8, nprobe=8),
        ItemIndexConfig(kind="hnsw", m=4, ef_construction=10, ef_search=20),
    ]
    costs = [measure(ITEMS, USERS, config, k=5)[1] for config in configs]
    report(costs, title="items of a run", k=5)
    printed = capsys.readouterr().out
    assert "recall@5" in printed
    assert "nlist=8 nprobe=8" in printed
    assert "m=4 ef_construction=10 ef_search=20" in printed
    flat, lists, graph = costs
    assert flat.recall == lists.recall == 1 >= graph.recall > 0.5
    assert flat.num_bytes < graph.num_bytes
    assert flat.num_bytes == pytest.approx(400 * 8 * 4, rel=0.01)
    assert all(min(cost.build_seconds, cost.single_us, cost.batched_us) > 0 for cost in costs)
    assert "1.0000" in printed


def test_an_index_is_not_measured_without_users() -> None:
    with pytest.raises(ValueError, match="at least one user"):
        measure(ITEMS, USERS[:0], ItemIndexConfig(kind="flat"), k=5)
