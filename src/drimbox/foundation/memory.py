"""How this process asks the C library for memory, and keeps it to itself."""

from __future__ import annotations

import contextlib
import ctypes
import resource
from pathlib import Path

_M_ARENA_MAX = -8
_M_MMAP_THRESHOLD = -3
_M_TRIM_THRESHOLD = -1
# What is larger is given back to the system as soon as it is freed.
_LARGE = 4 * 2**20
_SPARE = 8 * 2**20


def few_arenas(most: int = 2) -> None:
    """Let threads share their heaps (glibc), early in the process; elsewhere, nothing happens.

    By default each thread gets a heap of its own, and what one has freed of its large buffers is lost to the others: a
    box that serves slow callers grew to twice the memory that it uses. And the buffers that images leave in are given
    back and asked for again each time, which takes longer than to read into them: some are kept.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, most)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _SPARE)


def without_core_dumps() -> None:
    """From now on a crash of this process, or of one that it starts, writes nothing of its memory to disk.

    Private keys are in it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A core that is piped to a collector is not held back by that limit; an empty one tells nothing.
    with contextlib.suppress(OSError):
        Path("/proc/self/coredump_filter").write_text("0", "ascii")
