"""What a process holds of a box before anything else: its state folder, and its database."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from drimbox.box.settings import Settings
from drimbox.foundation.errors import Misconfigured
from drimbox.store import embedded


@contextlib.contextmanager
def alone(state: Path) -> Iterator[None]:
    """Hold the state folder: a box started twice by mistake would throw away the images that the first is serving.

    Raises ``Misconfigured`` (``state-in-use``). A killed box lets go of it by dying.
    """
    with (state / "box.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            reason = f"Une DRIMbox tourne déjà avec le dossier {state} : une seconde ne peut pas s'en servir"
            raise Misconfigured(reason, code="state-in-use") from None
        yield


@contextlib.contextmanager
def database_of(settings: Settings) -> Iterator[str]:
    """The DSN of the site's own PostgreSQL when it gave one, else of the embedded one, which may be running already."""
    file = settings.database.dsn_file
    if file is not None:
        yield file.read_text("utf-8").strip()
        return
    with embedded.running(settings.box.state_dir / "postgres") as dsn:
        yield dsn
