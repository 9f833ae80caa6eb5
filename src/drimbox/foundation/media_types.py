"""Media types as they come over the wire (RFC 9110 5.6, 8.3, 12.5), read with more patience than the RFC asks.

Both the Accept header of a request and the Content-Type of an answer or of a part are read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class MediaType:
    """``type/subtype`` in lower case (empty when only parameters were given) and its parameters by lower-case name."""

    name: str
    parameters: Mapping[str, str]

    def get(self, parameter: str) -> str:
        """The value of a parameter, empty when it is absent."""
        return self.parameters.get(parameter, "")


def parse_media_type(text: str) -> MediaType | None:
    """One media type; None when ``text`` is nothing of the kind.

    Quoted and bare values, any blanks and any order are taken; of a repeated parameter the first counts.
    """
    pieces = [piece.strip() for piece in split_outside_quotes(text, ";")]
    name = pieces[0].lower() if _MEDIA_TYPE.fullmatch(pieces[0]) else ""
    if pieces[0] and not name and "=" not in pieces[0]:
        return None
    parameters: dict[str, str] = {}
    for piece in pieces[1:] if name else pieces:
        key, equals, value = piece.partition("=")
        if equals:
            parameters.setdefault(key.strip().lower(), _unquoted(value.strip()))
    if not name and not parameters:
        return None
    return MediaType(name, parameters)


def split_outside_quotes(text: str, separator: str) -> Iterator[str]:
    """Cut at each ``separator`` that does not stand in a quoted string; an open quote runs to the end."""
    start, quoted, index = 0, False, 0
    while index < len(text):
        char = text[index]
        if quoted and char == "\\":
            index += 1
        elif char == '"':
            quoted = not quoted
        elif char == separator and not quoted:
            yield text[start:index]
            start = index + 1
        index += 1
    yield text[start:]


def _unquoted(value: str) -> str:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value.strip('"')
    return re.sub(r"\\(.)", r"\1", value[1:-1])
