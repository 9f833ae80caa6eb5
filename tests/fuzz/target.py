"""What a target of the fuzzing is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from drimbox.foundation.errors import DrimboxError

Run = Callable[[bytes], object]
"""Feeds one input; what it gives back (a word, a code, a few figures) tells inputs of different kinds apart."""

Mutator = Callable[[Random, bytes, Sequence[bytes]], bytes]
"""Makes one hostile input from another and from the whole corpus."""


class Broken(Exception):
    """What must hold did not: an answer that is no answer, two readings of the same bytes that differ, a mute service.

    Always a finding, whatever the target expects.
    """


@dataclass(frozen=True, slots=True)
class Target:
    """``opened`` makes ``run`` ready; ``expected`` are the only errors that the parser documents.

    ``samples`` are made by the product's own makers; ``official`` are patterns under the folder of the official
    samples, used where that folder is there. ``seconds`` is the processor time that one input may take. ``slow``
    targets start services of their own: the short burst leaves them out.
    """

    name: str
    opened: Callable[[], AbstractContextManager[Run]]
    samples: Callable[[], Iterable[bytes]]
    expected: tuple[type[Exception], ...] = (DrimboxError,)
    mutators: tuple[Mutator, ...] = ()
    official: tuple[str, ...] = ()
    official_form: Callable[[Path], bytes] = Path.read_bytes
    seconds: float = 2.0
    largest: int = 256 * 1024
    slow: bool = False


def pure(run: Run) -> Callable[[], AbstractContextManager[Run]]:
    """``opened`` of a parser that needs nothing around it."""

    @contextmanager
    def opened() -> Iterator[Run]:
        yield run

    return opened


def pieces(data: bytes) -> Iterator[bytes]:
    """``data`` as a network might cut it: the cuts depend on the bytes alone, so that a seed always plays the same."""
    random = Random(len(data) * 2654435761 + sum(data[:64]))
    position = 0
    while position < len(data):
        size = random.choice((1, 2, 3, 7, 64, 1000, 70_000))
        yield data[position : position + size]
        position += size
