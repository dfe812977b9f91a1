from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.trainer.export.conftest import Case
from tests.trainer.export.small_runs import export, trained_parts
from trainer.errors import CheckpointError, UserError
from trainer.export import aoti
from trainer.export.aoti import BATCH_DIMS, VECTOR_BATCH_DIMS, PackagedModule, built_for, example_inputs, require_compiler
from trainer.export.artefact import Artefact
from trainer.export.assemble import assemble
from trainer.export.run_parts import RunParts
from trainer.export.signature import TableForm
from trainer.export.towers import DotScorer


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages hold the exported programs themselves, as compiling takes minutes: everything but the compiler's own work."""

    def package(program: torch.export.ExportedProgram, *, package_path: str) -> str:
        torch.export.save(program, package_path)
        return package_path

    def load(path: str) -> Callable[..., torch.Tensor]:
        return torch.export.load(path).module(check_guards=False)

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", package)
    monkeypatch.setattr(torch._inductor, "aoti_load_package", load)


def inputs_of(parts: RunParts, case: Case, tables: TableForm) -> dict[str, tuple[torch.Tensor, ...]]:
    manifest = case.exported.manifest
    return example_inputs(parts, user=manifest.user, store=manifest.store, tables=tables)


@pytest.mark.parametrize("tables", ["inside", "outside"])
def test_example_inputs_are_what_the_modules_take_and_no_free_dimension_is_1(any_case: Case, tables: TableForm) -> None:
    parts = trained_parts(any_case.run)
    inputs = inputs_of(parts, any_case, tables)
    for name, module in assemble(parts, tables=tables, check_inputs=False)._asdict().items():
        with torch.no_grad():
            module(*inputs[name])
        dims = (VECTOR_BATCH_DIMS if tables == "outside" else BATCH_DIMS)[name]
        for tensor, free in zip(inputs[name], dims, strict=True):
            assert all(tensor.shape[dim] != 1 for dim in free)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(("name", "tables"), [("fit_case", "quantised"), ("t2diff_case", "outside"), ("cold_case", "inside")])
def test_packages_answer_every_golden_request_for_every_batch_size(
    name: str, tables: TableForm, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    case: Case = request.getfixturevalue(name)  # made once for all tests, so before the requests become few
    few_golden_requests: int = request.getfixturevalue("few_golden_requests")
    manifest, parity = export(case.run, tmp_path / "artefact", aoti="cpu", tables=tables)
    assert parity["aoti"].bodies == parity["torchscript"].bodies == few_golden_requests
    assert parity["aoti"].max_error <= 1e-5
    assert {package["file"] for package in manifest.packages.values()} == {"user_tower.pt2", "item_tower.pt2", "scorer.pt2"}
    assert all(package["architecture"] == built_for("cpu")["architecture"] for package in manifest.packages.values())
    assert {"user_tower.pt2", "item_tower.pt2", "scorer.pt2"} < set(manifest.files)
    assert Artefact(tmp_path / "artefact", form="aoti").manifest == manifest


def test_a_compiled_package_gives_the_modules_scores_for_other_sizes_than_its_example(tmp_path: Path) -> None:
    def drawn(users: int, candidates: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(users)
        index_BK = torch.zeros(users, candidates, dtype=torch.int64)
        item_BK1C = torch.randn(users, candidates, 1, 16, generator=generator)
        return torch.randn(users, 1, 1, 16, generator=generator), index_BK, item_BK1C

    path = tmp_path / "scorer.pt2"
    aoti._compile(DotScorer(), drawn(5, 4), BATCH_DIMS["scorer"], path, device="cpu")
    package = PackagedModule(path, {"file": path.name, **built_for("cpu")})
    for inputs in (drawn(1, 1), drawn(3, 700)):
        torch.testing.assert_close(package(*inputs), DotScorer()(*inputs), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("field", "other"), [("architecture", "sm_90"), ("torch", "2.0.0")])
def test_a_package_for_another_machine_is_not_run(tmp_path: Path, field: str, other: str) -> None:
    target = {"file": "scorer.pt2", **built_for("cpu"), field: other}
    with pytest.raises(CheckpointError, match=f"was built for {field} {other}, this is"):
        PackagedModule(tmp_path / "scorer.pt2", target)


def test_a_package_for_a_gpu_records_its_architecture_and_needs_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert built_for("cuda")["architecture"] == "sm_90"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CheckpointError, match=r"was built for a GPU \(sm_90\), and PyTorch sees none"):
        PackagedModule(tmp_path / "scorer.pt2", built_for("cuda"))


def test_what_cannot_be_compiled_is_said_before_the_run_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="PyTorch sees none here"):
        require_compiler("cuda")

    def missing() -> str:
        raise RuntimeError("no g++ or clang")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", missing)
    with pytest.raises(UserError, match=r"finds none \(no g\+\+ or clang\); install g\+\+"):
        require_compiler("cpu")
