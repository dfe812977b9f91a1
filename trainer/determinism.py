"""Random state: seeding it, saving it, and what a repeated run may expect.

Bit-exact, given the same machine type, library versions and number of threads:

- two runs with the same seed, world size and sharding plan;
- a run that stops, loads a checkpoint at the same world size and plan, and goes on;
- initial table weights, for every world size and plan;
- evaluation metrics likewise, but for row-wise pooled lists on several ranks, whose partial sums are added in another order.

Not bit-exact, but equal within float32 rounding (about 1e-7 relative in the loss): another world size or another plan, because
sums over rows are then taken in another order. Dropout differs there, because its random numbers belong to a rank: a run that goes
on at another world size starts them anew from (seed, rank, step), so that it can be repeated bit by bit from the same checkpoint,
but not from the first step at one world size. A GPU and a CPU differ likewise. On a GPU, operations without a deterministic kernel
only warn, and fbgemm's exact optimizers (the ones used here) add the gradients of a repeated row in a fixed order.
"""

import hashlib
import os
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

RANK_STRIDE = 1_000_003
"""Distance between the seeds of neighbouring ranks; a prime, so that small seeds and ranks don't meet."""


def seed_everything(seed: int, rank: int) -> None:
    """Seed Python, NumPy and PyTorch, and ask PyTorch for deterministic algorithms.

    Rank 0 is seeded with `seed` itself, whatever the world size; build the model under rank 0's seed on every rank (or let
    `sharding.shard` broadcast rank 0's dense weights, which it does) and call this again with the real rank before training.

    Args:
        seed: at least 0.
        rank: this process's rank.

    Raises:
        ValueError: `seed` or `rank` is negative.
    """
    if seed < 0 or rank < 0:
        raise ValueError(f"seed={seed}, rank={rank}; expected both to be at least 0")
    _seed_generators((seed + rank * RANK_STRIDE) % 2**32)
    if torch.cuda.is_available():
        # cuBLAS reads this when its first handle is made and refuses deterministic mode without it
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # only ever hides reads of memory that was not written, and costs a pass over every new tensor
    torch.utils.deterministic.fill_uninitialized_memory = False


def seed_again(seed: int, *, rank: int, step: int) -> None:
    """Seed every generator from (seed, rank, step): for a run that goes on on another number of ranks, where no state fits.

    Args:
        seed: the run's seed.
        rank: this process's rank.
        step: optimizer steps done.
    """
    digest = hashlib.sha256(f"seed {seed} rank {rank} step {step}".encode()).digest()
    _seed_generators(int.from_bytes(digest[:4], "little"))


def first_seed(state: Mapping[str, Any]) -> int:
    """The seed that a rank started from, from its `rng_state`; of rank 0, that is the run's seed."""
    generator = torch.Generator()
    generator.set_state(_from_hex(state["torch"]))
    return generator.initial_seed()


def rng_state() -> dict[str, Any]:
    """State of every random generator of this process, as JSON-able values."""
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=True)  # a dict or a tuple, by its argument
    name, key, position, has_gauss, cached = numpy_state
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [name, key.tolist(), position, has_gauss, cached],
        "torch": _to_hex(torch.get_rng_state()),
    }
    if torch.cuda.is_available():
        state["cuda"] = _to_hex(torch.cuda.get_rng_state())
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put back what `rng_state` returned; a state taken on a GPU sets the CPU generators only where there is no GPU.

    Raises:
        KeyError: a generator's state is missing.
    """
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, key, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(key, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_from_hex(state["torch"]))
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state(_from_hex(state["cuda"]))


def _seed_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _to_hex(state: torch.Tensor) -> str:
    return bytes(state.tolist()).hex()


def _from_hex(text: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
