"""Golden requests: what every program that serves an artefact must answer, with what eager Python says."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from trainer.durable_file import write_durably
from trainer.errors import UserError
from trainer.export.answers import Answerer, Body, answer
from trainer.export.requests import Request, draw_requests
from trainer.export.signature import StoreSignature, Task, UserSignature

REQUESTS, ANSWERS = "golden_requests.jsonl", "golden_answers.jsonl"
NUM_GOLDEN = 64
MAX_CANDIDATES = 5000


class Shape(NamedTuple):
    """Size of one golden body."""

    batch: int
    candidates: int
    """Of each request; the last one of a batch has them all, the others up to that many."""


def golden_bodies(task: Task, *, user: UserSignature, store: StoreSignature, max_history: int, seed: int = 0) -> list[Body]:
    """NUM_GOLDEN bodies: batches of 1, 7 and 256 users; 1 to 5,000 candidates, also repeated ones; empty to full histories.

    Half of a matching artefact's are /v1/retrieve.
    """
    generator = torch.Generator().manual_seed(seed)
    bodies = []
    for number, shape in enumerate(_shapes()):
        lengths = [_history_length(number + row, max_history, generator) for row in range(shape.batch)]
        requests = draw_requests(shape.batch, signature=user, max_history=max_history, history_lengths=lengths, generator=generator)
        for row, request in enumerate(requests):
            if task == "matching" and number % 2 == 0:
                request["top_k"] = min(100, store.num_items) if row % 2 == 0 else 1
            else:
                most = shape.candidates if row == shape.batch - 1 else int(torch.randint(shape.candidates, (), generator=generator))
                _add_candidates(request, max(1, most), store.num_items, generator)
        bodies.append({"requests": requests})
    return bodies


def write_golden(folder: Path, bodies: Sequence[Body], answerer: Answerer) -> list[Body]:
    """Answer the bodies and write both, a JSON object a line.

    Raises:
        UserError: a score is not a finite number.
    """
    answers = [answer(body, answerer) for body in bodies]
    for name, lines in ((REQUESTS, bodies), (ANSWERS, answers)):
        try:
            content = "".join(json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n" for line in lines)
        except ValueError as error:
            raise UserError(f"the run's scores are not all finite numbers ({error}); choose another checkpoint") from error
        write_durably(folder / name, content)
    return answers


def read_golden(folder: Path) -> Iterator[tuple[Body, Body]]:
    """Each request's body with its answer's."""
    with (folder / REQUESTS).open() as requests, (folder / ANSWERS).open() as answers:
        for request, answered in zip(requests, answers, strict=True):
            yield json.loads(request), json.loads(answered)


def _shapes() -> list[Shape]:
    """Of every golden body; sizes of 1 to 5,000 candidates evenly spaced by their logarithm."""
    single = [round(MAX_CANDIDATES ** (place / 47)) for place in range(48)]
    several = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, MAX_CANDIDATES]
    many = [1, 4, 16, 64]
    return [*(Shape(1, k) for k in single), *(Shape(7, k) for k in several), *(Shape(256, k) for k in many)]


def _history_length(number: int, longest: int, generator: torch.Generator) -> int:
    """Empty, one, full and random ones take turns."""
    return (0, 1, longest, int(torch.randint(longest + 1, (), generator=generator)))[number % 4]


def _add_candidates(request: Request, count: int, num_items: int, generator: torch.Generator) -> None:
    candidates = torch.randint(num_items, (count,), generator=generator).tolist()
    if count > 2:
        candidates[-1] = candidates[0]  # repeated, so that ties are sure to occur
    request["candidates"] = candidates
    if count % 2 == 0:
        request["top_k"] = min(10, count)
