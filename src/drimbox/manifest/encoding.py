"""Writes a data set in Explicit VR Little Endian (PS3.5 7, 7.5, A.2), the few value representations that a KOS needs.

Bytes are made directly: a manifest of 10,000 references has 100,000 elements.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Iterable

from drimbox.foundation.errors import Refused

PREAMBLE = b"\0" * 128 + b"DICM"
EXPLICIT_LE = "1.2.840.10008.1.2.1"

_SHORT = struct.Struct("<HH2sH")
_LONG = struct.Struct("<HH2sHI")
_ITEM = struct.Struct("<HHI")
_LIMITS = {"CS": 16, "SH": 16, "LO": 64, "LT": 10_240, "PN": 64}
_LONG_VRS = frozenset({"SQ", "UR", "UT", "OB"})


def encode_element(tag: int, vr: str, value: bytes) -> bytes:
    """One element; ``value`` is padded to an even length with what its VR wants."""
    if len(value) & 1:
        value += b"\0" if vr in ("UI", "OB") else b" "
    group, number = tag >> 16, tag & 0xFFFF
    if vr in _LONG_VRS:
        return _LONG.pack(group, number, vr.encode(), 0, len(value)) + value
    if len(value) > 0xFFFE:
        raise Refused("Valeur trop longue pour le KOS", code="manifest-value")
    return _SHORT.pack(group, number, vr.encode(), len(value)) + value


def sequence(tag: int, items: Iterable[bytes]) -> bytes:
    """A sequence; each item is the elements of its data set, joined."""
    return encode_element(tag, "SQ", b"".join(_ITEM.pack(0xFFFE, 0xE000, len(item)) + item for item in items))


def uid(tag: int, value: str) -> bytes:
    return encode_element(tag, "UI", value.encode("ascii"))


def integer(tag: int, value: int) -> bytes:
    """An IS."""
    return encode_element(tag, "IS", str(value).encode("ascii"))


class TextEncoder:
    """Text elements in one character set: Latin-1, or UTF-8 where Latin-1 does not do."""

    def __init__(self, codec: str) -> None:
        self._codec = codec

    @property
    def character_set(self) -> str:
        """Specific Character Set (0008,0005)."""
        return "ISO_IR 100" if self._codec == "latin-1" else "ISO_IR 192"

    def text(self, tag: int, vr: str, value: str) -> bytes:
        """A descriptive text: cut to what its VR holds. Raises ``UnicodeEncodeError`` outside of the character set."""
        return encode_element(tag, vr, one_line(value)[: _LIMITS.get(vr)].rstrip().encode(self._codec))

    def identifier(self, tag: int, vr: str, value: str) -> bytes:
        """An identifier: never cut, never changed. Raises ``Refused`` (``manifest-value``) when it does not fit."""
        if value != one_line(value) or len(value) > _LIMITS[vr]:
            raise Refused(
                f"Identifiant impossible à écrire dans un KOS ({_LIMITS[vr]} caractères au plus)", code="manifest-value"
            )
        return encode_element(tag, vr, value.encode(self._codec))

    def names(self, tag: int, *values: str) -> bytes:
        """A PN, made by ``person_name``; several values are separated."""
        return encode_element(tag, "PN", "\\".join(values).encode(self._codec))

    def lines(self, tag: int, value: str) -> bytes:
        """A UT of several lines."""
        return encode_element(tag, "UT", value.encode(self._codec))


def one_line(text: str) -> str:
    """Text without control characters, and without the backslash, which separates values."""
    return "".join(" " if c == "\\" or unicodedata.category(c) in ("Cc", "Cs") else c for c in text).strip()


def person_name(*components: str) -> str:
    """``family^given``, the delimiters inside replaced, empty components at the end left out, 64 characters at most.

    The family name keeps its place before the given name: when both do not fit, the given name is cut first.
    """
    cleaned = [" ".join(one_line(c).replace("^", " ").replace("=", " ").split()) for c in components]
    room = _LIMITS["PN"]
    kept = []
    for component in cleaned:
        kept.append(component[: max(room, 0)].strip())
        room -= len(kept[-1]) + 1
    return "^".join(kept).rstrip("^")
