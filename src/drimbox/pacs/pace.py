"""How many operations a minute a PACS is asked for, at the most."""

from __future__ import annotations

import threading


class Pace:
    """Spreads operations: each is told how long it must wait. Times are monotonic seconds.

    A few may start at once after a quiet time (``burst``); over any longer time the rate holds.
    """

    def __init__(self, per_minute: int, *, burst: int = 5) -> None:
        """``per_minute`` 0: no limit."""
        self._step = 60.0 / per_minute if per_minute else 0.0
        self._burst = self._step * max(min(burst, per_minute) - 1, 0)
        self._lock = threading.Lock()
        self._next = float("-inf")

    def reserve(self, now: float, longest: float) -> float | None:
        """Takes the next turn: seconds until then, 0 for now; None, and no turn, where it is over ``longest`` away."""
        if not self._step:
            return 0.0
        with self._lock:
            turn = max(self._next, now - self._burst)
            if turn - now > longest:
                return None
            self._next = turn + self._step
            return max(turn - now, 0.0)
