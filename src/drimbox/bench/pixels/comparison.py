"""One row of the table: our figures beside the peers', the goals, and what stood in the way of more."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

BEFORE = "before"
"""Stands among the peers where it was measured what there was before."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure to reach: ``value`` of its own, or relative to a peer of the same run: so many times as good, or later
    by so many seconds at the most."""

    value: float | None = None
    times: float | None = None
    plus: float | None = None
    beside: str = ""

    def level(self, row: Comparison) -> float | None:
        """The figure in the unit of the row; None where the peer was not measured."""
        if self.value is not None:
            return self.value
        peer = row.peers.get(self.beside)
        if not peer:
            return None
        middle = statistics.median(peer)
        if self.plus is not None:
            return middle + self.plus
        assert self.times is not None
        return middle * self.times if row.more_is_better else middle / self.times

    def text(self, unit: str) -> str:
        if self.value is not None:
            return f"{self.value:,.0f} {unit}"
        if self.plus is not None:
            return f"{self.beside} + {self.plus * 1000:.0f} ms"
        return f"{self.times:g} × {self.beside}"


@dataclass(slots=True)
class Comparison:
    """What was measured of one stretch; every value of each side is kept."""

    what: str
    unit: str
    more_is_better: bool
    ours: list[float] = field(default_factory=list)
    peers: dict[str, list[float]] = field(default_factory=dict)
    floor: Goal | None = None
    aim: Goal | None = None
    limit: str = ""
    """What it runs into: PACS, disk, CPU, TLS, ..."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Processor cores that each side kept busy."""
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.ours)

    def times(self, peer: str) -> float:
        """How many times as good as a peer."""
        other = statistics.median(self.peers[peer])
        return self.median / other if self.more_is_better else other / self.median

    def reaches(self, goal: Goal | None) -> bool | None:
        """Is a goal reached? None where there is none, or nothing to compare with."""
        level = goal.level(self) if goal is not None else None
        if level is None:
            return None
        return self.median >= level if self.more_is_better else self.median <= level

    @property
    def verdict(self) -> str:
        if self.reaches(self.aim):
            return "aim"
        reached = self.reaches(self.floor)
        return "" if reached is None else "floor" if reached else "below floor"


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The least and the most."""
    return min(values), max(values)
