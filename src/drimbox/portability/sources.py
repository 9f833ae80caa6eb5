"""Where an archive is read: a folder, a zip, a folder of zips. Nothing in it is believed. Blocking.

Sets come in the order of their names, so that an import that was cut goes on after the last one it did.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from drimbox.foundation.errors import DrimboxError, Unavailable
from drimbox.portability import layout
from drimbox.portability.layout import refused
from drimbox.portability.sinks import JOURNAL
from drimbox.portability.zip_reader import Entry, ZipReader

_MAX_DEPTH = 6
_SETS = re.compile(r"Lots de soumission *: *([0-9]{1,9})")

Key = tuple[str, ...]
"""The folders that lead to a set: its place in the order."""


class SetFiles(Protocol):
    """The files of one set."""

    @property
    def key(self) -> Key: ...

    def names(self) -> tuple[str, ...]:
        """At most ``layout.MAX_FILES`` + 1 of them."""

    def read(self, name: str, limit: int) -> bytes:
        """The octets of a file. Raises ``Refused`` when there are more than ``limit``, ``Unavailable``."""


class Source(Protocol):
    """An archive, open."""

    def count(self) -> int:
        """How many sets it holds."""

    def sets(self, after: Key | None) -> Iterator[SetFiles]:
        """Its sets in their order, those after ``after``."""

    def ignored(self) -> int:
        """How many files have a path that leads outside, and were left alone."""

    def announced(self) -> Iterator[tuple[str, int]]:
        """Volumes whose README.TXT says how many sets they hold, with that number."""


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """An archive to read.

    Raises ``Refused``: ``archive-absent``, ``archive-unfinished`` (an export that was not brought to its end),
    ``archive-zip``, ``archive-limits``; ``Unavailable`` (``archive-read``).
    """
    with ExitStack() as stack:
        with reading():
            source = _source(path, stack)
        yield source


def _source(path: Path, stack: ExitStack) -> Source:
    if path.is_dir():
        if (path / JOURNAL).exists():
            raise refused("Cet export n'est pas terminé : relancez-le d'abord", "unfinished")
        return _FolderSource(path, stack)
    if path.is_file():
        reader = ZipReader(path)
        stack.callback(reader.close)
        return _ZipSource(reader, ())
    raise refused("Ni dossier ni fichier à cet endroit", "absent")


@contextmanager
def reading() -> Iterator[None]:
    """What the disk refuses, in words for the operator."""
    try:
        yield
    except DrimboxError:
        raise
    except (OSError, sqlite3.Error) as error:
        number = error.errno if isinstance(error, OSError) else None
        problem = os.strerror(number) if number else type(error).__name__
        raise Unavailable(f"Lecture de l'archive impossible ({problem})", code="archive-read") from error


# --- folder -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _FolderSet:
    key: Key
    path: Path

    def names(self) -> tuple[str, ...]:
        found = []
        with reading(), os.scandir(self.path) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and not layout.hidden(entry.name):
                    found.append(entry.name)
                if len(found) > layout.MAX_FILES:
                    break
        return tuple(sorted(found))

    def read(self, name: str, limit: int) -> bytes:
        with reading():
            return _contents(self.path / name, limit)


class _FolderSource:
    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._root = root
        self._stack = stack
        self._zips: dict[Key, _ZipSource] = {}

    def count(self) -> int:
        return sum(1 for _ in self._folders(None)) + sum(s.count() for s in map(self._zip, self._zip_keys(None)))

    def sets(self, after: Key | None) -> Iterator[SetFiles]:
        for key in self._folders(after):
            yield _FolderSet(key, self._root.joinpath(*key))
        # Zips come after all folders, under a key that says so.
        for key in self._zip_keys(after):
            yield from self._zip(key).sets(after)

    def ignored(self) -> int:
        return sum(s.ignored() for s in self._zips.values())

    def announced(self) -> Iterator[tuple[str, int]]:
        for parts, entries in self._walk():
            for entry in entries:
                if entry.name.upper() == layout.README and entry.is_file(follow_symlinks=False):
                    yield from _announced(parts, _contents(Path(entry.path), 2**20))
        for key in self._zip_keys(None):
            yield from self._zip(key).announced()

    def _folders(self, after: Key | None) -> Iterator[Key]:
        if after is not None and after[:1] == (_ZIPS,):
            return
        for parts, entries in self._walk():
            inside = len(parts) > 1 and parts[-2].upper() == layout.ROOT
            inside = inside or (len(parts) == 1 and self._root.name.upper() == layout.ROOT)
            if (inside or any(e.name.upper() == layout.METADATA for e in entries)) and (after is None or parts > after):
                yield parts

    def _zip_keys(self, after: Key | None) -> Iterator[Key]:
        with os.scandir(self._root) as entries:
            names = sorted(
                e.name for e in entries if e.name.lower().endswith(".zip") and e.is_file(follow_symlinks=False)
            )
        for name in names:
            if after is None or after[:1] != (_ZIPS,) or name >= after[1]:
                yield (_ZIPS, name)

    def _zip(self, key: Key) -> _ZipSource:
        if key not in self._zips:
            reader = ZipReader(self._root / key[1])
            self._stack.callback(reader.close)
            self._zips[key] = _ZipSource(reader, key)
        return self._zips[key]

    def _walk(self) -> Iterator[tuple[Key, list[os.DirEntry[str]]]]:
        """Every folder with its entries, depth first, in the order of keys; links are never followed."""
        stack: list[Key] = [()]
        while stack:
            parts = stack.pop()
            with os.scandir(self._root.joinpath(*parts)) as scanned:
                entries = [entry for entry in scanned if not layout.hidden(entry.name)]
            yield parts, entries
            if len(parts) < _MAX_DEPTH:
                inner = (e.name for e in entries if e.is_dir(follow_symlinks=False))
                stack.extend((*parts, name) for name in sorted(inner, reverse=True))


# --- zip --------------------------------------------------------------------------------------------------------------

_ZIPS = "~zip"


@dataclass(frozen=True, slots=True)
class _ZipSet:
    key: Key
    reader: ZipReader
    folder: str

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(entry.name for entry in self._files()))

    def read(self, name: str, limit: int) -> bytes:
        with reading():
            return self.reader.read(next(e for e in self._files() if e.name == name), limit)

    def _files(self) -> tuple[Entry, ...]:
        with reading():
            return self.reader.files(self.folder, layout.MAX_FILES)


class _ZipSource:
    def __init__(self, reader: ZipReader, prefix: Key) -> None:
        self._reader = reader
        self._prefix = prefix

    def count(self) -> int:
        return self._reader.count()

    def sets(self, after: Key | None) -> Iterator[SetFiles]:
        own = after is not None and after[: len(self._prefix)] == self._prefix
        start = "/".join(after[len(self._prefix) :]) if own and after is not None else None
        for folder in self._reader.folders(start):
            yield _ZipSet((*self._prefix, *folder.split("/")), self._reader, folder)

    def ignored(self) -> int:
        return self._reader.ignored

    def announced(self) -> Iterator[tuple[str, int]]:
        for folder, entry in self._reader.named(layout.README):
            yield from _announced((*self._prefix, *folder.split("/")), self._reader.read(entry, 2**20))


def volume_of(key: Key) -> str:
    """The volume that a set belongs to, as ``announced`` names it."""
    folders = [n for n, part in enumerate(key) if part.upper() == layout.ROOT]
    return "/".join(key[: folders[-1]] if folders else key[:-1])


def _announced(parts: Key, readme: bytes) -> Iterator[tuple[str, int]]:
    match = _SETS.search(readme.decode("utf-8", "replace"))
    if match is not None:
        yield "/".join(part for part in parts if part), int(match[1])


def _contents(path: Path, limit: int) -> bytes:
    """The octets of a plain file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise refused("Ce n'est pas un fichier", "limits")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise refused("Fichier de l'archive trop volumineux", "limits")
    return content
