"""Where an archive is written: a folder, or one zip. A set is there whole or not at all. Blocking."""

from __future__ import annotations

import datetime as dt
import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from drimbox.foundation.errors import DrimboxError, Unavailable
from drimbox.portability import layout
from drimbox.portability.zip_writer import ZipState, ZipWriter, directory_path

JOURNAL = ".drimbox-export.jnl"
_VOLUME = re.compile(r"KA([0-9]{6})(?:_([0-9]{1,6}))?")
_SET = re.compile(r"SS([0-9]{6})")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Sink(Protocol):
    """Takes the sets of an archive one after the other. Methods raise ``Unavailable`` (``disk-full``, ``disk``)."""

    def write_set(self, volume: str, folder: str, files: Mapping[str, bytes], at: dt.datetime) -> None:
        """Write one set."""

    def write_volume(self, volume: str, files: Mapping[str, bytes], at: dt.datetime) -> None:
        """Write the files of a volume itself."""

    def checkpoint(self) -> Mapping[str, Any]:
        """Everything so far is on disk; what ``resume`` needs to go on from here."""

    def finish(self) -> None:
        """The archive is whole."""

    def close(self) -> None:
        """Let go, finished or not. Never raises."""


class FolderSink:
    """Volumes as folders of one folder, readable by their owner alone."""

    def __init__(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Go on from ``state``: what was written after it goes, it will be written again."""
        self._folder = folder
        self._volume, self._last = str(state.get("volume", "")), int(state.get("set", 0))
        with writing():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._forget_later()

    def _forget_later(self) -> None:
        stand = _volume_order(self._volume)
        for volume in list(self._folder.iterdir()):
            order = _volume_order(volume.name)
            if order > stand:
                shutil.rmtree(volume)
            elif order == stand and order != (0, 0):
                for folder in list((volume / layout.ROOT).iterdir()):
                    match = _SET.fullmatch(folder.name)
                    if match is None or int(match[1]) > self._last:
                        shutil.rmtree(folder)

    def write_set(self, volume: str, folder: str, files: Mapping[str, bytes], at: dt.datetime) -> None:
        place = self._folder / volume / layout.ROOT
        draft, final = place / f".{folder}.part", place / folder
        with writing():
            place.parent.mkdir(mode=0o700, exist_ok=True)
            place.mkdir(mode=0o700, exist_ok=True)
            shutil.rmtree(draft, ignore_errors=True)
            try:
                draft.mkdir(mode=0o700)
                for name, content in files.items():
                    _write(draft / name, content)
                draft.rename(final)
            except OSError:
                shutil.rmtree(draft, ignore_errors=True)
                raise
        self._volume, self._last = volume, int(folder.removeprefix("SS"))

    def write_volume(self, volume: str, files: Mapping[str, bytes], at: dt.datetime) -> None:
        with writing():
            place = self._folder / volume
            place.mkdir(mode=0o700, exist_ok=True)
            for name, content in files.items():
                draft = place / f".{name}.part"
                _write(draft, content)
                draft.replace(place / name)

    def checkpoint(self) -> Mapping[str, Any]:
        # Thousands of small files: one order to the system costs far less than one for each.
        os.sync()
        return {"volume": self._volume, "set": self._last}

    def finish(self) -> None:
        os.sync()

    def close(self) -> None:
        pass


class ZipSink:
    """One zip, under another name until it is whole."""

    def __init__(self, path: Path, state: Mapping[str, Any]) -> None:
        self._path = path
        self._draft = _draft(path)
        with writing():
            self._zip = ZipWriter(self._draft, ZipState(**state))

    def write_set(self, volume: str, folder: str, files: Mapping[str, bytes], at: dt.datetime) -> None:
        self._add(f"{volume}/{layout.ROOT}/{folder}", files, at)

    def write_volume(self, volume: str, files: Mapping[str, bytes], at: dt.datetime) -> None:
        self._add(volume, files, at)

    def _add(self, folder: str, files: Mapping[str, bytes], at: dt.datetime) -> None:
        with writing():
            for name, content in files.items():
                self._zip.add(f"{folder}/{name}", content, at)

    def checkpoint(self) -> Mapping[str, Any]:
        with writing():
            state = self._zip.checkpoint()
        return {"size": state.size, "directory": state.directory, "entries": state.entries}

    def finish(self) -> None:
        with writing():
            self._zip.finish()
            self._draft.rename(self._path)
            _sync_folder(self._path.parent)
            directory_path(self._draft).unlink()

    def close(self) -> None:
        self._zip.close()


def is_zip(target: Path) -> bool:
    """Is an archive of this name one zip, rather than a folder?"""
    return target.suffix.lower() == ".zip"


def journal_path(target: Path) -> Path:
    """Where the progress of an export is kept until it is whole."""
    return target.with_name(target.name + ".jnl") if is_zip(target) else target / JOURNAL


def holds_archive(target: Path) -> bool:
    """Is there an archive under that name already, which is no unfinished export of ours? Raises ``OSError``."""
    journal = journal_path(target)
    if is_zip(target):
        if target.exists() and not _draft(target).exists():
            # The end of an export may have been cut between its last two steps.
            for left in (journal, directory_path(_draft(target))):
                left.unlink(missing_ok=True)
        return target.exists()
    there = target.is_dir() and any(_VOLUME.fullmatch(entry.name) for entry in target.iterdir())
    return there and not journal.exists()


@contextmanager
def writing() -> Iterator[None]:
    """What the disk refuses, in words for the operator. What was written before is kept."""
    try:
        yield
    except DrimboxError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise Unavailable(
                "Plus de place à l'endroit de l'export : libérez de la place et relancez la même commande, "
                "l'export reprendra où il s'est arrêté",
                code="disk-full",
            ) from error
        problem = os.strerror(error.errno) if error.errno else type(error).__name__
        raise Unavailable(f"Écriture de l'archive impossible ({problem})", code="disk") from error


def _draft(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _volume_order(name: str) -> tuple[int, int]:
    """Where a volume stands among others; (0, 0) for what is none."""
    match = _VOLUME.fullmatch(name)
    return (int(match[1]), int(match[2] or 1)) if match else (0, 0)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
