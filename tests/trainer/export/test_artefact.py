import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.trainer.export.conftest import Case
from trainer.errors import CheckpointError, exit_code
from trainer.export.artefact import Artefact
from trainer.export.golden import read_golden
from trainer.export.manifest import FILE_NAME, read_manifest
from trainer.export.parity import score_error
from trainer.export.requests import draw_requests, user_tensors


@pytest.fixture
def copied(two_tower_case: Case, tmp_path: Path) -> Path:
    return shutil.copytree(two_tower_case.folder, tmp_path / "artefact")


def test_a_changed_byte_of_any_file_is_refused_with_the_files_name(copied: Path) -> None:
    names = [FILE_NAME, *read_manifest(copied).files]
    assert {"user_tower.pt", "item_tower.pt", "scorer.pt", "item_vectors.bin", "schema.json"} < set(names)
    for name in names:
        content = (copied / name).read_bytes()
        changed = bytearray(content)
        changed[len(content) // 2] ^= 4
        (copied / name).write_bytes(changed)
        with pytest.raises(CheckpointError, match=re.escape(name)) as refused:
            Artefact(copied)
        assert exit_code(refused.value) == 4
        (copied / name).write_bytes(content)
    Artefact(copied)


@pytest.mark.parametrize("name", [FILE_NAME, "scorer.pt", "golden_answers.jsonl"])
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(CheckpointError, match=re.escape(name)):
        Artefact(copied)


def test_a_cut_file_and_one_too_many_are_named(copied: Path) -> None:
    (copied / "notes.txt").touch()
    with pytest.raises(CheckpointError, match=r"notes\.txt.*not listed"):
        Artefact(copied)
    (copied / "notes.txt").unlink()
    store = copied / "item_vectors.bin"
    store.write_bytes(store.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"item_vectors\.bin"):
        Artefact(copied)


@pytest.mark.parametrize("name", ["item_vectors.bin", "user_tower.pt", "golden_answers.jsonl"])
def test_a_file_of_another_artefact_of_the_same_run_is_refused(
    fit_case: Case, fit_bytes_case: Case, tmp_path: Path, name: str
) -> None:
    mixed = shutil.copytree(fit_case.folder, tmp_path / "mixed")
    shutil.copy(fit_bytes_case.folder / name, mixed / name)
    with pytest.raises(CheckpointError, match=re.escape(name)):
        Artefact(mixed)


def test_a_mix_does_not_pass_by_an_entry_of_the_other_manifest(fit_case: Case, fit_bytes_case: Case, tmp_path: Path) -> None:
    mixed = shutil.copytree(fit_case.folder, tmp_path / "mixed")
    shutil.copy(fit_bytes_case.folder / "user_tower.pt", mixed / "user_tower.pt")
    content = json.loads((mixed / FILE_NAME).read_text())
    content["files"]["user_tower.pt"] = json.loads((fit_bytes_case.folder / FILE_NAME).read_text())["files"]["user_tower.pt"]
    (mixed / FILE_NAME).write_text(json.dumps(content, indent=1) + "\n")
    with pytest.raises(CheckpointError, match="seal"):
        Artefact(mixed)


def test_every_form_gives_its_golden_answers(every_case: Case) -> None:
    artefact = Artefact(every_case.folder)
    for request, golden in list(read_golden(every_case.folder))[::9]:
        found = artefact.answer(request)
        assert found["artefact"] == every_case.exported.manifest.artefact
        for one, expected in zip(found["answers"], golden["answers"], strict=True):
            assert score_error(one, expected) <= 1e-5


def test_tables_outside_and_small_vectors_change_scores_by_no_more_than_the_manifest_says(
    fit_case: Case, fit_bytes_case: Case, t2diff_case: Case, t2diff_triton_case: Case
) -> None:
    for exact, small, most in ((fit_case, fit_bytes_case, 0.1), (t2diff_case, t2diff_triton_case, 0.01)):
        stated = small.exported.manifest.store.max_score_error
        assert 0 < stated < most
        pairs = zip(read_golden(exact.folder), read_golden(small.folder), strict=True)
        answers = [(a, b) for (_, one), (_, other) in pairs for a, b in zip(one["answers"], other["answers"], strict=True)]
        assert max(score_error(a, b) for a, b in answers if "items" not in a) == pytest.approx(stated)
        assert exact.exported.manifest.store.max_score_error == 0


def test_a_users_vectors_do_not_depend_on_the_company(t2diff_case: Case) -> None:
    artefact = Artefact(t2diff_case.folder)
    signature = artefact.manifest.user
    generator = torch.Generator().manual_seed(3)
    requests = draw_requests(7, signature=signature, max_history=50, history_lengths=[0, 1, 50, 3, 20, 7, 50], generator=generator)
    together = artefact.user_vectors(user_tensors(requests, signature))
    alone = torch.cat([artefact.user_vectors(user_tensors([request], signature)) for request in requests])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    requests[0]["row_id"] = 5
    moved = artefact.user_vectors(user_tensors(requests[:3], signature))
    torch.testing.assert_close(moved[1:], together[1:3], atol=1e-5, rtol=0)


def test_an_artefact_without_packages_has_no_such_form(two_tower_case: Case) -> None:
    with pytest.raises(CheckpointError, match="--aoti"):
        Artefact(two_tower_case.folder, form="aoti")
