from pathlib import Path

import pytest

from tests.trainer.small_matching import small_t2diff
from trainer.config import RunConfig
from trainer.report_figures import RunRecord, diffusion_figures


def test_the_report_of_a_real_run_has_its_curves_figures_and_leak_check(matching_run: RunConfig) -> None:
    page = (matching_run.run_dir / "report.html").read_text()
    # recall, NDCG, loss, further losses, drift scale, learning rate, rows per second; Figs. 4 and 5
    assert page.count("<svg") == 7 + 2
    for part in ("Leak check", "T2Diff Fig. 4", "T2Diff Fig. 5", "among all 90 items", "Recall@20", "running scale of the drifts"):
        assert part in page


@pytest.mark.parametrize("diagnostics", [None, {}])
def test_a_run_without_diffusion_has_no_figures(tmp_path: Path, diagnostics: dict | None) -> None:
    results = {"recipe": "fit_demo", "seed": 0} | ({} if diagnostics is None else {"diagnostics": diagnostics})
    config = small_t2diff(tmp_path, tmp_path).as_dict()
    assert diffusion_figures([RunRecord(tmp_path, config, results, [])]) == []


def test_a_run_whose_reverse_process_was_not_followed_has_its_schedule(tmp_path: Path) -> None:
    results = {"recipe": "t2diff_demo", "seed": 0, "diagnostics": {"leak_check": {}, "reverse_process": {}}}
    config = small_t2diff(tmp_path, tmp_path).as_dict()
    (figure,) = diffusion_figures([RunRecord(tmp_path, config, results, [])])
    assert "T2Diff Fig. 5" in figure
