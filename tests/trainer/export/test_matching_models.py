"""Every matching model is exported, from its recipe to an artefact that answers as the run does."""

from collections.abc import Callable

import pytest

from models import MODELS
from models.tasks import MatchingTask
from tests.trainer.export.conftest import FEW, Case
from trainer.export.golden import read_golden
from trainer.recipes import RECIPES

MATCHING = [f"{name}_ml1m" for name, spec in MODELS.items() if spec.task_class is MatchingTask]
ABLATIONS = ["t2diff_no_drift_ml1m", "mixed_attention_ml1m"]


@pytest.mark.parametrize("recipe", [*MATCHING, *ABLATIONS])
def test_every_matching_model_answers_from_its_artefact_as_in_python(recipe: str, matching_case: Callable[[str], Case]) -> None:
    case = matching_case(recipe)
    manifest, (parity,) = case.exported.manifest, case.exported.parity.values()
    assert manifest.origin.task == "matching"
    assert type(RECIPES[recipe]().model).__name__ == f"{manifest.origin.model}Config"
    assert parity.bodies == len(FEW)
    assert parity.max_error <= 1e-5
    assert (manifest.store.num_items, manifest.user.width) == (90, manifest.store.width)


@pytest.mark.parametrize("recipe", MATCHING)
def test_a_users_history_decides_what_is_retrieved(recipe: str, matching_case: Callable[[str], Case]) -> None:
    """Golden answers that were all alike would agree whatever a tower does."""
    case = matching_case(recipe)
    scores = [
        tuple(row["scores"])
        for body, answers in read_golden(case.folder)
        for request, row in zip(body["requests"], answers["answers"], strict=True)
        if request.get("top_k") == 90 and "candidates" not in request and len(next(iter(request["history"].values()))) > 1
    ]
    assert len(scores) > 50
    assert len(set(scores)) == len(scores)
