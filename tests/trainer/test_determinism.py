import json
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from trainer.determinism import first_seed, rng_state, seed_again, seed_everything, set_rng_state


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the process as it was: other tests share it."""
    state = rng_state()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill
    set_rng_state(state)


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), torch.rand(1).item(), random.gauss(0, 1), float(np.random.randn())]


def test_a_seed_fixes_every_generator_and_ranks_differ() -> None:
    draws = []
    for seed, rank in ((3, 0), (3, 0), (3, 1), (4, 0)):
        seed_everything(seed, rank)
        draws.append(draw())
    assert draws[0] == draws[1]
    for first, second in ((0, 2), (0, 3), (2, 3)):
        assert all(a != b for a, b in zip(draws[first], draws[second], strict=True))


def test_the_first_rank_is_seeded_with_the_seed_itself() -> None:
    seed_everything(11, 0)
    assert torch.initial_seed() == 11


def test_saved_state_survives_json_and_repeats_all_draws() -> None:
    seed_everything(1, 0)
    draw()
    random.gauss(0, 1)
    saved = json.loads(json.dumps(rng_state()))
    expected = [draw() for _ in range(3)]
    seed_everything(2, 0)
    set_rng_state(saved)
    assert [draw() for _ in range(3)] == expected


def test_deterministic_algorithms_are_asked_for() -> None:
    torch.use_deterministic_algorithms(False)
    seed_everything(0, 0)
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("seed", "rank"), [(-1, 0), (0, -1)])
def test_negative_seeds_and_ranks_are_refused(seed: int, rank: int) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        seed_everything(seed, rank)


def test_seeding_again_repeats_itself_and_differs_by_seed_rank_and_step() -> None:
    draws = []
    for seed, rank, step in ((3, 0, 5), (3, 0, 5), (4, 0, 5), (3, 1, 5), (3, 0, 6)):
        seed_again(seed, rank=rank, step=step)
        draws.append(draw())
    assert draws[0] == draws[1]
    assert all(len(set(values)) == 4 for values in zip(*draws[1:], strict=True))


def test_the_seed_of_a_run_is_found_in_the_state_of_its_first_rank() -> None:
    seed_everything(12345, 0)
    draw()
    assert first_seed(json.loads(json.dumps(rng_state()))) == 12345
