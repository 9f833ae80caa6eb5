"""Specific Character Set (0008,0005): which codecs text is written in (PS3.3 C.12.1.1.2, PS3.5 6.1)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Sequence

from pydicom.charset import convert_encodings, decode_bytes

# A French set that came late to the standard, and that pydicom does not know.
_LATIN_9 = "ISO_IR 203"
# What a set can be called, the common misspellings too: pydicom would take any name of a Python codec.
_NAME = re.compile(r"ISO[ _-]?(?:2022[ _-])?(?:IR[ _-]?)?[0-9]{1,3}|(?:ISO 2022 )?GBK|GB18030")
_MAX_SETS = 16

#: Codecs where nothing is said: ASCII, read as Latin-1 where it is not.
DEFAULT = ("iso8859",)


def codecs_of(value: bytes) -> Sequence[str]:
    """The codecs that a value of Specific Character Set names; unknown ones count as the default."""
    names = [name.strip(" \0") for name in value.decode("latin-1").split("\\")[:_MAX_SETS]]
    if names == [_LATIN_9]:
        return ("iso8859_15",)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(convert_encodings([name if _NAME.fullmatch(name) else "" for name in names]))


def decoded(value: bytes, codecs: Sequence[str], delimiters: Collection[int] = ()) -> str:
    """Text; after each of ``delimiters`` the first of ``codecs`` holds again. What none can hold becomes U+FFFD."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(decode_bytes(value, list(codecs), set(delimiters)))
