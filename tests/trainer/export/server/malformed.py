"""Requests that are wrong in one way each, drawn from a seed."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from trainer.export.manifest import Manifest
from trainer.export.signature import InputFeature

MAX_CANDIDATES, MAX_BATCH = 5000, 256
"""The server's defaults."""
WRONG_TYPES = (None, True, "7", 1.5, {}, [[]], "")


class Malformed(NamedTuple):
    """A body and what its answer must be."""

    kind: str
    body: bytes
    field: str | None
    """That the answer must name; None: any."""
    must_fail: bool = True
    """Whether no such body can be right."""


class Breaker:
    """Breaks a valid body of a route in ways that are drawn from a generator.

    Args:
        body: valid, of one request.
        manifest: of the artefact.
        draw: where everything random comes from.
    """

    def __init__(self, body: dict[str, Any], *, manifest: Manifest, draw: random.Random) -> None:
        self.body, self.manifest, self.draw = body, manifest, draw
        self.is_score = "candidates" in body["requests"][0]
        self.kinds: list[Callable[[], Malformed]] = [
            self.random_bytes,
            self.truncated,
            self.deeply_nested,
            self.wrong_type,
            self.not_a_number,
            self.id_out_of_range,
            self.history_too_long,
            self.histories_of_two_lengths,
            self.missing,
            self.unknown,
            self.given_twice,
            self.batch_size,
            self.top_k,
            self.flipped_bits,
        ]
        if self.is_score:
            self.kinds.append(self.number_of_candidates)

    def __iter__(self) -> Iterator[Malformed]:
        """Without end; kinds take turns."""
        while True:
            self.draw.shuffle(self.kinds)
            for kind in self.kinds:
                yield kind()

    def random_bytes(self) -> Malformed:
        return Malformed("random bytes", self.draw.randbytes(self.draw.randrange(400)), "body")

    def truncated(self) -> Malformed:
        whole = json.dumps(self.body).encode()
        return Malformed("truncated", whole[: self.draw.randrange(len(whole))], "body")

    def deeply_nested(self) -> Malformed:
        depth = self.draw.choice((9, 50, 1000, 100_000))
        opening, closing = self.draw.choice((("[", "]"), ('{"a":', "}")))
        inner = opening * depth + ("1" + closing * depth if self.draw.random() < 0.5 else "")
        return Malformed("deeply nested", self.draw.choice((inner, f'{{"requests": {inner}}}')).encode(), "body")

    def wrong_type(self) -> Malformed:
        body, (place, path) = self._copy(), self._place()
        wrong = self.draw.choice([value for value in WRONG_TYPES if not isinstance(value, type(_get(body, place)))])
        _set(body, place, wrong)
        return self._json("wrong type", body, path)

    def not_a_number(self) -> Malformed:
        body, (place, _) = self._copy(), self._id_place()
        _set(body, place, "@@")
        word = self.draw.choice(("NaN", "Infinity", "-Infinity", "nan", "1e999", "0x10", "01", "+1", "1_000", "1."))
        return Malformed("not a number", json.dumps(body).replace('"@@"', word).encode(), "body")

    def id_out_of_range(self) -> Malformed:
        body, (place, path) = self._copy(), self._id_place()
        most = self._ids_of(place)
        _set(body, place, self.draw.choice((-1, most, most + 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**64), 10**30)))
        return self._json("id out of range", body, path)

    def history_too_long(self) -> Malformed:
        body, most = self._copy(), self.manifest.max_history
        length = self.draw.choice((most + 1, 2 * most + 1, 10 * most, 100_000))
        for feature in self.manifest.user.history:
            body["requests"][0]["history"][feature.name] = [self.draw.randrange(feature.vocab_size) for _ in range(length)]
        return self._json("history too long", body, f"requests[0].history.{self.manifest.user.history[0].name}")

    def histories_of_two_lengths(self) -> Malformed:
        body, features = self._copy(), self.manifest.user.history
        feature = self.draw.choice(features[1:] or features)
        history = body["requests"][0]["history"]
        history[feature.name] = [0] * self.draw.randrange(len(history[features[0].name]))
        return self._json("histories of two lengths", body, None, must_fail=len(features) > 1)

    def missing(self) -> Malformed:
        body, request = self._copy(), "requests[0]"
        wanted = ["user"] * bool(self.manifest.user.features) + ["history", "candidates" if self.is_score else "top_k"]
        inner = [("user", f.name) for f in self.manifest.user.features] + [("history", f.name) for f in self.manifest.user.history]
        path = self.draw.choice([*((name,) for name in wanted), *inner, ()])
        holder = body if not path else body["requests"][0] if len(path) == 1 else body["requests"][0][path[0]]
        del holder[path[-1] if path else "requests"]
        return self._json("missing", body, ".".join([request, *path]) if path else "requests")

    def unknown(self) -> Malformed:
        body = self._copy()
        name = self.draw.choice(("candidate", "x" * 10_000, "", "hist_itém", "\x00", "user_"))
        holder, path = self.draw.choice(
            [
                (body, ""),
                (body["requests"][0], "requests[0]."),
                (body["requests"][0]["user"], "requests[0].user."),
                (body["requests"][0]["history"], "requests[0].history."),
            ]
        )
        holder[name] = self.draw.choice(WRONG_TYPES)
        return self._json("unknown", body, path + name if 0 < len(name) < 64 else None)

    def given_twice(self) -> Malformed:
        text = json.dumps(self.body)
        name = self.draw.choice(("user", "history", "requests"))
        return Malformed("given twice", text.replace(f'"{name}":', f'"{name}": 1, "{name}":', 1).encode(), name)

    def batch_size(self) -> Malformed:
        request = self.body["requests"][0]
        return self._json("batch size", {"requests": [request] * self.draw.choice((0, MAX_BATCH + 1))}, "requests")

    def top_k(self) -> Malformed:
        body = self._copy()
        most = len(body["requests"][0]["candidates"]) if self.is_score else min(self.manifest.store.num_items, MAX_CANDIDATES)
        body["requests"][0]["top_k"] = self.draw.choice((0, -1, most + 1, 2**63, 1.0, "1", None, [1], 10**6))
        return self._json("top_k", body, "requests[0].top_k")

    def number_of_candidates(self) -> Malformed:
        count = self.draw.choice((0, 0, 0, MAX_CANDIDATES + 1, MAX_CANDIDATES + 1, 20_000, 10**6))
        body = self._copy()
        body["requests"][0]["candidates"] = [1] * count
        return self._json(f"{count} candidates", body, "requests[0].candidates")

    def flipped_bits(self) -> Malformed:
        content = bytearray(json.dumps(self.body).encode())
        for _ in range(self.draw.choice((1, 1, 1, 2, 8))):
            content[self.draw.randrange(len(content))] ^= 1 << self.draw.randrange(8)
        return Malformed("flipped bits", bytes(content), None, must_fail=False)

    def _json(self, kind: str, body: object, field: str | None, *, must_fail: bool = True) -> Malformed:
        return Malformed(kind, json.dumps(body).encode(), field, must_fail)

    def _copy(self) -> dict[str, Any]:
        return copy.deepcopy(self.body)

    def _features(self, side: str) -> tuple[InputFeature, ...]:
        return self.manifest.user.features if side == "user" else self.manifest.user.history

    def _place(self) -> tuple[list, str]:
        """Keys of any value of the request, and how the server calls it."""
        if self.draw.random() < 0.5:
            return self._id_place()
        places: list[tuple[list, str]] = [(["requests"], "requests"), (["requests", 0], "requests[0]")]
        places += [(["requests", 0, name], f"requests[0].{name}") for name in self.body["requests"][0] if name != "row_id"]
        return self.draw.choice(places)

    def _id_place(self) -> tuple[list, str]:
        """Keys of an id."""
        request = self.body["requests"][0]
        places: list[tuple[list, str]] = [(["row_id"], "row_id")] if "row_id" in request else []
        for side in ("user", "history"):
            for feature in self._features(side):
                value, keys, path = request[side][feature.name], [side, feature.name], f"{side}.{feature.name}"
                places += [([*keys, i], f"{path}[{i}]") for i in range(len(value))] if isinstance(value, list) else [(keys, path)]
        places += [(["candidates", i], f"candidates[{i}]") for i in range(len(request.get("candidates", [])))]
        keys, path = self.draw.choice(places)
        return ["requests", 0, *keys], f"requests[0].{path}"

    def _ids_of(self, place: list) -> int:
        """How many ids there are where `place` points."""
        if place[2] == "row_id":
            return 2**63 - 1
        if place[2] == "candidates":
            return self.manifest.store.num_items
        return next(feature.vocab_size for feature in self._features(place[2]) if feature.name == place[3])


def _get(body: Any, place: list) -> Any:
    for key in place:
        body = body[key]
    return body


def _set(body: Any, place: list, value: object) -> None:
    _get(body, place[:-1])[place[-1]] = value
