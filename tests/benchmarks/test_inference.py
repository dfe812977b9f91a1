import sys
from pathlib import Path

import pytest
import torch

from benchmarks import inference
from benchmarks.inference import Arguments, measure, render, variants
from benchmarks.result_rows import read_rows

CPU = torch.device("cpu")


def small(**fields) -> Arguments:
    return Arguments(steps=(2,), few_steps=(1,), batch_sizes=(1, 3), seconds=0.01, dim=8, device="cpu", **fields)


@pytest.mark.parametrize("mode", ["eager", "torchscript"])
def test_every_variant_is_timed_at_every_batch_size(mode: str):
    arguments = small()
    for variant in variants(arguments):
        rows = measure(variant, mode=mode, arguments=arguments, device=CPU)
        assert [row["batch_size"] for row in rows] == ["1", "3"]
        for row in rows:
            assert 0 < float(row["least"]) <= float(row["ms_per_sample"]) <= float(row["most"])
            assert int(row["calls"]) >= 2


def test_t_is_the_number_of_unet_calls(monkeypatch: pytest.MonkeyPatch):
    from models.layers.unet1d import UNet1d

    calls = []
    forward = UNet1d.forward

    def counted(self: UNet1d, *inputs: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return forward(self, *inputs)

    monkeypatch.setattr(UNet1d, "forward", counted)
    arguments = Arguments(steps=(10,), batch_sizes=(1,), seconds=1e-6, dim=8)
    for variant in variants(arguments):
        calls.clear()
        (row,) = measure(variant, mode="eager", arguments=arguments, device=CPU)
        assert len(calls) % (int(row["calls"]) + 1) == 0
        assert len(calls) // (int(row["calls"]) + 1) == variant.num_steps


def test_compiling_compiles_the_unet_and_the_attention(monkeypatch: pytest.MonkeyPatch):
    compiled = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        compiled.append(len(graph.graph.nodes))
        return graph

    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *arguments, **options: plain(*arguments, **options | {"backend": backend}))
    arguments = small()
    for variant in variants(arguments):
        torch.compiler.reset()
        compiled.clear()
        assert len(measure(variant, mode="compile", arguments=arguments, device=CPU)) == 2
        assert len(compiled) >= 1 + (variant.num_steps > 0)


def test_the_fused_kernel_is_left_out_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    words = "--steps 2 --few-steps 1 --batch-sizes 1 --modes eager triton --seconds 0.01 --dim 8 --device cpu --out"
    monkeypatch.setattr(sys, "argv", ["inference", *words.split(), str(tmp_path / "inference.csv")])
    inference.main()
    assert {row["mode"] for row in read_rows(tmp_path / "inference.csv")} == {"eager"}
    assert "mode triton is for a GPU: left out" in capsys.readouterr().out


def test_the_papers_figures_stand_beside_ours():
    by_label = {variant.label: variant.paper_ms for variant in variants(Arguments())}
    assert by_label["T2Diff, T = 10"] == 0.22
    assert by_label["T2Diff, T = 50"] == 0.68
    assert by_label["T2Diff, T = 200"] == 2.30


def test_the_command_appends_rows_and_the_table_shows_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    words = "--steps 2 --few-steps 1 --batch-sizes 1 --modes eager --seconds 0.01 --dim 8 --device cpu --out"
    monkeypatch.setattr(sys, "argv", ["inference", *words.split(), str(tmp_path / "inference.csv")])
    inference.main()
    inference.main()
    assert "T2Diff, T = 2, eager: 1: " in capsys.readouterr().out
    rows = read_rows(tmp_path / "inference.csv")
    assert len(rows) == 6
    wider = rows[4] | {"dim": "32", "ms_per_sample": "77.0"}
    lines = [line for line in render([*rows, wider]).splitlines() if line.startswith("| T2Diff, T = 2 |")]
    assert [line.split(" | ")[1:4] for line in lines] == [
        ["8", "eager, cpu", f"{float(rows[4]['ms_per_sample']):.3f}"],
        ["32", "eager, cpu", "77.000"],
    ]


def test_a_batch_size_of_0_is_refused():
    with pytest.raises(ValueError, match="expected more than 0"):
        Arguments(batch_sizes=(0,))
