"""What processes take: processor time and memory, as Linux counts them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def processor_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes and of their children, living and ended."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += sum(int(word) for word in _stat(pid)[11:15])
    return total / _TICKS


def resident(pid: int) -> int:
    """Resident bytes of one process; 0 for one that is gone."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


def family(pid: int) -> list[int]:
    """The process and all of its living descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parents.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += parents.get(found[-1], [])
    return found


def postmaster(folder: Path) -> int:
    """The process number of the embedded PostgreSQL of a folder."""
    return int((folder / "postmaster.pid").read_text().splitlines()[0])


def _stat(pid: int) -> list[str]:
    """The fields after the name, which may hold spaces: state, parent, ... (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
