"""A backup as one file: an uncompressed tar archive, written in one pass, read only when it is whole.

Members, in this order: the dump of the database, the keys of the state folder, ``manifest.json`` (what each one is,
with its size and SHA-256), ``manifest.sha256``. Any ``tar`` opens it; nothing but this order, these names and exactly
this many octets is believed here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from drimbox.foundation.errors import Misconfigured, Refused

FORMAT = 1
DATABASE = "database.dump"
KEY_NAME = re.compile(r"keys/[a-z0-9][a-z0-9._-]{0,60}\.key")

_MANIFEST, _DIGEST = "manifest.json", "manifest.sha256"
_BLOCK = 512
_CHUNK = 2**20
_MOST_KEY = 2**16
_MOST_MANIFEST = 2**20
_MOST_MEMBERS = 100


@dataclass(frozen=True, slots=True)
class Part:
    """One member: ``start`` is where its octets begin in the file."""

    name: str
    size: int
    sha256: str
    start: int


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was read and is whole. ``told`` is its manifest without the parts, ``digest`` that of the manifest:
    who knows it knows every octet."""

    path: Path
    told: Mapping[str, Any]
    parts: tuple[Part, ...]
    digest: str

    @property
    def database(self) -> Part:
        return self.parts[0]

    def keys(self) -> Mapping[str, bytes]:
        """The content of each key, by its path in the state folder."""
        with self.path.open("rb") as file:
            return {part.name: _at(file, part) for part in self.parts[1:]}

    def dump(self) -> Iterator[bytes]:
        """The octets of the dump. Raises ``Refused`` (``backup-altered``) when they changed meanwhile: then before the
        last of them are given, so that nobody can have ended with them."""
        digest = hashlib.sha256()
        held = b""
        with self.path.open("rb") as file:
            file.seek(self.database.start)
            for chunk in _chunks(file, self.database.size):
                if held:
                    yield held
                digest.update(chunk)
                held = chunk
        if digest.hexdigest() != self.database.sha256:
            raise _altered()
        yield held


class Writer:
    """Adds the members of one backup. Get it with ``writing``."""

    def __init__(self, file: IO[bytes], now: float) -> None:
        self._file = file
        self._now = now
        self._parts: list[Part] = []

    def add(self, name: str, chunks: Iterable[bytes]) -> None:
        """One member, whose size is known once it is written."""
        self._parts.append(self._write(name, chunks))

    def finish(self, told: Mapping[str, Any]) -> str:
        """The manifest and the end; gives back its digest."""
        parts = [{"name": part.name, "size": part.size, "sha256": part.sha256} for part in self._parts]
        manifest = json.dumps({**told, "format": FORMAT, "parts": parts}, ensure_ascii=False, indent=1).encode()
        digest = self._write(_MANIFEST, [manifest]).sha256
        self._write(_DIGEST, [digest.encode()])
        self._file.write(bytes(2 * _BLOCK))
        return digest

    def _write(self, name: str, chunks: Iterable[bytes]) -> Part:
        head = self._file.tell()
        self._file.write(bytes(_BLOCK))
        size, digest = 0, hashlib.sha256()
        for chunk in chunks:
            self._file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        self._file.write(bytes(-size % _BLOCK))
        end = self._file.tell()
        self._file.seek(head)
        self._file.write(self._header(name, size))
        self._file.seek(end)
        return Part(name, size, digest.hexdigest(), head + _BLOCK)

    def _header(self, name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, int(self._now)
        return info.tobuf(tarfile.GNU_FORMAT)


@contextmanager
def writing(target: Path, now: float) -> Iterator[Writer]:
    """The file appears under its name when the block ends well, on the disk and readable by its owner alone.

    Raises ``Refused`` (``backup-exists``): no backup is ever written over. ``Misconfigured`` (``file``) for a disk that
    does not take it.
    """
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield Writer(file, now)
                file.flush()
                os.fsync(file.fileno())
            # Unlike a rename, a link takes nobody's place.
            os.link(draft, target)
            _sync_folder(target.parent)
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError as error:
        reason = f"{target.name} existe déjà : une sauvegarde n'en remplace pas une autre"
        raise Refused(reason, code="backup-exists") from error
    except OSError as error:
        raise Misconfigured(f"Le fichier {target} ne peut pas être écrit : {error.strerror}", code="file") from error


def read(path: Path) -> Backup:
    """Read a backup, every octet of it. Raises ``Refused``: ``backup-altered`` when it is cut short, changed or none of
    ours, ``backup-format`` when a newer program wrote it. ``Misconfigured`` (``file``) when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            members = _members(file)
            size = file.seek(0, os.SEEK_END)
            manifest, digest, end = _manifest(file, members)
            parts = _parts(manifest, members[:-2])
            if size != end:
                raise _altered()
            for part in parts:
                _check(file, part)
    except OSError as error:
        raise Misconfigured(f"Le fichier {path} ne peut pas être lu : {error.strerror}", code="file") from error
    told = {name: value for name, value in manifest.items() if name != "parts"}
    return Backup(path, told, parts, digest)


def _members(file: IO[bytes]) -> Sequence[tarfile.TarInfo]:
    found = []
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                found.append(member)
                if not member.isreg() or len(found) > _MOST_MEMBERS:
                    raise _altered()
    except (tarfile.TarError, ValueError, EOFError):
        raise _altered() from None
    if len(found) < 3 or [member.name for member in found[-2:]] != [_MANIFEST, _DIGEST]:
        raise _altered()
    return found


def _manifest(file: IO[bytes], members: Sequence[tarfile.TarInfo]) -> tuple[Mapping[str, Any], str, int]:
    """The manifest, its digest, and where the file must end."""
    place, sum_place = members[-2:]
    if place.size > _MOST_MANIFEST or sum_place.size != 64:
        raise _altered()
    octets, kept = _octets(file, place), _octets(file, sum_place)
    digest = hashlib.sha256(octets).hexdigest()
    if kept != digest.encode():
        raise _altered()
    try:
        manifest = json.loads(octets)
    except ValueError:
        raise _altered() from None
    if not isinstance(manifest, dict):
        raise _altered()
    if manifest.get("format") != FORMAT:
        raise Refused("Cette sauvegarde est d'un autre format que celui de ce programme", code="backup-format")
    return manifest, digest, sum_place.offset_data + _BLOCK + 2 * _BLOCK


def _parts(manifest: Mapping[str, Any], members: Sequence[tarfile.TarInfo]) -> tuple[Part, ...]:
    listed = manifest.get("parts")
    if not isinstance(listed, list) or len(listed) != len(members):
        raise _altered()
    parts = []
    for place, (told, member) in enumerate(zip(listed, members, strict=True)):
        if not isinstance(told, dict) or (told.get("name"), told.get("size")) != (member.name, member.size):
            raise _altered()
        if member.name != DATABASE if place == 0 else not KEY_NAME.fullmatch(member.name) or member.size > _MOST_KEY:
            raise _altered()
        parts.append(Part(member.name, member.size, str(told.get("sha256")), member.offset_data))
    if len({part.name for part in parts}) != len(parts):
        raise _altered()
    return tuple(parts)


def _check(file: IO[bytes], part: Part) -> None:
    digest = hashlib.sha256()
    file.seek(part.start)
    for chunk in _chunks(file, part.size):
        digest.update(chunk)
    if digest.hexdigest() != part.sha256:
        raise _altered()


def _octets(file: IO[bytes], member: tarfile.TarInfo) -> bytes:
    file.seek(member.offset_data)
    return b"".join(_chunks(file, member.size))


def _at(file: IO[bytes], part: Part) -> bytes:
    file.seek(part.start)
    return b"".join(_chunks(file, part.size))


def _chunks(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        chunk = file.read(min(size, _CHUNK))
        if not chunk:
            raise _altered()
        size -= len(chunk)
        yield chunk


def _altered() -> Refused:
    return Refused("Cette sauvegarde est incomplète ou altérée : rien n'en est pris", code="backup-altered")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
