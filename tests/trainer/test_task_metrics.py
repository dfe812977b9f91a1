import math
import threading
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from models import MODELS
from models.tasks import MatchingLossConfig, MatchingTask, PreRankingTask
from models.types import MatchOut, TrainOut
from tests.models.synthetic import KINDS, build, evaluate
from trainer.metrics import BinaryMetrics
from trainer.ranking_metrics import RankingMetrics
from trainer.task_metrics import (
    BinaryRecorder,
    LossRecorder,
    RankRecorder,
    ScoreLossRecorder,
    evaluation_recorder,
    protocol,
    training_recorder,
)

ONE_OF_EACH = {MODELS[name].task_class: MODELS[name] for name in ("two_tower", "t2diff")}


def match_out(losses: list[float], auxiliary: list[float], ranks: list[int] | None = None) -> MatchOut:
    rank_B = torch.tensor(ranks if ranks is not None else [0] * len(losses))
    return MatchOut(torch.tensor(0.0), torch.tensor(losses), torch.tensor(auxiliary), rank_B)


@pytest.mark.parametrize(
    ("task_class", "training", "evaluation"),
    [(PreRankingTask, ScoreLossRecorder, BinaryRecorder), (MatchingTask, LossRecorder, RankRecorder)],
)
def test_every_kind_of_task_has_recorders_that_take_its_outputs(task_class: type, training: type, evaluation: type) -> None:
    task, batch = build(ONE_OF_EACH[task_class]), KINDS[task_class].batch(40)
    recorder = training_recorder(task)
    assert type(recorder) is training
    loss, out = task(batch)
    recorder.add(out)
    values = recorder.compute()
    assert values["num_rows"] == 40
    assert values["loss"] + values.get("auxiliary", 0.0) == pytest.approx(loss.item(), rel=1e-5)
    recorder = evaluation_recorder(task)
    assert type(recorder) is evaluation
    recorder.add(evaluate(task, batch))
    assert recorder.compute()["num_rows"] == 40


def test_binary_recorders_are_binary_metrics_and_call_their_logloss_the_loss() -> None:
    recorder, training, metrics = BinaryRecorder(), ScoreLossRecorder(), BinaryMetrics()
    for seed in (0, 1):
        torch.manual_seed(seed)
        logit_B, label_B = torch.randn(30), torch.randint(0, 2, (30,)).float()
        out = TrainOut(torch.tensor(0.0), logit_B, torch.full((30,), float(seed)), label_B, torch.arange(30))
        recorder.add(out)
        training.add(out)
        metrics.update(logit_B, label_B)
    expected = metrics.compute()
    assert recorder.compute() == expected | {"loss": expected["logloss"]}
    assert training.compute() == recorder.compute() | {"auxiliary": 0.5}


def test_a_model_without_further_losses_has_none_to_show() -> None:
    recorder = ScoreLossRecorder()
    recorder.add(TrainOut(torch.tensor(0.0), torch.randn(4), torch.zeros(4), torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.arange(4)))
    assert "auxiliary" not in recorder.compute()


def test_rank_recorder_is_ranking_metrics_of_ranks_and_softmax_losses() -> None:
    recorder, metrics = RankRecorder(), RankingMetrics()
    for out in (match_out([1.0, 3.0], [9.0, 9.0], [1, 21]), match_out([2.0], [9.0], [3])):
        recorder.add(out)
        metrics.update(out.rank_B, out.softmax_loss_B)
    assert recorder.compute() == metrics.compute()
    assert recorder.compute()["recall@20"] == pytest.approx(2 / 3)
    assert recorder.compute()["loss"] == 2.0


def test_losses_are_means_over_rows_however_unequal_the_batches() -> None:
    recorder = LossRecorder()
    recorder.add(match_out([1.0, 2.0, 3.0], [0.5, 0.5, 2.0]))
    recorder.add(match_out([10.0], [1.0]))
    assert recorder.compute() == {"loss": 4.0, "auxiliary": 1.0, "num_rows": 4.0}


def test_losses_are_summed_in_float64() -> None:
    recorder = LossRecorder()
    recorder.add(match_out([2.0**25], [0.0]))
    for _ in range(8):
        recorder.add(match_out([1.0], [0.0]))
    assert recorder.compute()["loss"] == (2.0**25 + 8) / 9


def test_losses_over_no_rows_are_nan() -> None:
    values = LossRecorder().compute()
    assert values["num_rows"] == 0.0
    assert math.isnan(values["loss"])
    assert math.isnan(values["auxiliary"])


def test_two_ranks_with_unequal_or_no_rows_agree_on_the_losses_of_all() -> None:
    store, found = dist.HashStore(), {}

    def compute(name: str, rank: int, outs: list[MatchOut]) -> None:
        group = dist.ProcessGroupGloo(dist.PrefixStore(name, store), rank, 2, timedelta(seconds=30))
        recorder = LossRecorder()
        for out in outs:
            recorder.add(out)
        found[name, rank] = recorder.compute(group)

    both, one = match_out([1.0, 2.0, 3.0], [0.0, 0.0, 3.0]), match_out([6.0], [1.0])
    cases = [("both", 0, [both]), ("both", 1, [one]), ("one", 0, []), ("one", 1, [one])]
    threads = [threading.Thread(target=compute, args=case) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found["both", 0] == found["both", 1] == {"loss": 3.0, "auxiliary": 1.0, "num_rows": 4.0}
    assert found["one", 0] == found["one", 1] == {"loss": 6.0, "auxiliary": 1.0, "num_rows": 1.0}


def test_the_protocol_says_what_competes_over_which_rows() -> None:
    said = {}
    for task_class, spec in ONE_OF_EACH.items():
        said[task_class] = protocol(build(spec), source=KINDS[task_class].schema.name, metrics={"test": {"num_rows": 1208.0}})
        assert "rows: test 1,208" in said[task_class]
    assert said[MatchingTask].startswith("synthetic/next_item: each row's target ranked among all 40 items by exact scores")
    assert "items of the row's own history compete;" in said[MatchingTask]
    assert said[PreRankingTask].startswith("synthetic: one given item per row, scored against its label")
    masked = build(ONE_OF_EACH[MatchingTask], loss=MatchingLossConfig(mask_history=True))
    assert "items of the row's own history do not compete;" in protocol(masked, source=KINDS[MatchingTask].schema.name, metrics={})
