"""A volume: the images of one retrieve in a folder of its own, each as it lies in a file, and what is known of them.

::

    <volume>/000001 ...   one Part 10 file per image (encrypted in chunks in a sealed cache)
    <volume>/heads        for each image, its beginning with the INS put in, up to where the file goes on unchanged
    <volume>/table        one row per image
    <volume>/index        whose images these are; written last, by renaming: a volume without it does not exist
    <volume>/described    the images' headers as DICOM JSON, and where each begins; may come later

After a loss of power, a volume counts only if ``synced`` says that it had reached the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import json
import mmap
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

from drimbox.cache.sealing import Damaged, VolumeKey, sealed_size
from drimbox.identity.ins import Ins
from drimbox.images.indexed import read_facts

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_IN_MEMORY = 2**22
# Linux reads what is in memory without waiting for the disk (preadv2(2)); 0 where that is not known.
_AT_ONCE: int = getattr(os, "RWF_NOWAIT", 0)
_COPY = 2**20


@dataclass(frozen=True, slots=True)
class Space:
    """To whom images belong: what was fetched for one KOS is served for that KOS alone."""

    structure: str
    pacs: str
    study_uid: str
    kos_uid: str


@dataclass(frozen=True, slots=True)
class Row:
    """One image. ``size`` is that of the Part 10 file; ``head_length`` is 0 when its header was not understood.

    ``head_at`` and ``head_length`` say where its edited beginning lies in ``heads``, ``rest`` from where its file goes
    on unchanged after that, ``head_size`` how long that beginning is.
    """

    sop_instance_uid: str
    series_uid: str
    number: int
    size: int
    tag: str
    transfer_syntax: str
    head_at: int
    head_length: int
    head_size: int
    rest: int


@dataclass(frozen=True, slots=True)
class Card:
    """The index of a volume. ``ins`` and ``identity`` are keyed digests; ``pixels``: the images are there, not only
    their description.
    """

    space: Space
    series: Mapping[str, int]
    bytes: int
    created_at: float
    ins: str
    identity: str
    pixels: bool
    sealed: bool
    boot: str
    synced: bool


class Shelf:
    """The files of a volume, finished or not."""

    def __init__(self, folder: Path, key: VolumeKey) -> None:
        self.folder = folder
        self.key = key

    def path_of(self, row: Row) -> Path:
        return self.folder / f"{row.number:06d}"

    def read(self, row: Row, offset: int, length: int) -> bytes:
        """Bytes of an image, in clear. Raises ``OSError``, ``Damaged``."""
        data = bytearray(max(min(length, row.size - offset), 0))
        self.read_into(row, offset, memoryview(data), wait=True)
        return bytes(data)

    def read_into(self, row: Row, offset: int, target: memoryview, *, wait: bool) -> bool:
        """Fill ``target`` with bytes of an image, in clear. Raises ``OSError``, ``Damaged``.

        Without ``wait`` only with what can be had at once: False where the disk has to be waited for, or a chunk
        deciphered.
        """
        if not wait and (self.key.sealed or not _AT_ONCE):
            return False
        file = os.open(f"{self.folder}/{row.number:06d}", os.O_RDONLY)
        try:
            if self.key.sealed:
                self.key.decrypt_into(row.number, file, row.size, offset, target)
                return True
            return _fill(file, offset, target, wait=wait)
        finally:
            os.close(file)

    def head(self, row: Row, *, wait: bool) -> bytes | None:
        """The beginning of an image with the INS of its patient. Raises ``OSError``, ``Damaged``.

        Without ``wait``, None where the disk has to be waited for.
        """
        written = self._heads_between(row.head_at, row.head_at + row.head_length, wait=wait)
        return None if written is None else self.key.unseal(written)

    def _heads_between(self, start: int, end: int, *, wait: bool) -> bytes | None:
        if not wait and not _AT_ONCE:
            return None
        written = bytearray(end - start)
        file = os.open(f"{self.folder}/heads", os.O_RDONLY)
        try:
            return bytes(written) if _fill(file, start, memoryview(written), wait=wait) else None
        finally:
            os.close(file)

    def check(self, row: Row) -> tuple[int, int]:
        """Is an image on the disk as it was written? Returns what tells of a later change. Raises as ``read``."""
        stat = os.stat(self.path_of(row))
        if stat.st_size != (sealed_size(row.size) if self.key.sealed else row.size):
            raise Damaged
        if self.key.sealed:
            for offset in range(0, row.size, _COPY):
                self.read(row, offset, _COPY)
        else:
            with _buffer(self.path_of(row)) as content:
                if self.key.tag(row.number, content) != row.tag:
                    raise Damaged
        if row.head_length:
            self.head(row, wait=True)
        return stat.st_mtime_ns, stat.st_ctime_ns

    def write_record(self, name: str, record: bytes, *, sync: bool = False) -> None:
        """Write a small file whole, or not at all."""
        part = self.folder / f"{name}.part"
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write(file, self.key.seal(record))
            if sync:
                os.fsync(file)
        finally:
            os.close(file)
        part.rename(self.folder / name)
        if sync:
            _sync(self.folder)

    def read_record(self, name: str) -> bytes:
        """A file of ``write_record``. Raises ``OSError``, ``Damaged``."""
        return self.key.unseal((self.folder / name).read_bytes())

    def remove(self) -> None:
        """All of it; the index first, so that a half removed volume does not exist."""
        with contextlib.suppress(OSError):
            (self.folder / "index").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class Draft(Shelf):
    """A volume in the making. Its methods block, and are called by one thread at a time."""

    def __init__(self, folder: Path, key: VolumeKey) -> None:
        super().__init__(folder, key)
        folder.mkdir(mode=0o700)
        self.rows: dict[str, Row] = {}
        self.bytes = 0
        self._heads = os.open(folder / "heads", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._heads_size = 0
        self._number = 0

    def add(self, source: Path, sop_instance_uid: str, study_uid: str, series_uid: str | None, ins: Ins) -> Row:
        """Take an image over: ``source`` is moved here, or stays where it is when this fails. Raises ``OSError``."""
        # Never given twice, even to an image that failed: an encrypted one is bound to its number.
        self._number += 1
        number = self._number
        target = self.folder / f"{number:06d}"
        with _buffer(source) as content:
            facts = read_facts(content, study_uid, series_uid, sop_instance_uid, ins)
            head = self.key.seal(facts.head) if facts is not None else b""
            row = Row(
                sop_instance_uid=sop_instance_uid,
                series_uid=facts.series_uid if facts else series_uid or "",
                number=number,
                size=len(content),
                tag="" if self.key.sealed else self.key.tag(number, content),
                transfer_syntax=facts.transfer_syntax if facts else "",
                head_at=self._heads_size,
                head_length=len(head),
                head_size=len(facts.head) if facts else 0,
                rest=facts.rest if facts else 0,
            )
            if self.key.sealed:
                row = replace(row, tag=self._encrypt(number, content, target))
        try:
            _write(self._heads, head)
            if self.key.sealed:
                source.unlink()
            else:
                _move(source, target)
        except OSError:
            os.ftruncate(self._heads, self._heads_size)
            raise
        self._heads_size += len(head)
        self.rows[sop_instance_uid] = row
        self.bytes += (sealed_size(row.size) if self.key.sealed else row.size) + len(head)
        return row

    def commit(self, card: Card) -> None:
        """From now on the volume exists. Raises ``OSError``: it then does not."""
        self._close()
        table = json.dumps([astuple(row) for row in self.rows.values()], separators=(",", ":"))
        self.write_record("table", table.encode())
        self.write_record("index", encode_card(card))

    def remove(self) -> None:
        self._close()
        super().remove()

    def _close(self) -> None:
        if self._heads >= 0:
            os.close(self._heads)
            self._heads = -1

    def _encrypt(self, number: int, content: memoryview, target: Path) -> str:
        part = target.with_name(target.name + ".part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            tag = self.key.encrypt(number, content, file)
        part.rename(target)
        return tag


class Volume(Shelf):
    """A finished volume. State is kept by the event loop; the methods that read or write files block.

    ``pins`` counts those who read from it: it is not evicted meanwhile. ``dead``: it is served to nobody any more.
    """

    def __init__(self, folder: Path, key: VolumeKey, card: Card, *, used: float, age: float) -> None:
        super().__init__(folder, key)
        self.card = card
        self.used = used
        self.born = used - age
        self.pins = 0
        self.dead = False
        self.rows: Mapping[str, Row] | None = None
        self.writing = asyncio.Lock()
        self._sound: dict[int, tuple[int, int]] = {}

    @property
    def is_described(self) -> bool:
        return (self.folder / "described").exists()

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def weight(self) -> int:
        """About how much memory its table takes."""
        return 600 * sum(self.card.series.values())

    def load(self) -> Mapping[str, Row]:
        """Its table, read when it is first needed. Raises ``OSError``, ``Damaged``."""
        if self.rows is None:
            self.rows = read_table(self.read_record("table"))
        return self.rows

    def unload(self) -> None:
        self.rows = None
        self._sound = {}

    def is_checked(self, row: Row) -> bool:
        """Was it looked at whole already?"""
        return row.number in self._sound

    def ready(self, rows: Sequence[Row]) -> list[bytes | None]:
        """The beginning of each image (empty where there is none), None for one that is not as it was written.

        One that was looked at whole is only looked at again once changed.
        """
        written = self._heads_of(rows)
        return [self._ready(row, head) for row, head in zip(rows, written, strict=True)]

    def trust(self, rows: Iterable[Row]) -> None:
        """These were just written by this very process."""
        for row in rows:
            with contextlib.suppress(OSError):
                stat = os.stat(self.path_of(row))
                self._sound[row.number] = stat.st_mtime_ns, stat.st_ctime_ns

    def _ready(self, row: Row, written: bytes | None) -> bytes | None:
        try:
            stat = os.stat(f"{self.folder}/{row.number:06d}")
            if self._sound.get(row.number) != (stat.st_mtime_ns, stat.st_ctime_ns):
                self._sound[row.number] = self.check(row)
            if not row.head_length:
                return b""
            return self.key.unseal(written) if written is not None else self.head(row, wait=True)
        except (OSError, Damaged):
            return None

    def _heads_of(self, rows: Sequence[Row]) -> Sequence[bytes | None]:
        """Their beginnings as they are written, read in one go where they lie together."""
        spans = [(row.head_at, row.head_at + row.head_length) for row in rows if row.head_length]
        if not spans:
            return [None] * len(rows)
        start, end = min(spans)[0], max(spans)[1]
        if end - start > 2 * sum(row.head_length for row in rows) + _COPY:
            return [None] * len(rows)
        try:
            written = self._heads_between(start, end, wait=True)
        except (OSError, Damaged):
            written = None
        if written is None:
            return [None] * len(rows)
        return [written[row.head_at - start : row.head_at - start + row.head_length] for row in rows]

    def sync(self) -> None:
        """Bring it to the disk for good, and say so. Raises ``OSError``."""
        _sync_all(self.folder)
        self.card = replace(self.card, synced=True)
        self.write_record("index", encode_card(self.card), sync=True)

    def describe(self, texts: Sequence[tuple[str, bytes]]) -> None:
        """Keep the descriptions of its images (SOP Instance UID, JSON). Raises ``OSError``."""
        at, places, blobs = 0, {}, []
        for uid, text in texts:
            places[uid] = (at, len(text))
            at += len(text) + 1
            blobs.append(text)
        table = json.dumps(places, separators=(",", ":")).encode()
        self.write_record("described", len(table).to_bytes(4, "big") + table + b",".join(blobs))

    def described(self, wanted: Sequence[str]) -> list[bytes] | None:
        """Their descriptions as pieces of a JSON array, without its brackets; None when one is not there."""
        try:
            record = self.read_record("described")
        except (OSError, Damaged):
            return None
        length = int.from_bytes(record[:4], "big")
        places = json.loads(record[4 : 4 + length])
        if not set(wanted) <= places.keys():
            return None
        start = 4 + length
        if len(places) == len(wanted):
            return [record[start:]]
        return [record[start + at : start + at + size] for at, size in (places[uid] for uid in wanted)]

    def strip(self) -> int:
        """Let the images go and keep their description; returns what is left, in bytes. Raises ``OSError``."""
        rows = self.load()
        self.card = replace(self.card, pixels=False)
        self.write_record("index", encode_card(self.card))
        for row in rows.values():
            self.path_of(row).unlink(missing_ok=True)
        (self.folder / "heads").write_bytes(b"")
        return self.measure()

    def measure(self) -> int:
        """What it takes on the disk, in bytes. Raises ``OSError``."""
        return sum(entry.stat().st_size for entry in os.scandir(self.folder))


def boot_id() -> str:
    """Changes at each start of the machine."""
    try:
        return _BOOT.read_text("ascii").strip()
    except OSError:
        return ""


def encode_card(card: Card) -> bytes:
    return json.dumps(asdict(card), separators=(",", ":")).encode()


def decode_card(record: bytes) -> Card:
    """Raises ``Damaged``."""
    try:
        values = json.loads(record)
        return Card(**{**values, "space": Space(**values["space"])})
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged from error


def read_table(record: bytes) -> dict[str, Row]:
    """Raises ``Damaged``."""
    try:
        return {values[0]: Row(*values) for values in json.loads(record)}
    except (ValueError, TypeError, IndexError) as error:
        raise Damaged from error


@contextmanager
def _buffer(path: Path) -> Iterator[memoryview]:
    """A file in memory: small ones read, large ones mapped."""
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= _IN_MEMORY:
            yield memoryview(file.read())
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
            yield view


def _move(source: Path, target: Path) -> None:
    source.chmod(0o600)
    try:
        source.rename(target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    part = target.with_name(target.name + ".part")
    with source.open("rb") as incoming:
        out = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            while data := incoming.read(_COPY):
                _write(out, data)
        finally:
            os.close(out)
    part.rename(target)
    source.unlink()


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _fill(file: int, offset: int, target: memoryview, *, wait: bool) -> bool:
    """Read all of ``target``; False where that cannot be had at once. Raises ``Damaged`` where the file ends before."""
    while target:
        try:
            count = os.preadv(file, (target,), offset, 0 if wait else _AT_ONCE)
        except OSError as error:
            if not wait and error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
                return False
            raise
        if not count:
            raise Damaged
        target, offset = target[count:], offset + count
    return True


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _sync_all(folder: Path) -> None:
    """All that was written to the file system of a folder: at once, where one ``fsync`` a file takes seconds."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(file) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(file)
