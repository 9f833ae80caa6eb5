"""How this process asks the C library for memory."""

from __future__ import annotations

import ctypes

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
