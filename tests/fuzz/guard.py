"""Bounds on one input: processor time by a timer, memory by the limits of the process.

The timer counts processor time, so that a busy machine makes no finding. Native code that never comes back does not
notice it: the campaign watches the process from outside as well.
"""

from __future__ import annotations

import re
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

MEMORY = 768 * 2**20
"""Bytes of address space that inputs may take beyond what the process had before the first one."""


class TooSlow(BaseException):
    """An input took more processor time than its target allows. No parser may catch it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises ``TooSlow`` in the block after ``seconds`` of processor time; in the main thread only, else no limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(_number: int, _frame: FrameType | None) -> None:
        raise TooSlow(f"more than {seconds} s of processor time")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def memory_limit(more: int = MEMORY) -> Iterator[None]:
    """In the block, the process may take ``more`` bytes of address space than it has now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    assert pages is not None
    resource.setrlimit(resource.RLIMIT_AS, (int(pages[1]) * 1024 + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
