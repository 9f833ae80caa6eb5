"""Which of several ways to a PACS is tried first: what did not work is remembered, and tried again later.

Kept in a small file, so that a box that starts again need not run into the same refusals; it holds no health data. It
changes the order only: where the others fail too, a way that is avoided is tried all the same.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Busy, DrimboxError, IdentityMismatch, Refused

_log = logging.getLogger(__name__)
_REFUSED_SECONDS = 3600.0
_WORSE_SECONDS = 600.0
_DOWN_SECONDS = 60.0

# What says nothing about the way: the question is wrong, or what came is, or it is on our side.
_ABOUT_THE_QUESTION = frozenset(
    {
        *("study-uid", "pacs-wrong-instance", "pacs-wrong-answer", "pacs-ambiguous", "pacs-too-many-answers"),
        # Another way that tells less may not know that something is held back.
        *("pacs-truncated", "pacs-too-slow", "spool-full", "too-many-retrieves"),
    }
)
_DOWN = frozenset({"pacs-unreachable", "pacs-tls", "pacs-busy", "pacs-aborted", "pacs-protocol", "pacs-web-failed"})
_REFUSED = frozenset(
    {
        *("pacs-service-refused", "pacs-association-rejected", "pacs-destination-unknown", "pacs-retrieve-refused"),
        *("pacs-find-rejected", "pacs-no-sop-class", "pacs-web-forbidden"),
    }
)


class Lesson(NamedTuple):
    """What an error teaches about the way that it came by.

    ``another``: the same may be had by another way, now, when nothing has come by this one. ``seconds``: for how long
    other ways are to go first, whatever comes of them.
    """

    another: bool
    seconds: float


def lesson(error: DrimboxError) -> Lesson:
    """What is learnt of an error: a refusal holds for long, what is down for a little, one study teaches nothing."""
    if isinstance(error, IdentityMismatch | Refused) or error.code in _ABOUT_THE_QUESTION:
        return Lesson(another=False, seconds=0.0)
    if isinstance(error, Busy) and error.peer_code is None:
        # Our own queue is the same for all ways; the PACS's is not.
        return Lesson(another=False, seconds=0.0)
    if error.code == "pacs-silent":
        # Who asked has waited long enough for now; a PACS that cannot connect to us is silent too.
        return Lesson(another=False, seconds=_WORSE_SECONDS)
    if error.code in _REFUSED:
        return Lesson(another=True, seconds=_REFUSED_SECONDS)
    return Lesson(another=True, seconds=_DOWN_SECONDS if error.code in _DOWN else 0.0)


def is_not_offered(error: DrimboxError) -> bool:
    """Does the PACS say itself that it has no such service? Then nothing can be hidden behind it."""
    return error.code == "pacs-service-refused"


class Ways:
    """The ways to one PACS in order of preference, with what is known of them."""

    def __init__(self, names: Sequence[str], clock: Clock, path: Path | None = None, fingerprint: str = "") -> None:
        """``path`` keeps what was learnt, for as long as ``fingerprint`` (the settings that matter) is the same."""
        self.names = tuple(names)
        self._clock = clock
        self._path = path
        self._fingerprint = fingerprint
        self._lock = threading.Lock()
        self._avoided: dict[str, float] = self._read()

    def in_order(self) -> tuple[str, ...]:
        """All ways, those that did not work lately last."""
        now = self._clock.now().timestamp()
        with self._lock:
            # A time further away than we ever put it comes of a clock that was wrong.
            avoided = [name for name in self.names if 0 < self._avoided.get(name, 0.0) - now <= _REFUSED_SECONDS]
        return (*(name for name in self.names if name not in avoided), *avoided)

    def failed(self, name: str, error: DrimboxError) -> None:
        """It did not work: other ways go first for as long as the error says."""
        if seconds := lesson(error).seconds:
            _log.warning("way %s to a PACS does not work: %s (%s)", name, error.reason, error.code)
            self._avoid(name, seconds)

    def worked(self, name: str, instead_of: Sequence[str] = ()) -> None:
        """It worked; ``instead_of`` others that were asked for the same before, and could not: they wait a while."""
        for other in instead_of:
            _log.warning("way %s to a PACS gave what way %s did not", name, other)
            self._avoid(other, _WORSE_SECONDS)
        with self._lock:
            if self._avoided.pop(name, None) is not None:
                self._write()

    def _avoid(self, name: str, seconds: float) -> None:
        until = self._clock.now().timestamp() + seconds
        with self._lock:
            if until > self._avoided.get(name, 0.0):
                self._avoided[name] = until
                self._write()

    def _read(self) -> dict[str, float]:
        try:
            kept = json.loads(self._path.read_text("utf-8")) if self._path else {}
            if kept.get("settings") != self._fingerprint:
                return {}
            times = {name: float(kept["avoided_until"][name]) for name in kept["avoided_until"] if name in self.names}
            return {name: until for name, until in times.items() if math.isfinite(until)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            # Lost or spoiled: it is learnt again.
            return {}

    def _write(self) -> None:
        if self._path is None:
            return
        kept = {"settings": self._fingerprint, "avoided_until": self._avoided}
        part = self._path.with_name(f"{self._path.name}.part")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.write_text(json.dumps(kept), "utf-8")
            os.replace(part, self._path)
        except OSError as error:
            _log.warning("what was learnt of a PACS cannot be kept: %s", error.strerror)
