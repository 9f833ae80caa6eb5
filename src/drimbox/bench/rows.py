"""What is measured, as lines of a table and as a file; and the machine it was measured on."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Row:
    """One measurement: what, its unit, each value seen."""

    what: str
    unit: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self) -> str:
        spread = f"{min(self.values):.3g} – {max(self.values):.3g}" if len(self.values) > 1 else ""
        return f"| {self.what} | {_readable(self.median)} {self.unit} | {spread} | {len(self.values)} |"


def ratio(what: str, of: Row, to: Row) -> Row:
    """One measurement beside its limit or peer, both of the same run."""
    return Row(what, "", [of.median / to.median])


def table(rows: Iterable[Row]) -> str:
    """In Markdown."""
    return "\n".join(["| what | median | spread | n |", "|---|---|---|---|", *(row.text() for row in rows)])


def write(report: Path, rows: Iterable[Row]) -> None:
    """Every value, for programs."""
    values = {row.what: {"unit": row.unit, "values": row.values} for row in rows}
    report.write_text(json.dumps({"machine": machine(), "rows": values}, indent=2, ensure_ascii=False), "utf-8")


def machine() -> str:
    """The machine the figures were taken on, and what else it had to do just then."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} cores {_model()}, {memory:.0f} GiB, Python {platform.python_version()}, loopback; "
        f"load over 1, 5 and 15 minutes {load}"
    )


def _readable(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _model() -> str:
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _cpuinfo() -> Iterable[str]:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return ()
