import pytest

from benchmarks.readme import serving_table
from benchmarks.serving import Arguments, measure
from tests.trainer.export.conftest import Case


@pytest.mark.usefixtures("program")
def test_the_benchmark_measures_every_artefact_beside_two_tower(fit_case: Case, two_tower_case: Case, t2diff_case: Case) -> None:
    arguments = Arguments(
        artefacts=(two_tower_case.folder, fit_case.folder, t2diff_case.folder),
        candidates=200,
        top_k=5,
        rounds=2,
        requests_per_round=3,
        clients=(1, 3),
        seconds=0.2,
    )
    rows = measure(arguments)
    assert [(row["model"], row["route"]) for row in rows] == [
        ("TwoTower", "score"),
        ("FIT", "score"),
        ("T2Diff", "score"),
        ("T2Diff", "retrieve"),
    ]
    for row in rows:
        assert 0 < float(row["p50_ms"]) <= float(row["p99_ms"])
        assert row["requests"] == "6"
        assert [rate.split(":")[0] for rate in row["requests_per_second"].split()] == ["1", "3"]
        assert all(float(rate.split(":")[1]) > 0 for rate in row["requests_per_second"].split())
        assert 0 < float(row["client_share"]) < 1.5
    by_model = {row["model"]: row for row in rows if row["route"] == "score"}
    assert by_model["TwoTower"]["times_two_tower"] == by_model["TwoTower"]["storage_times_two_tower"] == "1.000"
    store = fit_case.exported.manifest.store
    assert float(by_model["FIT"]["bytes_per_item"]) == store.bytes_per_item == 4 * store.heads * store.width + 1
    assert [row["top_k"] for row in rows] == ["", "", "", "5"]
    assert serving_table(rows).count("\n| ") == 4
