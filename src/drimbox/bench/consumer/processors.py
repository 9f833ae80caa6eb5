"""Whose processor time a measurement takes: on one machine, what the boxes compute is taken from the PACS."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drimbox.bench.rows import Row
from drimbox.bench.usage import family, postmaster, processor_seconds
from drimbox.demo.mesh import Mesh

_US = "who asks"
_NAMES = {"site a": "the source's box", "site b": "the consumer's box"}


@dataclass(slots=True)
class Processors:
    """Processor seconds by process, from one measurement to the next."""

    mesh: Mesh
    what: str
    rows: dict[str, Row] = field(default_factory=dict)
    _before: Mapping[str, float] = field(default_factory=dict)

    def begin(self) -> None:
        """What is taken from now on is counted."""
        self._before = _taken(self.mesh)

    def end(self) -> None:
        """One value more for each process."""
        for name, seconds in _taken(self.mesh).items():
            row = self.rows.setdefault(name, Row(f"processor time of {name}, {self.what}", "s"))
            row.values.append(seconds - self._before.get(name, 0.0))

    def told(self) -> list[Row]:
        """Those that took any."""
        return [row for row in self.rows.values() if row.median >= 0.05]


def _taken(mesh: Mesh) -> dict[str, float]:
    own = os.times()
    found = {_US: own.user + own.system}
    for running in mesh.processes:
        if (name := _NAMES.get(running.name)) is not None:
            found[name] = processor_seconds(family(running.process.pid))
    for name, folder in (("the source's PACS", "pacs-a"), ("the consumer's PACS", "pacs-b")):
        with contextlib.suppress(OSError, ValueError):
            found[name] = processor_seconds([int((mesh.state / folder / "orthanc.pid").read_text())])
    with contextlib.suppress(OSError, ValueError):
        found["the consumer's database"] = processor_seconds(family(postmaster(_database(mesh.state))))
    return found


def _database(state: Path) -> Path:
    return state / "b" / "postgres"
