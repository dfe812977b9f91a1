"""One run of RecBole, by RecBole's own Python: `python recbole_run.py SETTINGS.json`; programs.py writes and starts it.

SETTINGS.json: `model`, `dataset`, `config` (RecBole's own settings) and `out`, the JSON file that the results go to.
"""

import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed


def main() -> None:
    """Train, pick the best epoch on validation, test it."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    # RecBole's checkpoints hold its Config object, and its own torch.load is older than the default that refuses such;
    # what this process loads is the file that it has written itself
    torch.load = functools.partial(torch.load, weights_only=False)
    sys.argv = sys.argv[:1]  # Config reads the command line too
    config = Config(model=settings["model"], dataset=settings["dataset"], config_dict=settings["config"])
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train, validation, test = data_preparation(config, dataset)
    model = get_model(config["model"])(config, train.dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    seconds = _timed(trainer)
    best_value, best = trainer.fit(train, validation, saved=True, show_progress=False)
    found = trainer.evaluate(test, load_best_model=True, show_progress=False)
    results = {
        "validation": {name: float(value) for name, value in best.items()} | {"best": float(best_value)},
        "test": {name: float(value) for name, value in found.items()},
        "epochs": len(seconds),
        "seconds_per_epoch": sum(seconds) / len(seconds),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "num_items": dataset.item_num - 1,  # the first is padding
        "rows": {"train": len(train.dataset), "validation": len(validation.dataset), "test": len(test.dataset)},
    }
    Path(settings["out"]).write_text(json.dumps(results, indent=1) + "\n")


def _timed(trainer: Any) -> list[float]:
    """Seconds of each training epoch, filled as `trainer` trains."""
    seconds: list[float] = []
    train_epoch = trainer._train_epoch

    def timed(*arguments: object, **options: object) -> object:
        started = time.perf_counter()
        loss = train_epoch(*arguments, **options)
        seconds.append(time.perf_counter() - started)
        return loss

    trainer._train_epoch = timed
    return seconds


if __name__ == "__main__":
    main()
