"""How this process asks the C library for memory."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8


def few_arenas(most: int = 2) -> None:
    """Let threads share their heaps (glibc), early in the process; elsewhere, nothing happens.

    By default each thread gets a heap of its own, and what one has freed of its large buffers is lost to the others: a
    box that serves slow callers grew to twice the memory that it uses.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, most)
