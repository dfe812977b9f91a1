from pathlib import Path

import pytest
import torch
from torch import nn

from tests.trainer.export.conftest import Case
from tests.trainer.export.small_runs import trained_parts
from trainer.export.assemble import assemble
from trainer.export.torchscript import ForeignOperatorError, load_script, operators, save_script


class Foreign(nn.Module):
    """Needs an operator of fbgemm."""

    def forward(self, lengths: torch.Tensor) -> torch.Tensor:
        """Offsets of lengths."""
        return torch.ops.fbgemm.asynchronous_complete_cumsum(lengths)


class Branching(nn.Module):
    """Has operators in branches and in the second method alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sine or cosine."""
        return x.sin() if bool(x.sum() > 0) else x.cos()

    @torch.jit.export
    def seeded(self, x: torch.Tensor) -> torch.Tensor:
        """Tangent."""
        return x.tan()


def test_an_operator_that_libtorch_lacks_is_refused_before_a_server_meets_it(tmp_path: Path) -> None:
    with pytest.raises(ForeignOperatorError, match="the tower needs fbgemm::asynchronous_complete_cumsum"):
        save_script(Foreign().eval(), tmp_path / "foreign.pt", name="the tower")
    assert not (tmp_path / "foreign.pt").exists()


def test_operators_of_branches_and_of_every_method_are_listed(tmp_path: Path) -> None:
    needed = save_script(Branching().eval(), tmp_path / "branching.pt", name="it")
    assert {"aten::sin", "aten::cos", "aten::tan", "prim::If"} <= set(needed)
    loaded = load_script(tmp_path / "branching.pt")
    assert operators(loaded) == needed
    x = torch.randn(3)
    assert torch.equal(loaded.seeded(x), x.tan())


def uncomputed(graph: torch.Graph) -> list[str]:
    """Tensor operators of which every input is a constant."""
    found = []
    for node in graph.nodes():
        makes_tensor = any(output.type().kind() == "TensorType" for output in node.outputs())
        if node.kind().startswith("aten::") and makes_tensor and all(map(_is_constant, node.inputs())):
            found.append(node.kind())
    return found


def _is_constant(value: torch.Value) -> bool:
    node = value.node()
    return node.kind() == "prim::Constant" or (node.kind() == "prim::ListConstruct" and all(map(_is_constant, node.inputs())))


def test_what_depends_on_queries_and_weights_alone_is_computed_at_export(fit_case: Case) -> None:
    tower = load_script(fit_case.folder / "user_tower.pt")
    for method in (tower.forward, tower.seeded):
        assert uncomputed(method.graph) == []
    kinds = [node.kind() for node in tower.forward.graph.nodes()]
    # three layers of the attention (the query part of its first one is a constant), two of the tower, and the projection
    assert kinds.count("aten::linear") == 3 + 2 + 1
    scripted = torch.jit.script(assemble(trained_parts(fit_case.run), tables="inside").user_tower)
    assert "aten::matmul" in operators(scripted), "the query group (QQᵀ)Q"
    assert "aten::matmul" not in operators(tower), "which is a constant of the file"


def test_a_scorer_holds_no_tower(fit_case: Case) -> None:
    sizes = {name: fit_case.exported.manifest.files[name].bytes for name in ("scorer.pt", "user_tower.pt")}
    assert sizes["scorer.pt"] < 0.5 * sizes["user_tower.pt"]
