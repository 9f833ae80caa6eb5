"""Secrets that a box makes for itself the first time it needs them: one file each, the same for every process."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

SECRET_BYTES = 32


def own_secret(path: Path) -> bytes:
    """The 32 bytes in ``path``; made there, readable by the owner alone, the first time.

    Whoever comes second (another process, another node on the same folder) gets what the first one made. Raises
    ``OSError`` when the file cannot be read or made, ``ValueError`` when it holds no secret of that size.
    """
    if not path.exists():
        _create(path)
    secret = bytes.fromhex(path.read_text("ascii").strip())
    if len(secret) != SECRET_BYTES:
        raise ValueError("not a secret of the right size")
    return secret


def _create(path: Path) -> None:
    """Write it whole under another name, then give it its name only if none took it first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(SECRET_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
