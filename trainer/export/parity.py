"""Whether an artefact does what its run does: the same items, and the same answers to the golden requests."""

# M items, X items of a chunk, H heads, P vector width

from typing import NamedTuple

import torch

from dataloaders.batch import Catalogue
from models.types import ItemVectors
from trainer.errors import CheckpointError
from trainer.export.answers import Body
from trainer.export.artefact import Artefact
from trainer.export.eager import item_tensors
from trainer.export.golden import read_golden
from trainer.export.run_parts import RunParts

TOLERANCE = 1e-5
"""Largest difference in float32 of a score or of a number of an item's vector."""
ITEMS_AT_ONCE = 8192


class Parity(NamedTuple):
    """How an artefact's answers compare."""

    bodies: int
    """Golden requests."""
    scores: int
    """Numbers that were compared."""
    max_error: float
    """Largest |score − golden score|."""


def check_answers(artefact: Artefact) -> Parity:
    """Compare the artefact's answers to its golden requests with the golden answers.

    Scores may differ by TOLERANCE; orders must be the same but among items whose scores differ by at most that.

    Raises:
        CheckpointError: an answer is another; the message names the request.
    """
    bodies, scores, worst = 0, 0, 0.0
    for number, (request, expected) in enumerate(read_golden(artefact.folder)):
        for row, (found, golden) in enumerate(zip(artefact.answer(request)["answers"], expected["answers"], strict=True)):
            error = score_error(found, golden)
            if not error <= TOLERANCE or not same_order(found, golden):
                raise CheckpointError(
                    f"{artefact.folder}, {artefact.form}: golden request {number}, row {row}, is answered with scores that differ "
                    f"by {error:.3g} (or in another order), expected at most {TOLERANCE:.3g}; the artefact does not do what the "
                    "run does"
                )
            scores, worst = scores + len(golden["scores"]), max(worst, error)
        bodies += 1
    return Parity(bodies, scores, worst)


@torch.no_grad()
def check_items(artefact: Artefact, expected: ItemVectors, *, parts: RunParts, catalogue: Catalogue) -> None:
    """Encode the catalogue by the artefact's item tower and compare with what the run makes of it.

    Args:
        artefact: of the run.
        expected: index [M] and vectors [M, H, P] by the run.
        parts: of the run.
        catalogue: every item.

    Raises:
        CheckpointError: an item has another query index, or a vector that differs by more than TOLERANCE.
    """
    num_items = len(expected.index_B)
    for start in range(0, num_items, ITEMS_AT_ONCE):
        stop = min(start + ITEMS_AT_ONCE, num_items)
        index_X, item_XHP = artefact.item_vectors(*item_tensors(parts, catalogue, start, stop))
        error = float((item_XHP - expected.item_BHP[start:stop]).abs().max())
        if not torch.equal(index_X, expected.index_B[start:stop]) or not error <= TOLERANCE:
            raise CheckpointError(
                f"{artefact.folder}, {artefact.form}: the item tower differs from the run by {error:.3g} among items {start} to "
                f"{stop - 1}, expected at most {TOLERANCE:.3g} and the same query index; the artefact does not do what the run does"
            )


def score_error(found: Body, golden: Body) -> float:
    """Largest |score − golden score| of one answer; infinite where there are more or fewer."""
    if len(found["scores"]) != len(golden["scores"]):
        return float("inf")
    return max((abs(a - b) for a, b in zip(found["scores"], golden["scores"], strict=True)), default=0.0)


def same_order(found: Body, golden: Body) -> bool:
    """Whether places with another item hold one that golden's scores put there too, within TOLERANCE."""
    if "items" in golden:
        names, expected, given = found["items"], golden["items"], dict(zip(golden["items"], golden["scores"], strict=True))
        scores, last = golden["scores"], golden["scores"][-1:]
    elif "top" in golden:
        names, expected = [[top["position"] for top in answer["top"]] for answer in (found, golden)]
        given, scores = dict(enumerate(golden["scores"])), [top["score"] for top in golden["top"]]
        last = scores[-1:]
    else:
        return "top" not in found
    if len(names) != len(expected) or len(set(names)) != len(names):
        return False
    places = zip(names, expected, scores, strict=True)
    return all(name == other or abs(given.get(name, last[0]) - score) <= TOLERANCE for name, other, score in places)
