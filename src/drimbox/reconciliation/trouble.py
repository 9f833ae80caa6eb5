"""What failed lately on a walk, and how long it waits for that; forgotten with the process: the next simply tries."""

from __future__ import annotations

from dataclasses import dataclass

from drimbox.foundation.errors import Unavailable
from drimbox.reconciliation.walk import Finding

# The PACS answers, yet not about this study: after some tries it is a finding about the study. That many of them one
# after the other are rather a PACS that is not well.
_ABOUT_THE_STUDY = frozenset(
    {
        "pacs-ambiguous",
        "pacs-find-failed",
        "pacs-find-rejected",
        "pacs-no-sop-class",
        "pacs-protocol",
        "pacs-too-many-answers",
        "pacs-too-slow",
        "pacs-truncated",
        "pacs-wrong-answer",
    }
)
_TRIES, _IN_A_ROW = 3, 10


@dataclass(slots=True)
class Trouble:
    """``until`` is when to try again, in seconds of the monotonic clock."""

    failures: int = 0
    position: int = 0
    tries: int = 0
    in_a_row: int = 0
    until: float = 0.0

    def over(self) -> None:
        """Everybody answers again."""
        self.failures = self.position = self.tries = self.in_a_row = 0
        self.until = 0.0

    def wait(self, now: float, first: float, longest: float) -> float:
        """Put off the next try; the pause, which grows with each failure."""
        pause = min(first * 2.0 ** min(self.failures, 20), longest)
        self.failures += 1
        self.until = now + pause
        return pause

    def about_the_study(self, position: int, error: Unavailable) -> dict[Finding, str] | None:
        """The finding, where a PACS that answers cannot answer about this study; None: it is to be waited for."""
        if error.code not in _ABOUT_THE_STUDY:
            return None
        self.tries = self.tries + 1 if self.position == position else 1
        self.position = position
        if self.tries < _TRIES or self.in_a_row >= _IN_A_ROW:
            return None
        in_a_row = self.in_a_row + 1
        self.over()
        self.in_a_row = in_a_row
        return {Finding.PACS_REFUSES: error.code}
