"""The two programs: what each trains with, and a row of results for each run."""

import json
import subprocess
import venv
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from benchmarks.readme import ROOT
from benchmarks.trained_runs import finished_run
from dataloaders.prepare.ml100k import Ml100kConfig, prepare_ml100k
from dataloaders.schema import Schema
from trainer.errors import UserError
from trainer.provenance import provenance

Model = Literal["SASRec", "GRU4Rec"]
PINS = (
    "recbole==1.2.1", "torch==2.13.0", "numpy==1.26.4", "scipy==1.13.1", "pandas==2.2.3", "scikit-learn==1.5.2",
    "tensorboard==2.18.0", "tqdm==4.67.1", "colorlog==4.7.2", "colorama==0.4.4", "PyYAML==6.0.2", "texttable==1.7.0",
    "psutil==6.1.0", "tabulate==0.9.0",
)  # fmt: skip
"""RecBole and what it imports to train these models; its own list also has packages for tuning, of which one (ray) is held back to
an old release. The same torch as ours, so that speed compares programs."""
WIDTH, BATCH_SIZE, LEARNING_RATE, MOST_EPOCHS, PATIENCE = 32, 512, 0.001, 20, 4
"""Of both programs: Adam at a constant rate, until validation NDCG@10 has not improved for PATIENCE epochs."""
OURS: dict[Model, tuple[str, tuple[str, ...]]] = {
    "SASRec": ("sasrec_ml1m", ("--model.num-layers", "2", "--model.num-heads", "2", "--model.dropout", "0.2")),
    "GRU4Rec": ("gru4rec_ml1m", ("--model.hidden-dim", "64", "--model.dropout", "0.3")),
}
THEIRS: dict[Model, dict[str, object]] = {
    "SASRec": {
        "n_layers": 2, "n_heads": 2, "hidden_size": WIDTH, "inner_size": WIDTH,
        "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2,
    },
    "GRU4Rec": {"embedding_size": WIDTH, "hidden_size": 64, "num_layers": 1, "dropout_prob": 0.3},
}  # fmt: skip
"""The same sizes; what else differs (where norms stand, activations, initial weights) is each program's own."""
DATASET = "ml-100k-rows"
"""RecBole's name of our rows; by that of its own data set it would find the copy in its wheel."""
SPLITS = ("train", "validation", "test")
METRICS = ("hr@10", "ndcg@10")
KEY = ("program", "model", "seed", "config", "data")
THEIR_NAME = PINS[0].replace("recbole==", "RecBole ")
SETTINGS = f"D {WIDTH}, batch {BATCH_SIZE}, Adam {LEARNING_RATE}, at most {MOST_EPOCHS} epochs, patience {PATIENCE}"
TIMED_EPOCHS = 2
"""Epochs of each program whose seconds are measured."""


def recbole_python(folder: Path) -> Path:
    """Interpreter of an environment with PINS; made where it is not there or has other pins."""
    python, done = folder / "bin" / "python", folder / "pins.txt"
    if not done.exists() or done.read_text().split() != list(PINS):
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *PINS[1:]], check=True)
        subprocess.run([*pip, "--no-deps", PINS[0]], check=True)
        done.write_text("\n".join(PINS) + "\n")
    return python


def bundled_ratings(python: Path, folder: Path) -> Path:
    """`folder` with u.data, made of the ratings in RecBole's wheel: the same lines below a header."""
    program = (
        "import pathlib, recbole; print(pathlib.Path(recbole.__file__).parent / 'dataset_example' / 'ml-100k' / 'ml-100k.inter')"
    )
    source = subprocess.run([str(python), "-c", program], check=True, capture_output=True, text=True).stdout.strip()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "u.data").write_text(Path(source).read_text().split("\n", 1)[1])
    return folder


def prepared(raw: Path, out: Path) -> Path:
    """The prepared data set of `raw`, which may be another one than last time."""
    prepare_ml100k(Ml100kConfig(raw=raw, out=out, overwrite=True))
    return out


def export_rows(data: Path, folder: Path) -> None:
    """Every row of the data set as a line of RecBole's files `<data set>.<split>.inter`: user, items of the history, target."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        columns = pq.read_table(data / split, columns=["user", "hist_item", "item"]).to_pydict()
        rows = zip(columns["user"], columns["hist_item"], columns["item"], strict=True)
        lines = [f"{user}\t{' '.join(map(str, history))}\t{item}\n" for user, history, item in rows]
        header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
        (folder / f"{folder.name}.{split}.inter").write_text(header + "".join(lines))


def our_run(model: Model, data: Path, *, seed: int, epochs: int = MOST_EPOCHS, runs: Path | None = None) -> dict[str, Any]:
    """results.json of ours, trained to the end or read where it is.

    Raises:
        UserError: the run is one of other data.
    """
    recipe, own = OURS[model]
    rate = str(LEARNING_RATE)
    words = [
        *own,
        *("--data", str(data), "--runs", str(runs or data.parent / "runs"), "--seed", str(seed), "--embeddings.dim", str(WIDTH)),
        *("--loader.batch-size", str(BATCH_SIZE), "--optimizer.learning-rate", rate, "--optimizer.sparse-learning-rate", rate),
        *("--optimizer.schedule", "constant", "--loop.max-epochs", str(epochs), "--loop.evals-per-epoch", "1"),
        *("--loop.patience", str(PATIENCE), "--loop.monitor", "ndcg@10"),
    ]
    results = finished_run(recipe, overrides=words)
    if results["data_identity"] != Schema.load(data).identity:
        raise UserError(f"{data.parent / 'runs'} holds a run of {recipe} on other ratings; move it away, or give another --work")
    return results


def our_row(model: Model, data: Path, *, seed: int) -> dict[str, str]:
    """The row of a run of ours; its seconds are left blank."""
    results = our_run(model, data, seed=seed)
    found = results["metrics"] | {
        "epochs": results["steps"] / results["steps_per_epoch"],
        "num_parameters": results["num_parameters"],
        "rows": {"test": results["metrics"]["test"]["num_rows"]},
        "provenance": results["provenance"],
    }
    return _row("CrossTower", model, seed, found, data=data)


def their_run(
    model: Model, python: Path, data: Path, *, seed: int, epochs: int = MOST_EPOCHS, folder: Path | None = None
) -> dict[str, Any]:
    """What recbole_run.py writes, and where that was made; trained to the end or read where it is."""
    work = data.parent
    out = (folder or work / "recbole") / f"{model}-seed{seed}.json"
    config = recbole_config(model, work, seed=seed) | {"epochs": epochs}
    settings = {"model": model, "dataset": DATASET, "data": identity(data), "config": config, "out": str(out)}
    path = out.with_suffix(".settings.json")
    if not out.exists() or path.read_text() != json.dumps(settings):
        path.write_text(json.dumps(settings))
        subprocess.run([str(python), str(ROOT / "benchmarks" / "peers" / "recbole_run.py"), str(path)], check=True, cwd=work)
        out.write_text(json.dumps(json.loads(out.read_text()) | {"provenance": provenance()}, indent=1) + "\n")
    return json.loads(out.read_text())


def their_row(model: Model, python: Path, data: Path, *, seed: int) -> dict[str, str]:
    """The row of a run of RecBole's; its seconds are left blank."""
    found = their_run(model, python, data, seed=seed)
    lower = {split: {name.replace("hit@", "hr@"): value for name, value in found[split].items()} for split in SPLITS[1:]}
    return _row(THEIR_NAME, model, seed, found | lower, data=data)


def recbole_config(model: Model, work: Path, *, seed: int) -> dict[str, object]:
    """RecBole's settings of a run."""
    return THEIRS[model] | {
        "data_path": str(work / "recbole"),
        "checkpoint_dir": str(work / "recbole" / "saved"),
        "benchmark_filename": list(SPLITS),
        "alias_of_item_id": ["item_id_list"],
        "load_col": None,
        "MAX_ITEM_LIST_LENGTH": 50,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "train_batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "epochs": MOST_EPOCHS,
        "stopping_step": PATIENCE - 1,  # it stops when more than so many evaluations have not been better
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "metrics": ["Hit", "NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "metric_decimal_place": 6,
        "seed": seed,
        "use_gpu": False,
        "show_progress": False,
    }


def identity(data: Path) -> str:
    """First characters of the identity of a prepared data set."""
    return Schema.load(data).identity[:12]


def _row(program: str, model: Model, seed: int, found: dict[str, Any], *, data: Path) -> dict[str, str]:
    return {
        "program": program,
        "model": model,
        "seed": str(seed),
        "config": SETTINGS,
        "data": identity(data),
        **{name: f"{found['test'][name]:.6f}" for name in METRICS},
        "test_rows": f"{found['rows']['test']:.0f}",
        "validation_ndcg@10": f"{found['validation']['ndcg@10']:.6f}",
        "epochs": f"{found['epochs']:.0f}",
        "num_parameters": str(found["num_parameters"]),
        **found["provenance"],
    }
