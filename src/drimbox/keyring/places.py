"""Where the box needs a pair of its own, and what that place asks of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drimbox.trust.fitness import Demand
from drimbox.trust.pairs import PairSource


@dataclass(frozen=True, slots=True)
class Place:
    """``name`` is that of the setting (``structures.ambroise.auth``), ``site`` whose pair it is, ``use`` what for.

    ``demand`` is asked each time a pair is judged: whom the box believes, and which certificates are revoked, changes.
    """

    name: str
    site: str
    use: str
    source: PairSource
    demand: Callable[[], Demand]
