"""`make demo`: FIT against Two-Tower on data with planted user-item cross structure, whose best possible AUC is known."""

import subprocess
import sys
import time
from pathlib import Path

from trainer.doctor import require_working_stack

RECIPES = ("two_tower_demo", "fit_demo")
SPEC = "torchx_specs/train.py:train"


def main() -> None:
    """Prepare the data, launch both recipes through torchx on two ranks, compare them."""
    require_working_stack()
    from trainer.cli import one_screen_errors, parse_run_config
    from trainer.console import console, duration
    from trainer.report import write_report

    started = time.perf_counter()
    with one_screen_errors():
        configs = [parse_run_config(["--recipe", recipe]) for recipe in RECIPES]
        data = configs[0].data
        if not (data / "schema.json").exists():
            _run(sys.executable, "-m", "dataloaders.prepare.synthetic", "--out", str(data))
        for recipe in RECIPES:
            _run(str(Path(sys.executable).with_name("torchx")), "run", SPEC, "--recipe", recipe, "--nproc", "2")
        run_dirs = [config.run_dir for config in configs]
        report = configs[-1].runs / "demo" / "report.html"
        write_report(report, run_dirs)
        _compare(run_dirs, data)
        console.print(f"comparison: {report}\nwall time: {duration(time.perf_counter() - started)}")


def _run(*command: str) -> None:
    """Run a command with its output on this console; leave with its exit code where it fails."""
    print("$", " ".join(command), flush=True)
    code = subprocess.run(command).returncode
    if code != 0:
        sys.exit(code)


def _compare(run_dirs: list[Path], data: Path) -> None:
    """Test AUC and logloss of each model beside the best that any model could reach."""
    from trainer.console import console, metrics_table
    from trainer.report import read_truth
    from trainer.results import read_results

    truth = read_truth(data)["test"]
    floor, ceiling = truth["bayes_auc_without_cross"], truth["bayes_auc"]
    rows = {"Bayes, without the planted cross term": {"test auc": floor, "cross term recovered %": 0.0}}
    for run_dir in run_dirs:
        results = read_results(run_dir)
        auc = results["metrics"]["test"]["auc"]
        rows[results["recipe"]] = {
            "test auc": auc,
            "cross term recovered %": 100 * (auc - floor) / (ceiling - floor),
            "test logloss": results["metrics"]["test"]["logloss"],
            "train seconds": results["train_seconds"],
        }
    rows["Bayes, the best any model can reach"] = {"test auc": ceiling, "cross term recovered %": 100.0}
    console.print(metrics_table("demo: planted user-item cross structure", rows))


if __name__ == "__main__":
    main()
