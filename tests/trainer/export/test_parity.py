import copy
import json
import shutil
from pathlib import Path

import pytest
import torch

from dataloaders.catalogue import read_catalogue
from tests.trainer.export.conftest import Case
from tests.trainer.export.small_runs import trained_parts
from trainer.errors import CheckpointError
from trainer.export.artefact import Artefact
from trainer.export.eager import eager_items
from trainer.export.golden import ANSWERS
from trainer.export.parity import check_answers, check_items, same_order, score_error


@pytest.mark.parametrize(("change", "fails"), [(2e-6, False), (3e-4, True)])
def test_golden_scores_may_differ_by_rounding_and_no_more(any_case: Case, tmp_path: Path, change: float, fails: bool) -> None:
    artefact = Artefact(any_case.folder)
    artefact.folder = tmp_path  # loaded and verified already; the golden files alone are read again
    shutil.copy(any_case.folder / "golden_requests.jsonl", tmp_path)
    lines = (any_case.folder / ANSWERS).read_text().splitlines()
    body = json.loads(lines[40])
    body["answers"][0]["scores"][0] += change
    lines[40] = json.dumps(body)
    (tmp_path / ANSWERS).write_text("\n".join(lines) + "\n")
    if fails:
        with pytest.raises(CheckpointError, match="golden request 40, row 0"):
            check_answers(artefact)
    else:
        assert check_answers(artefact).bodies == 64


def test_another_query_index_of_one_item_is_found(fit_case: Case) -> None:
    parts, artefact = trained_parts(fit_case.run), Artefact(fit_case.folder)
    catalogue = read_catalogue(fit_case.run.data, parts.schema, bad_rows="raise")
    expected = eager_items(parts, catalogue)
    check_items(artefact, expected, parts=parts, catalogue=catalogue)
    other = expected._replace(index_B=expected.index_B.clone())
    other.index_B[77] += 1
    with pytest.raises(CheckpointError, match="the same query index"):
        check_items(artefact, other, parts=parts, catalogue=catalogue)
    shifted = expected._replace(item_BHP=expected.item_BHP + torch.eye(480)[470][:, None, None] * 1e-4)
    with pytest.raises(CheckpointError, match="among items 0 to 479"):
        check_items(artefact, shifted, parts=parts, catalogue=catalogue)


def test_the_error_of_an_answer_is_its_largest_and_another_length_is_infinite() -> None:
    assert score_error({"scores": [1.0, 2.0]}, {"scores": [1.5, 1.0]}) == 1.0
    assert score_error({"scores": [1.0]}, {"scores": [1.0, 2.0]}) == float("inf")


def test_only_ties_may_change_places() -> None:
    golden = {"items": [4, 9, 2], "scores": [3.0, 3.0 - 1e-6, 1.0]}
    swapped = {"items": [9, 4, 2], "scores": [3.0, 3.0, 1.0]}
    assert same_order(golden, golden)
    assert same_order(swapped, golden)
    assert not same_order({"items": [4, 2, 9], "scores": [3.0, 3.0, 1.0]}, golden)
    assert not same_order({"items": [4, 9, 9], "scores": [3.0, 3.0, 1.0]}, golden), "an item is given once"
    top = {"scores": [1.0, 5.0, 5.0], "top": [{"position": 1, "score": 5.0}, {"position": 2, "score": 5.0}]}
    other = copy.deepcopy(top)
    other["top"].reverse()
    assert same_order(other, top)
    other["top"][0]["position"] = 0
    assert not same_order(other, top)
    assert not same_order(top, {"scores": [1.0]})
