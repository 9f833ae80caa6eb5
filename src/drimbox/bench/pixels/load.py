"""What each side did while something was measured, and which limit that points to."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from drimbox.bench.usage import processor_seconds

US, CLIENT = "drimbox", "client"
_BUSY, _DISK = 0.8, 0.2
_FULL = 0.93
_SHORT = 0.5


@dataclass(slots=True)
class Load:
    """Cores kept busy by each side and by the whole machine, and the share of time that it waited for its disk."""

    seconds: float = 0.0
    cores: Mapping[str, float] = field(default_factory=dict)
    machine: float = 0.0
    disk: float = 0.0

    def limit(self, pacs: str = "") -> str:
        """PACS, CPU or disk; ``pacs`` is the side that is waited for where nobody is busy."""
        # The client takes all that it is given: it is the limit only of a server that has time to spare.
        busy = [side for side in self.cores if side != CLIENT or self.cores.get(US, 0.0) < _BUSY]
        busiest = max(busy, key=lambda side: self.cores[side], default="")
        share = self.cores.get(busiest, 0.0)
        if self.disk >= _DISK and share < _BUSY:
            return "disk"
        if share >= _BUSY or (self.machine >= _FULL and share >= _BUSY / 2):
            return "PACS" if busiest == pacs else "CPU" if busiest == US else f"CPU ({busiest})"
        if self.machine >= _FULL:
            return "CPU (shared)"
        return "PACS" if pacs else "waiting"


def mean(loads: Sequence[Load]) -> Load:
    """Of several, each as heavy as it was long."""
    whole = sum(load.seconds for load in loads)

    def of(value: Callable[[Load], float]) -> float:
        return sum(value(load) * load.seconds for load in loads) / whole

    cores = {side: of(lambda load, side=side: load.cores[side]) for side in loads[0].cores}  # type: ignore[misc]
    return Load(whole, cores, of(lambda load: load.machine), of(lambda load: load.disk))


@contextmanager
def watched(sides: Mapping[str, Sequence[int] | Callable[[], Sequence[int]]]) -> Iterator[Load]:
    """Fill in a ``Load`` for the time of the block, of the processes that each side has."""
    load = Load()
    before, machine, begun = _taken(sides), _machine(), time.monotonic()
    try:
        yield load
    finally:
        load.seconds = max(time.monotonic() - begun, 1e-6)
        # The kernel's ticks are too coarse for a short time, its nanoseconds forget the threads that have ended.
        exact = load.seconds < _SHORT
        for side, after in _taken(sides).items():
            cores = max(after[exact] - before[side][exact], 0.0) / load.seconds
            # What it costs to look is the client's, which has one thread.
            load.cores = {**load.cores, side: min(cores, 1.0) if side == CLIENT else cores}
        busy, disk, whole = (now - then for now, then in zip(_machine(), machine, strict=True))
        load.machine = busy / max(whole, 1)
        load.disk = disk / max(whole, 1)


def ourselves() -> Sequence[int]:
    """This process, which plays the client."""
    return (os.getpid(),)


def ended_children() -> float:
    """Seconds of processor time of the programs that we started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _taken(sides: Mapping[str, Sequence[int] | Callable[[], Sequence[int]]]) -> dict[str, tuple[float, float]]:
    """Processor time of each side, in ticks and in nanoseconds, both as seconds."""
    found = {}
    for side, pids in sides.items():
        some = pids() if callable(pids) else pids
        found[side] = (processor_seconds(some), sum(map(_exactly, some)))
    return found


def _exactly(pid: int) -> float:
    """Seconds on a processor of the threads that a process has now (Documentation/scheduler/sched-stats)."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):
            total += int(thread.read_text().split()[0])
    return total / 1e9


def _machine() -> tuple[int, int, int]:
    """Ticks of all cores: busy, waiting for a disk, all (proc(5))."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    whole = sum(fields)
    return whole - fields[3] - fields[4], fields[4], whole
