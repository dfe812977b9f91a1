import pytest
import torch

from dataloaders.catalogue import read_catalogue
from models.tasks import EVALUATION_SEED
from tests.trainer.export.conftest import Case
from tests.trainer.export.small_runs import trained_parts
from trainer.build import evaluation_loader
from trainer.evaluation import load_run
from trainer.export.eager import eager_items, eager_users, item_tensors
from trainer.process_group import distributed


def test_eager_users_are_those_that_evaluation_scores(t2diff_case: Case) -> None:
    config = t2diff_case.run
    parts = trained_parts(config)
    with distributed("cpu") as ranks:
        loaded = load_run(config, run=config.run_dir, data=config.data, ranks=ranks)
        loader = evaluation_loader(config, folder=config.data / "test", schema=loaded.schema, ranks=ranks)
        batch = next(iter(loader))
        loader.close()
    with torch.no_grad():
        expected = loaded.sharded.task.user_vectors(batch)
    requests = []
    for row in range(batch.num_rows):
        history = {name: batch.sequence[name].to_dense()[row].tolist() for name in parts.history_names}
        requests.append({"user": {}, "history": history, "row_id": int(batch.row_id_B[row])})
    found = eager_users(parts, requests)
    torch.testing.assert_close(found[:, 0, 0], expected, atol=1e-6, rtol=0)
    assert parts.seed == EVALUATION_SEED


@pytest.mark.parametrize("name", ["fit_case", "two_tower_case"])
def test_item_tensors_are_the_catalogues_rows_in_the_towers_order(name: str, request: pytest.FixtureRequest) -> None:
    case: Case = request.getfixturevalue(name)
    parts = trained_parts(case.run)
    catalogue = read_catalogue(case.run.data, parts.schema, bad_rows="raise")
    values, lengths = item_tensors(parts, catalogue, 3, 10)
    assert lengths.shape == (len(parts.item_names), 7)
    ends = lengths.flatten().cumsum(0).reshape(lengths.shape)
    keyed = {key: kjt[key] for kjt in (catalogue.pooled, catalogue.sequence) for key in kjt.keys()}  # noqa: SIM118  (no dict)
    for row, feature in enumerate(parts.item_names):
        for item in range(7):
            end = int(ends[row, item])
            expected = keyed[feature].to_dense()[3 + item]
            assert values[end - int(lengths[row, item]) : end].tolist() == expected.tolist()


def test_the_offline_pass_gives_every_item_an_index_below_the_number_of_queries(fit_case: Case) -> None:
    parts = trained_parts(fit_case.run)
    catalogue = read_catalogue(fit_case.run.data, parts.schema, bad_rows="raise")
    index_M, item_MHP = eager_items(parts, catalogue)
    assert index_M.shape == (480,)
    assert item_MHP.shape == (480, 3, 5)
    assert int(index_M.min()) >= 0
    assert int(index_M.max()) < 6


def test_every_history_that_is_an_input_counts_and_no_other_is_looked_at(t2diff_case: Case) -> None:
    parts = trained_parts(t2diff_case.run)
    # the last behaviour is the session, and the time lag weighs the three before it
    full = {
        "hist_item": [3, 4, 5, 6],
        "hist_category": [1, 0, 2, 0],
        "hist_time_lag": [5, 2, 1, 0],
        "hist_new_session": [0, 0, 0, 1],
    }
    assert set(parts.history_names) == set(full)
    changes: list[dict] = [{}, {"unknown": [7, 7, 7, 7]}]
    changes += [{name: [0, 1, 1, 0] if name == "hist_new_session" else [2, 2, 2, 2]} for name in full]
    given, same, *others = (eager_users(parts, [{"user": {}, "history": full | change}]) for change in changes)
    assert torch.equal(given, same)
    assert not any(torch.equal(given, other) for other in others)
