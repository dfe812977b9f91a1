from pathlib import Path

import pytest
from torch import nn

from tests.trainer.export.conftest import Case
from tests.trainer.export.small_runs import small_pre_ranking, trained_parts, untrained_parts
from tests.trainer.export.test_assemble import ANCESTRAL
from tests.trainer.small_matching import small_t2diff
from trainer.errors import UserError
from trainer.evaluation import load_run
from trainer.export.run_parts import run_parts, user_signature
from trainer.process_group import distributed


def test_a_request_gives_what_the_model_looks_at_and_no_more(small_matching: Path, tmp_path: Path) -> None:
    parts = untrained_parts(small_t2diff(small_matching, tmp_path, "--model.attention.session", "last_k"))
    assert "hist_new_session" not in parts.history_names
    assert set(parts.history_names) == {"hist_item", "hist_category", "hist_time_lag"}
    lags = untrained_parts(small_t2diff(small_matching, tmp_path, "--model.attention.time-lag", "None"))
    assert set(lags.history_names) == {"hist_item", "hist_category", "hist_new_session"}


def test_the_signature_is_in_schema_order_and_says_who_looks_up_what(fit_case: Case, t2diff_case: Case) -> None:
    for case in (fit_case, t2diff_case):
        parts = trained_parts(case.run)
        order = [feature.name for feature in parts.schema.features]
        signature = user_signature(parts)
        for names in ([f.name for f in signature.features], [f.name for f in signature.history], list(parts.item_names)):
            assert names == sorted(names, key=order.index)
        tables = {feature.name: feature.table for feature in (*signature.features, *signature.history)}
        assert tables["hist_item"] == "t_item"
        assert tables.get("hist_time_lag") is None
        assert signature == case.exported.manifest.user


def test_noise_is_as_long_as_the_sampler_needs(small_matching: Path, tmp_path: Path) -> None:
    few = untrained_parts(small_t2diff(small_matching, tmp_path))
    every = small_t2diff(small_matching, tmp_path, *ANCESTRAL)
    assert few.noise_size == 50 * 16
    assert untrained_parts(every).noise_size == 8 * 50 * 16


def test_a_model_without_the_serving_methods_is_named(small_demo: Path, tmp_path: Path, two_tower_case: Case) -> None:
    class Unserved(nn.Module):
        """A model that trains, and no more."""

    assert untrained_parts(small_pre_ranking("two_tower_demo", small_demo, tmp_path)).noise_size == 0
    run = two_tower_case.run
    with distributed("cpu") as ranks:
        loaded = load_run(run, run=run.run_dir, data=run.data, ranks=ranks)
    loaded.sharded.task.model = Unserved()
    with pytest.raises(UserError, match="Unserved has no all_user_vectors, item_vectors, score_candidates"):
        run_parts(loaded)
