"""The packaging of a message: media types with parameters, and multipart/related bodies (RFC 2045, 2046, 2387)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_PARTS = 64
MAX_PART_HEADERS = 8 * 1024

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA = re.compile(rf"\s*({_TOKEN}/{_TOKEN})\s*")
_PARAMETER = re.compile(rf";\s*({_TOKEN})\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|({_TOKEN}))\s*")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_HEADER = re.compile(rf"({_TOKEN}):[ \t]*(.*)")


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type in lower case with its parameters (names in lower case, values unquoted)."""

    name: str
    parameters: Mapping[str, str]

    def get(self, parameter: str) -> str:
        return self.parameters.get(parameter, "")


@dataclass(frozen=True, slots=True)
class Part:
    """One body part: its Content-ID without angle brackets, transfer encoding in lower case, media type, octets."""

    content_id: str
    encoding: str
    media: MediaType
    content: bytes


def parse_media_type(text: str) -> MediaType:
    """Read a Content-Type. Raises ``ValueError`` for bad grammar or a parameter given twice."""
    start = _MEDIA.match(text)
    if start is None:
        raise ValueError("Content-Type illisible")
    parameters: dict[str, str] = {}
    position = start.end()
    while position < len(text):
        found = _PARAMETER.match(text, position)
        if found is None:
            raise ValueError("paramètre de Content-Type illisible")
        name, quoted, token = found.group(1).lower(), found.group(2), found.group(3)
        if name in parameters:
            raise ValueError(f"paramètre {name} de Content-Type répété")
        parameters[name] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token
        position = found.end()
    return MediaType(start.group(1).lower(), parameters)


def split_parts(body: bytes, boundary: str) -> tuple[Part, ...]:
    """Cut a multipart body. Raises ``ValueError`` when it is not whole and well-formed (RFC 2046 5.1.1)."""
    if not _BOUNDARY.fullmatch(boundary):
        raise ValueError("délimiteur multipart absent ou invalide")
    delimiter = b"--" + boundary.encode("ascii")
    first = body.find(delimiter)
    # A preamble is legal; the delimiter must stand at the beginning of a line.
    if first < 0 or (first > 0 and body[first - 2 : first] != b"\r\n"):
        raise ValueError("délimiteur multipart introuvable")
    parts: list[Part] = []
    position = first + len(delimiter)
    while not body.startswith(b"--", position):
        if len(parts) == MAX_PARTS:
            raise ValueError("trop de parties")
        line_end = body.find(b"\r\n", position)
        if line_end < 0 or body[position:line_end].strip(b" \t"):
            raise ValueError("délimiteur multipart suivi d'autre chose")
        end = body.find(b"\r\n" + delimiter, line_end)
        if end < 0:
            raise ValueError("multipart tronqué : délimiteur final absent")
        parts.append(_part(body[line_end + 2 : end] if end > line_end else b""))
        position = end + 2 + len(delimiter)
    return tuple(parts)


def _part(raw: bytes) -> Part:
    if raw.startswith(b"\r\n"):
        head, content = b"", raw[2:]
    else:
        cut = raw.find(b"\r\n\r\n", 0, MAX_PART_HEADERS)
        if cut < 0:
            raise ValueError("en-têtes de partie absents, trop longs ou non séparés par CRLF")
        head, content = raw[:cut], raw[cut + 4 :]
    headers: dict[str, str] = {}
    for line in re.sub(rb"\r\n[ \t]+", b" ", head).split(b"\r\n") if head else ():
        found = _HEADER.fullmatch(line.decode("latin-1"))
        if found is None or found.group(1).lower() in headers:
            raise ValueError("en-tête de partie illisible ou répété")
        headers[found.group(1).lower()] = found.group(2).strip()
    content_id = headers.get("content-id", "")
    return Part(
        content_id=content_id[1:-1] if content_id.startswith("<") and content_id.endswith(">") else "",
        encoding=headers.get("content-transfer-encoding", "7bit").lower(),
        media=parse_media_type(headers.get("content-type", "text/plain")),
        content=content,
    )
