"""Zips: a member is changed and packed again, names lead elsewhere, the structures at the end lie."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random

from fuzz.grammars import dicom, xml
from fuzz.mutate import any_format, odd_number
from fuzz.target import Mutator

_MOST = 512 * 1024
_NAMES = (
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "KA202401/IHE_XDM/SS000001/",
    "KA202401/IHE_XDM/SS000002/METADATA.XML",
    "KA202401/IHE_XDM/SS000001/metadata.xml",
    "METADATA.XML",
    "IHE_XDM/METADATA.XML",
    "a\x00b",
    "é/METADATA.XML",
    "x" * 400,
    "/".join("abcdefghij"),
    "KA202401/README.TXT",
    "KA202401/IHE_XDM/SS000001/CR_2.TXT",
    "KA202401/IHE_XDM/SS000001/SIGN_2.XML",
    "KA202401/IHE_XDM/SS000001/KOS_1_9.DCM",
    ".hidden/METADATA.XML",
)


def members(data: bytes) -> dict[str, bytes]:
    """What a zip holds; nothing when it cannot be read."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        zlib.error,
        struct.error,
    ):
        return {}


def pack(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of these files."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2024, 1, 15, 9, 0, 0)), content)
    return target.getvalue()


def member(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """One file of the zip is changed as what it is."""
    files = members(data)
    if not files:
        return any_format(random, data, corpus)
    name = random.choice(list(files))
    if len(files[name]) > _MOST:
        return rename(random, data, corpus)
    changes: Sequence[Mutator] = (any_format,)
    if name.upper().endswith(".XML"):
        changes = (*xml.MUTATORS, any_format)
    elif name.upper().endswith(".DCM"):
        changes = (*dicom.FILE, any_format)
    files[name] = random.choice(changes)(random, files[name], (files[name],))
    return pack(files, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def rename(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """A file has another name, is missing, or is there once more."""
    files = members(data)
    if not files:
        return any_format(random, data, corpus)
    name = random.choice(list(files))
    content = files[name]
    if random.random() < 0.7:
        del files[name]
    if random.random() < 0.8:
        files[random.choice((*_NAMES, name.upper(), name.lower(), name + "2"))] = content
    return pack(files, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def structure(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """A number in a local header, in the directory or at its end says something else."""
    signature = random.choice((b"PK\x03\x04", b"PK\x01\x02", b"PK\x01\x02", b"PK\x05\x06", b"PK\x05\x06"))
    places = [found.start() for found in re.finditer(re.escape(signature), data)]
    if not places:
        return any_format(random, data, corpus)
    at = random.choice(places) + 4 + 2 * random.randrange(21)
    form = random.choice(("<H", "<I"))
    number = random.choice((odd_number(random), len(data), 0xFFFFFFFF)) & (0xFFFF if form == "<H" else 0xFFFFFFFF)
    return data[:at] + struct.pack(form, number) + data[at + struct.calcsize(form) :]


def bomb(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """A file that unpacks to very much."""
    files = members(data) or {"METADATA.XML": b""}
    files[random.choice(list(files))] = random.choice((b"\0", b" ", b"<a>")) * random.choice((2**16, 2**20, 2**22))
    return pack(files, zipfile.ZIP_DEFLATED)


MUTATORS: tuple[Callable[[Random, bytes, Sequence[bytes]], bytes], ...] = (
    member,
    member,
    member,
    rename,
    structure,
    structure,
    bomb,
)
