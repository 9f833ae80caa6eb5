"""multipart/related, written and read as it flows (RFC 2046 5.1, RFC 2387, PS3.18 8.6; standards.md C.4).

No I/O here: the writer gives the bytes that stand around the parts. The reader is the foundation's.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence

from drimbox.foundation.multipart import (
    MAX_PART_HEADER_BYTES,
    MAX_PREAMBLE_BYTES,
    Event,
    PartData,
    PartEnd,
    PartStart,
    Reader,
)

__all__ = [
    "MAX_PART_HEADER_BYTES",
    "MAX_PREAMBLE_BYTES",
    "Event",
    "PartData",
    "PartEnd",
    "PartStart",
    "Reader",
    "Writer",
    "choose_boundary",
]

_LEGAL_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=?-]{6,70}")
_BARE_BOUNDARY = re.compile(r"[0-9A-Za-z'+_.-]+")


def choose_boundary(asked: Sequence[str] = ()) -> str:
    """The first legal boundary among those ``asked``, else a random one of 128 bits.

    ``**`` is not legal (RFC 2046 5.1.1); fewer than 6 characters are, but could occur in a payload.
    """
    return next((b for b in asked if _LEGAL_BOUNDARY.fullmatch(b)), secrets.token_hex(16))


class Writer:
    """The bytes around the parts of one multipart/related body."""

    def __init__(self, boundary: str) -> None:
        self.boundary = boundary

    def content_type(self, transfer_syntax: str = "", media: str = "application/dicom") -> str:
        """The Content-Type of the whole; ``transfer_syntax`` only when it is that of every part."""
        shown = self.boundary if _BARE_BOUNDARY.fullmatch(self.boundary) else f'"{self.boundary}"'
        common = f"; transfer-syntax={transfer_syntax}" if transfer_syntax else ""
        return f'multipart/related; type="{media}"{common}; boundary={shown}'

    def delimiter(self) -> bytes:
        """What stands before the first part, and after each part, at once: it tells a reader that the part is whole."""
        return f"\r\n--{self.boundary}".encode("ascii")

    def opening(self, headers: Mapping[str, str]) -> bytes:
        """What stands between a delimiter and a part: the part's header."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"\r\n{lines}\r\n".encode("ascii")

    def closing(self) -> bytes:
        """What stands after the last delimiter. Without it the body is truncated."""
        return b"--\r\n"
