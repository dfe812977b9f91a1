import pytest

from benchmarks.paper.render import render
from benchmarks.paper.times import Times
from tests.benchmarks.paper.recorded import FIT, T2DIFF, cell, difference, run, timed

TWO_TOWER, OURS = cell(FIT, "Two-Tower"), cell(FIT, "FIT")


def line_of(text: str, label: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {label} |")]
    return line


def test_a_table_shows_mean_and_spread_over_seeds_beside_the_paper():
    rows = [run(FIT, TWO_TOWER, 0, 0.90), run(FIT, OURS, 0, 0.92), run(FIT, OURS, 1, 0.94)]
    line = line_of(render(FIT, rows, []), "FIT")
    assert "| 0.9300 ± 0.0141 *0.9225* |" in line
    assert "+7.50% *+14.34%*" in line  # eq. 22: (0.93 - 0.5) / (0.90 - 0.5) - 1, and the paper's own
    assert line.endswith("| 1,000 | 2.0 ± 0.0 | 2 |")


def test_a_cell_without_runs_and_a_budget_without_runs_are_left_out():
    text = render(FIT, [run(FIT, OURS, 0, 0.92)], [])
    assert "SumMax" not in text
    assert "sharded" not in text
    assert "Only FIT is trained yet." in text
    assert render(FIT, [], []) == "No run is recorded yet."


def test_parameters_and_inference_stand_beside_the_papers():
    sasrec = cell(T2DIFF, "SASRec")
    line = line_of(render(T2DIFF, [run(T2DIFF, sasrec, 0, 0.3)], [], Times([timed(sasrec, 227.23, 0.25)])), "SASRec")
    assert "| 1,000 *0.126M* |" in line
    assert "| 227 | 0.25 *0.56* |" in line
    on_both = Times([timed(sasrec, 227.23, 0.25), timed(sasrec, 32, 0.0085, gpu="a gpu")])
    line = line_of(render(T2DIFF, [run(T2DIFF, sasrec, 0, 0.3)], [], on_both), "SASRec")
    assert "| 227 | 0.25 | 32 | 0.0085 *0.56* |" in line
    assert "| 0.3000 *0.1556* |" in line


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.004, "FIT is ahead of the best baseline, Two-Tower (+0.0040 AUC, 4.0 standard errors, of rows alone: one seed)."),
        (-0.004, "FIT is behind the best baseline, Two-Tower (-0.0040 AUC, 4.0 standard errors, of rows alone: one seed)."),
        (
            0.001,
            "Between FIT and the best baseline, Two-Tower, nothing is decided (+0.0010 AUC, 1.0 standard errors, of rows alone: ",
        ),
    ],
)
def test_the_table_says_whether_the_proposed_model_leads(value: float, expected: str):
    rows = [run(FIT, TWO_TOWER, 0, 0.90), run(FIT, OURS, 0, 0.92)]
    text = render(FIT, rows, [difference(OURS, TWO_TOWER, 0, value)])
    assert expected in text
    assert f"| {value:+.4f} ± 0.0010 |" in line_of(text, "FIT")
    assert "| best baseline |" in line_of(text, "Two-Tower")


def test_seeds_that_differ_make_a_lead_less_sure():
    rows = [run(FIT, one, seed, 0.9) for one in (TWO_TOWER, OURS) for seed in (0, 1)]
    alike = [difference(OURS, TWO_TOWER, seed, 0.004) for seed in (0, 1)]
    assert "FIT is ahead of the best baseline, Two-Tower (+0.0040 AUC, 4.0 standard errors)." in render(FIT, rows, alike)
    apart = [difference(OURS, TWO_TOWER, seed, value) for seed, value in enumerate((0.001, 0.007))]
    # the root of .001² + .003²: half the distance of two seeds is the standard error of their mean
    text = render(FIT, rows, apart)
    assert "nothing is decided (+0.0040 AUC, 1.3 standard errors)." in text
    assert "| +0.0040 ± 0.0032 |" in line_of(text, "FIT")


def test_a_lead_of_fewer_seeds_than_a_cell_has_says_so():
    rows = [run(FIT, one, seed, 0.9) for one in (TWO_TOWER, OURS) for seed in (0, 1)]
    text = render(FIT, rows, [difference(OURS, TWO_TOWER, 0, 0.004)])
    assert "| +0.0040 ± 0.0010 (1 of 2 seeds) |" in line_of(text, "FIT")
    assert "(+0.0040 AUC, 4.0 standard errors)" in text


def test_a_lead_of_one_seed_is_as_unsure_as_the_seeds_of_its_cells_are_apart():
    rows = [run(FIT, TWO_TOWER, 0, 0.9), run(FIT, OURS, 0, 0.904), run(FIT, OURS, 1, 0.908)]
    text = render(FIT, rows, [difference(OURS, TWO_TOWER, 0, 0.004)])
    # the root of .001² + .0028²: two seeds of FIT are .004 apart, so one is off by that over √2
    assert "| +0.0040 ± 0.0030 (1 of 2 seeds) |" in line_of(text, "FIT")
    assert "nothing is decided (+0.0040 AUC, 1.3 standard errors)." in text


def test_the_proposed_models_lead_stands_beside_every_other():
    ablation = cell(FIT, "FIT w/o MQM")
    rows = [run(FIT, TWO_TOWER, 0, 0.90), run(FIT, OURS, 0, 0.92), run(FIT, ablation, 0, 0.91)]
    text = render(FIT, rows, [difference(OURS, TWO_TOWER, 0, 0.004), difference(OURS, ablation, 0, 0.003, error=0.002)])
    assert "| FIT − it, AUC |" in text
    assert "| – | +0.0030 ± 0.0020 |" in line_of(text, "FIT w/o MQM")
    assert "| best baseline | +0.0040 ± 0.0010 |" in line_of(text, "Two-Tower")


def test_a_difference_of_older_runs_is_not_shown():
    rows = [run(FIT, TWO_TOWER, 0, 0.90), run(FIT, OURS, 0, 0.92)]
    text = render(FIT, rows, [difference(OURS, TWO_TOWER, 0, 0.004) | {"config": "older older"}])
    assert "FIT and the best baseline, Two-Tower, are not compared row by row yet." in text


def test_who_is_first_is_told_metric_by_metric_and_a_smaller_logloss_is_better():
    rows = [run(FIT, TWO_TOWER, 0, 0.90), run(FIT, OURS, 0, 0.92)]
    assert "Best means: **FIT** in AUC, AUC, popular negatives; **Two-Tower** in logloss." in render(FIT, rows, [])


def test_times_of_a_cpu_and_of_a_gpu_stand_in_columns_of_their_own():
    rows = [run(FIT, OURS, 0, 0.92), run(FIT, TWO_TOWER, 0, 0.9)]
    times = [timed(OURS, 185.6, 0.039), timed(TWO_TOWER, 93.1, 0.014), timed(OURS, 4.04, 0.0021, gpu="a gpu")]
    rare = timed(OURS, 1, 1) | {"cpu": "another cpu"}
    text = render(FIT, rows, [], Times([rare, *times]))
    assert "| best epoch | s/epoch, CPU | ms/sample, CPU | s/epoch, GPU | ms/sample, GPU | seeds |" in text
    assert line_of(text, "FIT").endswith("| 186 | 0.039 | 4 | 0.0021 | 1 |")
    assert line_of(text, "Two-Tower").endswith("| 93 | 0.014 | – | – | 1 |")
    on_both = "a cpu, 2 cores (torch 2.13.0; commits abc) and on a cpu, 2 cores, a gpu (torch 2.13.0; commits abc)"
    assert f"s/epoch and ms/sample are measured with nothing else running on {on_both}, and repeat" in text
    assert "s/epoch" not in render(FIT, rows, [])


def test_the_budget_that_all_cells_share_stands_in_the_title():
    text = render(T2DIFF, [run(T2DIFF, cell(T2DIFF, "SASRec"), 0, 0.3)], [])
    assert "training budget for every model: at most 6 epochs, learning rate 0.004 (cosine)." in text
    text = render(T2DIFF, [run(T2DIFF, cell(T2DIFF, "SASRec", "paper"), 0, 0.3)], [])
    assert "largest number of epochs." in text


def test_older_rows_are_counted_and_every_machine_is_named():
    rows = [run(FIT, OURS, 0, 0.92), run(FIT, OURS, 1, 0.94) | {"cpu": "another cpu", "commit": "def"}]
    text = render(FIT, [*rows, rows[0] | {"config": "older", "test_auc": "0.5"}], [])
    assert "Machines: a cpu, 2 cores, GPU none, torch 2.13.0, torchrec 1.8.0; another cpu, 2 cores" in text
    assert "Commits: abc, def." in text
    assert "1 older row(s) of the results file" in text
    assert "left out" not in render(FIT, rows, [])


def test_a_counted_baseline_stands_in_every_budget_that_has_a_trained_row():
    popularity = {"recipe": "popularity", "test_auc": "0.81", "num_parameters": "0", "seed": "", "config": "data"}
    counted = run(FIT, OURS, 0, 0.9) | {"num_ranks": "", "test_logloss": ""} | popularity
    text = render(FIT, [counted, run(FIT, OURS, 0, 0.92), run(FIT, cell(FIT, "FIT", "paper"), 0, 0.93)], [])
    assert text.count("| Popularity (training counts) | 0.8100 | – |") == 2


def test_rows_of_another_preparation_of_the_same_data_are_warned_of():
    rows = [run(FIT, TWO_TOWER, 0, 0.90) | {"data": "aaa"}, run(FIT, OURS, 0, 0.92) | {"data": "bbb"}, run(FIT, OURS, 1, 0.92)]
    text = render(FIT, rows, [])
    assert "**Not comparable: rows of data/ml1m come from different preparations of it (aaa, bbb).**" in text
    same = [rows[0], rows[1] | {"data": "aaa"}, rows[2]]
    assert "Not comparable" not in render(FIT, same, [])
    counted = run(FIT, OURS, 0, 0.8) | {"recipe": "popularity", "num_ranks": "", "seed": "", "config": "ccc"}
    assert "rows of data/ml1m come from different preparations of it (aaa, ccc)." in render(FIT, [counted, *same], [])
