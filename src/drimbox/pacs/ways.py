"""Which of several ways to a PACS is tried first: what was refused is remembered, and tried again later.

Kept in a small file, so that a box that starts again need not run into the same refusals; it holds no health data.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Busy, DrimboxError, IdentityMismatch, Refused, Unavailable

_log = logging.getLogger(__name__)
_REFUSED_SECONDS = 3600.0
_UNREACHABLE_SECONDS = 60.0
# What says nothing about the way: the question is wrong, time is up, or what came is.
_ABOUT_THE_QUESTION = frozenset(
    {"study-uid", "pacs-silent", "pacs-too-slow", "pacs-wrong-instance", "pacs-wrong-answer", "spool-full"}
)


def another_way(error: DrimboxError) -> bool:
    """May the same be had by another way, when nothing has come by this one?"""
    if isinstance(error, IdentityMismatch | Refused) or error.code in _ABOUT_THE_QUESTION:
        return False
    # Our own queue is the same for all ways; the PACS's is not.
    return not (isinstance(error, Busy) and error.peer_code is None)


class Ways:
    """The ways to one PACS in order of preference, with what is known of them."""

    def __init__(self, names: Sequence[str], clock: Clock, path: Path | None = None, fingerprint: str = "") -> None:
        """``path`` keeps what was learnt, for as long as ``fingerprint`` (the settings that matter) is the same."""
        self._names = tuple(names)
        self._clock = clock
        self._path = path
        self._fingerprint = fingerprint
        self._lock = threading.Lock()
        self._avoided: dict[str, float] = self._read()

    def in_order(self) -> tuple[str, ...]:
        """All ways, those that were refused lately last."""
        now = self._clock.now().timestamp()
        with self._lock:
            avoided = [name for name in self._names if self._avoided.get(name, 0.0) > now]
        return (*(name for name in self._names if name not in avoided), *avoided)

    def worked(self, name: str) -> None:
        with self._lock:
            if self._avoided.pop(name, None) is not None:
                self._write()

    def failed(self, name: str, error: DrimboxError) -> None:
        """It did not work: other ways go first for a while, a short one where it may just be down."""
        down = isinstance(error, Unavailable) and error.code in ("pacs-unreachable", "pacs-tls", "pacs-busy")
        _log.warning("way %s to a PACS does not work: %s (%s)", name, error.reason, error.code)
        with self._lock:
            until = self._clock.now().timestamp() + (_UNREACHABLE_SECONDS if down else _REFUSED_SECONDS)
            self._avoided[name] = until
            self._write()

    def _read(self) -> dict[str, float]:
        try:
            kept = json.loads(self._path.read_text("utf-8")) if self._path else {}
            if kept.get("settings") != self._fingerprint:
                return {}
            return {name: float(kept["avoided_until"][name]) for name in kept["avoided_until"] if name in self._names}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
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
