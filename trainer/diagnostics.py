"""What a diffusion model's report says beside its metrics: the leak check, and how the reverse process nears the truth (Fig. 4)."""

# B rows, J history positions of the batch, S reverse steps

import dataclasses
import logging
import math
from typing import TYPE_CHECKING, Any

import torch

from dataloaders.batch import Batch
from models.layers.diffusion_config import DiffusionConfig
from models.layers.diffusion_module import DiffusionModule
from models.t2diff import T2Diff
from models.tasks import MatchingTask
from models.types import ItemInputs, UserInputs
from trainer.evaluation import evaluate
from trainer.paired_difference import mean_difference
from trainer.task_metrics import RankRecorder

if TYPE_CHECKING:
    from trainer.trainer import Trainer

log = logging.getLogger(__name__)
CUTOFF = 20
METRIC = f"recall@{CUTOFF}"
STANDARD_ERRORS = 3.0
"""Differences of the two forms beyond this many standard errors are reported."""
AS_SERVED = "--model.diffusion.tower-condition high_noise --model.diffusion.sampler ddim --model.diffusion.num-sample-steps 1"
"""Flags of a tower condition that is the serving form."""
MOST_ROWS = 512
"""Validation rows whose reverse process is followed: the noise of all its steps is held at once."""


def diagnose(trainer: "Trainer") -> dict[str, Any]:
    """Diagnostics of the weights that `trainer` holds, for results.json; empty for models without diffusion. A collective call.

    The trainer's module is left in eval mode.
    """
    model = trainer.task.model
    if not isinstance(model, T2Diff) or model.diffusion is None:
        return {}
    return {"leak_check": leak_check(trainer), "reverse_process": reverse_process(trainer)}


def leak_check(trainer: "Trainer") -> dict[str, Any]:
    """Validation with x̂ as in training, where Algorithm 1 makes it from the target itself, against x̂ as it is served.

    Returns:
        metric, its value and some others of both forms, the standard error of the difference (both see the same rows; None where
        there is one row), `parted`: whether the metric differs by more than STANDARD_ERRORS of it, and `leaks`: whether the
        training form is better by as much.
    """
    served, served_R = _validation(trainer, leaks_target=False)
    trained, trained_R = _validation(trainer, leaks_target=True)
    difference = mean_difference(trained_R, served_R)
    bound = STANDARD_ERRORS * difference.standard_error
    found = {"parted": abs(difference.value) > bound, "leaks": difference.value > bound}
    if found["parted"] and trainer.ranks.is_first:
        log.warning(
            "leak check: validation %s is %.4f with x̂ as in training and %.4f with x̂ as served: %s; "
            "%s trains the user tower as it is served",
            METRIC,
            trained[METRIC],
            served[METRIC],
            "the tower relies on a target that serving does not have" if found["leaks"] else "they are not the same model",
            AS_SERVED,
        )
    names = (METRIC, "ndcg@10", "loss")
    forms = {"training_form": trained, "serving_form": served}
    values = {form: {name: metrics[name] for name in names} for form, metrics in forms.items()}
    error = difference.standard_error if math.isfinite(difference.standard_error) else None
    return {"metric": METRIC, **values, "standard_error": error, **found}


def _validation(trainer: "Trainer", *, leaks_target: bool) -> tuple[dict[str, float], torch.Tensor]:
    """Metrics of the validation split by one form of the user tower, and whether it found each row's target, [R]."""
    task: MatchingTask = trainer.task
    recorder = RankRecorder()
    task.leaks_target = leaks_target
    try:
        metrics = evaluate(trainer.sharded, trainer.eval_loaders["validation"], ranks=trainer.ranks, recorder=recorder)
    finally:
        task.leaks_target = False
    return metrics, recorder.found(CUTOFF, trainer.ranks.host_group)


@torch.no_grad()
def reverse_process(trainer: "Trainer") -> dict[str, list[float]]:
    """Cosine of the newest drift z0 and its estimate ẑ0 along all T ancestral steps, over this rank's first validation rows.

    Returns:
        step (T … 1), and mean, p10 and p90 of the cosine over those of at most MOST_ROWS rows that have a history; empty where
        none has.
    """
    task: MatchingTask = trainer.task
    task.eval()
    loader = trainer.eval_loaders["validation"]
    loader.seek(epoch=0)
    batch: Batch = next(iter(loader)).to(trainer.ranks.device)
    loader.close()
    users, items = _first_rows(*task.embeddings(batch.pooled, batch.sequence))
    if not bool((users.history_lengths_B > 0).any()):
        log.warning("no cosines of the reverse process: the first validation rows have no history")
        return {}
    full = _with_all_steps(task.model, trainer.config.model.diffusion)
    generator = torch.Generator().manual_seed(trainer.config.seed)
    num_rows = users.history_lengths_B.shape[0]
    noise_BX = torch.randn(num_rows, full.serving_noise_size, generator=generator).to(trainer.ranks.device)
    cosine_SB = full.reverse_cosines(users, items, noise_BX)[:, users.history_lengths_B > 0]
    low, high = torch.quantile(cosine_SB, torch.tensor([0.1, 0.9], device=cosine_SB.device), dim=1).tolist()
    return {"step": list(range(len(cosine_SB), 0, -1)), "mean": cosine_SB.mean(dim=1).tolist(), "p10": low, "p90": high}


def _first_rows(users: UserInputs, items: ItemInputs) -> tuple[UserInputs, ItemInputs]:
    lengths_B = users.history_lengths_B[:MOST_ROWS]
    num_positions = int(lengths_B.sum())
    return (
        UserInputs(users.profile_BU[:MOST_ROWS], users.history_JD[:num_positions], lengths_B, users.context_JF[:num_positions]),
        ItemInputs(items.attributes_BA[:MOST_ROWS], items.item_BD[:MOST_ROWS]),
    )


def _with_all_steps(model: T2Diff, config: DiffusionConfig) -> T2Diff:
    """The same weights, with the paper's T-step ancestral process."""
    assert model.diffusion is not None, "checked by `diagnose`"
    everything = dataclasses.replace(
        config,
        sampler="ancestral",
        num_sample_steps=config.schedule.num_steps,
        tower_condition="onestep",  # how training samples is nothing to serving, and `sampled` knows no noisy steps
    )
    diffusion = DiffusionModule(everything, dim=model.dim).to(next(model.parameters()).device)
    diffusion.load_state_dict(model.diffusion.state_dict())
    return model.with_diffusion(diffusion.eval())
