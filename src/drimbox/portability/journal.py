"""How far a long work went: lines that are added to a file, so that a work that was cut goes on where it stood.

The file holds numbers and names of folders, never anything about a patient.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drimbox.foundation.errors import Unavailable

State = Mapping[str, Any]


class Journal:
    """An open journal, locked: no other process works on the same thing meanwhile."""

    def __init__(self, path: Path) -> None:
        """Open it, or begin it. Raises ``Unavailable`` (``archive-busy``), ``OSError``."""
        self._path = path
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise Unavailable("Ce travail est déjà en cours dans un autre processus", code="archive-busy") from error
        self.states = self._whole_lines()

    def _whole_lines(self) -> list[State]:
        """The first line and the last whole one; a line that was cut is taken away."""
        first: State | None = None
        last: State | None = None
        end = 0
        for line in self._file:
            try:
                state = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                state = None
            if not isinstance(state, dict):
                break
            first, last = first or state, state
            end += len(line)
        self._file.seek(end)
        self._file.truncate()
        return [s for s in (first, last) if s is not None]

    def add(self, state: State) -> None:
        """Add one line, which is on disk when this returns. Raises ``OSError``."""
        self._file.write(json.dumps(dict(state), sort_keys=True).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def restart(self) -> None:
        """Forget everything. Raises ``OSError``."""
        self._file.seek(0)
        self._file.truncate()
        self.states = []

    def done(self) -> None:
        """The work is over: there is nothing to go on with. Raises ``OSError``."""
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        self._file.close()
