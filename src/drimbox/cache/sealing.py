"""The keys of the cache: what lies on the disk is recognised as ours and unaltered, and may be unreadable to others.

Each volume has a key of its own, made from the master key and the volume's name. AES-256-GCM either encrypts in chunks
(each bound to its file and its place), or only authenticates what stays in clear.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from drimbox.foundation.errors import Misconfigured

#: Bytes of an image in one encrypted chunk; each grows by ``TAG`` on the disk.
CHUNK = 2**18
TAG = 16
_CLEAR_CHUNK = 2**22
_NONCE = struct.Struct(">IQ")
_KEY_BYTES = 32


class Damaged(Exception):
    """What lies on the disk is not what was written there, or was written under another key."""


class VolumeKey:
    """The key of one volume. ``sealed``: what is written is encrypted. Usable from several threads."""

    def __init__(self, master: bytes, volume: str, *, sealed: bool) -> None:
        self.sealed = sealed
        self._key = hmac.digest(master, b"drimbox cache volume " + volume.encode("ascii"), "sha256")
        self._aead = AESGCM(self._key)

    def digest(self, *values: str) -> str:
        """Values made comparable, and unreadable."""
        return hmac.new(self._key, "\0".join(values).encode("utf-8"), "sha256").hexdigest()

    # --- small records ---

    def seal(self, record: bytes) -> bytes:
        """A record as it is written: encrypted, or in clear with its tag."""
        nonce = os.urandom(12)
        if self.sealed:
            return nonce + self._aead.encrypt(nonce, record, b"record")
        return nonce + self._aead.encrypt(nonce, b"", record) + record

    def unseal(self, written: bytes) -> bytes:
        """The record again. Raises ``Damaged``."""
        nonce, rest = written[:12], written[12:]
        try:
            if self.sealed:
                return self._aead.decrypt(nonce, rest, b"record")
            self._aead.decrypt(nonce, rest[:TAG], rest[TAG:])
            return rest[TAG:]
        except (InvalidTag, ValueError) as error:
            raise Damaged from error

    # --- images ---

    def tag(self, number: int, buffer: memoryview) -> str:
        """The seal of an image in clear: the file ``number`` of this volume."""
        return _joined(
            self._aead.encrypt(_NONCE.pack(number, index), b"", buffer[at : at + _CLEAR_CHUNK])
            for index, at in enumerate(range(0, max(len(buffer), 1), _CLEAR_CHUNK))
        )

    def encrypt(self, number: int, buffer: memoryview, target: BinaryIO) -> str:
        """Write an image encrypted; returns its seal."""
        tags: list[bytes] = []
        for index, at in enumerate(range(0, len(buffer), CHUNK)):
            chunk = self._aead.encrypt(_NONCE.pack(number, index), buffer[at : at + CHUNK], None)
            tags.append(chunk[-TAG:])
            target.write(chunk)
        return _joined(iter(tags))

    def decrypt(self, number: int, source: int, size: int, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` of an encrypted image of ``size`` bytes, open as ``source``. Raises ``Damaged``."""
        data = bytearray(max(min(length, size - offset), 0))
        self.decrypt_into(number, source, size, offset, memoryview(data))
        return bytes(data)

    def decrypt_into(self, number: int, source: int, size: int, offset: int, target: memoryview) -> None:
        """Fill ``target`` with bytes from ``offset`` of an encrypted image. Raises ``Damaged``."""
        end = offset + len(target)
        if not target:
            return
        if end > size:
            raise Damaged
        first, last = offset // CHUNK, (end - 1) // CHUNK
        written = memoryview(os.pread(source, (last - first + 1) * (CHUNK + TAG), first * (CHUNK + TAG)))
        for index in range(first, last + 1):
            at = (index - first) * (CHUNK + TAG)
            try:
                clear = self._aead.decrypt(_NONCE.pack(number, index), written[at : at + CHUNK + TAG], None)
            except (InvalidTag, ValueError) as error:
                raise Damaged from error
            start = index * CHUNK
            piece = clear[max(offset - start, 0) : end - start]
            to = max(start - offset, 0)
            if len(piece) != min(end, start + CHUNK) - max(offset, start):
                raise Damaged
            target[to : to + len(piece)] = piece


def sealed_size(size: int) -> int:
    """Bytes on the disk of an encrypted image of ``size`` bytes."""
    return size + TAG * -(-size // CHUNK)


def own_key(path: Path) -> bytes:
    """A master key of our own, made when it is not there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) != _KEY_BYTES:
        key = os.urandom(_KEY_BYTES)
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key)
        part.rename(path)
    return key


def secret_key(path: Path) -> bytes:
    """The master key that the site's secret file gives. Raises ``Misconfigured`` (``cache-key``)."""
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        reason = f"Le fichier de clé du cache {path} ne peut pas être lu ({error.strerror})"
        raise Misconfigured(reason, code="cache-key") from error
    if len(secret) < _KEY_BYTES:
        reason = f"Le fichier de clé du cache {path} est trop court : mettez-y au moins {_KEY_BYTES} octets aléatoires"
        raise Misconfigured(reason, code="cache-key")
    return hmac.digest(b"drimbox cache", secret, "sha256")


def _joined(tags: Iterator[bytes]) -> str:
    return hashlib.sha256(b"".join(tags)).hexdigest()[:32]
