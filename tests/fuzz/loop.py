"""Fuzzes one target in this process, as long as it is told to.

The input that is about to be tried stands in a file shared with whoever watches this process, so that even an input
that kills or hangs it is not lost.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fuzz import mutate
from fuzz.oracle import Outcome, attempt
from fuzz.reach import Reach
from fuzz.target import Run, Target

_HEAD = struct.Struct("<QQ?")
_LARGEST = 8 * 2**20
_CORPUS = 3000
_SHRINK_SECONDS = 20.0
_SHRINK_TRIES = 3000


@dataclass(frozen=True, slots=True)
class Input:
    """``official``: official data went into it, so it may not be kept in the repository."""

    data: bytes
    official: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that showed a defect, made as small as could be."""

    signature: str
    detail: str
    input: Input


@dataclass(slots=True)
class Course:
    """What one run of a target did; ``slowest`` is in seconds of processor time."""

    executions: int = 0
    slowest: float = 0.0
    slowest_input: bytes = b""
    lines: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)
    found: list[Input] = field(default_factory=list)
    """Inputs that did something new."""


class Slate:
    """The number and the bytes of the input at hand, in a file that another process can read."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(_HEAD.size + _LARGEST)
            self._map = mmap.mmap(file.fileno(), _HEAD.size + _LARGEST)

    def write(self, number: int, given: Input) -> None:
        kept = given.data[:_LARGEST]
        self._map[: _HEAD.size] = _HEAD.pack(number, len(kept), given.official)
        self._map[_HEAD.size : _HEAD.size + len(kept)] = kept

    def number(self) -> int:
        return int(_HEAD.unpack_from(self._map)[0])

    def read(self) -> Input:
        _, length, official = _HEAD.unpack_from(self._map)
        return Input(bytes(self._map[_HEAD.size : _HEAD.size + length]), official)

    def close(self) -> None:
        self._map.close()


def fuzz(
    target: Target,
    run: Run,
    corpus: Sequence[Input],
    *,
    seed: str,
    going_on: Callable[[Course], bool],
    slate: Slate | None = None,
) -> Course:
    """Try the corpus, then what can be made of it, while ``going_on`` says so."""
    course, random = Course(), Random(seed)
    with _reaching() as reach:
        known: list[Input] = []
        seen: set[str] = set()

        def one(given: Input) -> None:
            course.executions += 1
            if slate is not None:
                slate.write(course.executions, given)
            outcome = Outcome("")

            def call() -> None:
                nonlocal outcome
                outcome = attempt(target, run, given.data)

            fresh = reach.run(call)
            if outcome.seconds > course.slowest:
                course.slowest, course.slowest_input = outcome.seconds, given.data
            if outcome.finding:
                if outcome.finding not in course.findings:
                    small = _smaller(target, run, given, outcome.finding)
                    course.findings[outcome.finding] = Finding(outcome.finding, outcome.detail, small)
            elif (fresh or outcome.word not in seen) and len(known) < _CORPUS and len(given.data) <= target.largest:
                known.append(given)
                course.found.append(given)
            seen.add(outcome.word)

        for given in corpus:
            one(given)
            if given not in known:
                known.append(given)
        course.found.clear()
        while going_on(course):
            one(_made(target, random, known))
        course.lines = reach.lines
    return course


def _made(target: Target, random: Random, known: Sequence[Input]) -> Input:
    """A new input from one that is known; what was found last is taken more often."""
    if not known:
        return Input(random.randbytes(random.randrange(64)))
    recent = random.random() < 0.3
    chosen = known[-1 - int(random.random() ** 2 * min(50, len(known)))] if recent else random.choice(known)
    other = random.choice(known)
    data = chosen.data
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        own = target.mutators and random.random() < 0.6
        change = random.choice(target.mutators) if own else mutate.any_format
        data = change(random, data, (other.data, chosen.data))
    return Input(data[: 2 * target.largest], chosen.official or other.official)


def _smaller(target: Target, run: Run, given: Input, finding: str) -> Input:
    """Pieces are left out as long as the same thing goes wrong."""
    data, end = given.data, time.monotonic() + _SHRINK_SECONDS
    size, tries = max(1, len(data) // 2), 0
    while size >= 1:
        at, shrunk = 0, False
        while at < len(data):
            tries += 1
            if time.monotonic() > end or tries > _SHRINK_TRIES:
                return Input(data, given.official)
            candidate = data[:at] + data[at + size :]
            if attempt(target, run, candidate).finding == finding:
                data, shrunk = candidate, True
            else:
                at += size
        if not shrunk or size > len(data):
            size = min(size, len(data)) // 2
    return Input(data, given.official)


@contextmanager
def _reaching() -> Iterator[Reach]:
    reach = Reach()
    try:
        yield reach
    finally:
        reach.close()
