"""What one input showed: an outcome of the documented kind, or a finding."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import drimbox
from fuzz.guard import TooSlow, time_limit
from fuzz.target import Broken, Run, Target

_HOME = str(Path(drimbox.__file__).parent)
PRIVATE = ("DOMINIQUE", "PAT-TROIS", "279035121518989", "2790351215189", "19790328", "1979-03-28", "IPP101")
"""The test patient of the samples: none of this may stand in an error's reason or in the technical log."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """``word`` tells kinds of outcomes apart; ``finding`` is empty unless something is wrong, else its signature."""

    word: str
    finding: str = ""
    detail: str = ""
    seconds: float = 0.0


def attempt(target: Target, run: Run, data: bytes) -> Outcome:
    """Feed one input."""
    started = time.process_time()
    outcome = _attempt(target, run, data)
    return Outcome(outcome.word, outcome.finding, outcome.detail, time.process_time() - started)


def _attempt(target: Target, run: Run, data: bytes) -> Outcome:
    try:
        with _listening() as heard, time_limit(target.seconds):
            word = repr(run(data))
    except TooSlow as slow:
        return Outcome("slow", f"slow:{_place(slow)}", _told(slow))
    except Broken as broken:
        return Outcome("broken", f"broken:{broken}", _told(broken))
    except target.expected as error:
        said = f"{getattr(error, 'reason', error)} {getattr(error, 'location', '')}"
        if parameter := getattr(error, "parameter", ""):
            # The name of a parameter is said on purpose, whatever the sender made of it.
            said = said.replace(parameter, "")
        if any(word in said for word in PRIVATE):
            return Outcome("leak", f"leak:{_place(error)}", _told(error))
        word = f"{type(error).__name__}:{getattr(error, 'code', '')}"
    except Exception as error:  # noqa: BLE001 - this is what the fuzzing looks for
        return Outcome("error", f"{type(error).__name__}:{_place(error)}", _told(error))
    if heard:
        return Outcome("log", *heard[0])
    return Outcome(word[:200])


def _place(error: BaseException) -> str:
    """The innermost line of the product, else the innermost line."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(_HOME)]
    chosen = (ours or frames)[-1:]
    return "".join(f"{Path(f.filename).name}:{f.name}:{f.lineno}" for f in chosen)


def _told(error: BaseException) -> str:
    """What happened and where; not by ``traceback.format_exception``, for the text of an error may be the finding."""
    try:
        frames = "".join(traceback.format_tb(error.__traceback__)[-12:])
        return f"{frames}{type(error).__name__}: {str(error)[:500]}"
    except MemoryError:
        return type(error).__name__


class _Ears(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.heard: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            # A task boundary caught what nobody expected.
            self.heard.append((f"caught:{_place(record.exc_info[1])}", _told(record.exc_info[1])))
        said = f"{record.getMessage()} {getattr(record, 'peer', '')}"
        if any(word in said for word in PRIVATE):
            self.heard.append((f"log:{record.name}:{record.lineno}", "health data in the log"))


@contextmanager
def _listening() -> Iterator[list[tuple[str, str]]]:
    """Hears what is logged in the block; the list fills with what should not have been, and where."""
    ears = _Ears()
    loggers = [logging.getLogger(name) for name in ("drimbox", "uvicorn", "asyncio")]
    former = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(ears)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield ears.heard
    finally:
        for logger, (level, propagate) in zip(loggers, former, strict=True):
            logger.removeHandler(ears)
            logger.level, logger.propagate = level, propagate
