"""HL7 v2 messages (2.3 to 2.6) as segments, fields, repetitions and components. Pure text, no meaning.

Tolerant where real senders differ (CR, LF or CRLF; base64 broken over several lines), strict where a guess could
change the meaning (delimiters, declared character set).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from drimbox.foundation.errors import Refused

_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}")
_CHARSETS = {
    "": None,
    "UNICODE UTF-8": "utf-8",
    "UNICODE": "utf-8",
    "UTF-8": "utf-8",
    "8859/15": "iso8859-15",
    "8859/1": "iso8859-1",
    "ASCII": "ascii",
}
MAX_SEGMENTS = 10_000


class MessageError(Refused):
    """A message that cannot be accepted: what ERR must say.

    ``location`` is ERR-2 (``PID^1^3``), ``condition`` a code of HL7 table 0357.
    """

    def __init__(self, reason: str, *, code: str, condition: str, location: str = "") -> None:
        super().__init__(reason, code=code)
        self.condition = condition
        self.location = location


@dataclass(frozen=True, slots=True)
class Delimiters:
    """MSH-1 and MSH-2."""

    field: str
    component: str
    repetition: str
    escape: str
    subcomponent: str


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment. Numbers are HL7's own: field 3 of PID is ``PID-3``; components and subcomponents count from 1."""

    name: str
    fields: tuple[str, ...]
    delimiters: Delimiters

    def field(self, number: int) -> str:
        """The raw field, empty when absent."""
        return self.fields[number] if number < len(self.fields) else ""

    def repetitions(self, number: int) -> tuple[Field, ...]:
        """The repetitions of a field; none when it is empty."""
        raw = self.field(number)
        if not raw:
            return ()
        return tuple(Field(part, self.delimiters) for part in _parts(raw, self.delimiters.repetition))

    def value(self, number: int, component: int = 1, subcomponent: int = 1) -> str:
        """One component of the first repetition, unescaped; empty when absent."""
        raw = self.field(number)
        return _value(_part(raw, self.delimiters.repetition, 1), self.delimiters, component, subcomponent)


@dataclass(frozen=True, slots=True)
class Field:
    """One repetition of a field."""

    raw: str
    delimiters: Delimiters

    def value(self, component: int = 1, subcomponent: int = 1) -> str:
        """One subcomponent, unescaped; empty when absent."""
        return _value(self.raw, self.delimiters, component, subcomponent)


@dataclass(frozen=True, slots=True)
class Message:
    """A parsed message; the first segment is MSH."""

    segments: tuple[Segment, ...]

    def first(self, name: str) -> Segment | None:
        """The first segment of that name."""
        return next((s for s in self.segments if s.name == name), None)

    def all(self, name: str) -> Iterator[Segment]:
        """Every segment of that name, in order."""
        return (s for s in self.segments if s.name == name)

    @property
    def header(self) -> Segment:
        return self.segments[0]

    @property
    def control_id(self) -> str:
        """MSH-10."""
        return self.header.value(10)

    @property
    def sender(self) -> str:
        """MSH-3 and MSH-4: together with MSH-10 they name the message."""
        return f"{self.header.value(3)}|{self.header.value(4)}"

    @property
    def type(self) -> tuple[str, str]:
        """MSH-9.1 and MSH-9.2: ``("ORU", "R01")``."""
        return self.header.value(9), self.header.value(9, 2)


def parse(data: bytes) -> Message:
    """Read one message (without MLLP framing).

    Raises ``MessageError``: not HL7 (no MSH), impossible delimiters, undecodable in its own character set, too many
    segments.
    """
    header = data.lstrip(b"\r\n\t \xef\xbb\xbf")
    if header[:3] != b"MSH" or len(header) < 8 or header[3:4] in (b"\r", b"\n"):
        raise MessageError("Ce n'est pas un message HL7 : segment MSH absent", code="hl7-msh", condition="100")
    if b"\x00" in header:
        raise MessageError("Caractère nul dans le message", code="hl7-charset", condition="102")
    text = _decode(header)
    delimiters = _delimiters(text)
    segments = tuple(_segment(line, delimiters) for line in _lines(text, delimiters.field))
    if len(segments) > MAX_SEGMENTS:
        raise MessageError("Message HL7 de trop de segments", code="hl7-size", condition="100")
    return Message(segments)


def _decode(data: bytes) -> str:
    # The header itself is ASCII in every character set that HL7 allows here.
    first_line = re.split(rb"[\r\n]", data, maxsplit=1)[0].decode("latin-1")
    declared = first_line.split(first_line[3])[17:18]
    name = declared[0].split("~")[0].strip().upper() if declared else ""
    if name not in _CHARSETS:
        raise MessageError(
            "Jeu de caractères inconnu en MSH-18", code="hl7-charset", condition="103", location="MSH^1^18"
        )
    charset = _CHARSETS[name]
    if charset is None:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode("iso8859-15")
    try:
        return data.decode(charset)
    except UnicodeDecodeError as error:
        raise MessageError(
            "Message illisible dans le jeu de caractères annoncé en MSH-18",
            code="hl7-charset",
            condition="102",
            location="MSH^1^18",
        ) from error


def _delimiters(text: str) -> Delimiters:
    field = text[3]
    others = text[4:].split(field, 1)[0]
    all_ = field + others
    # A letter, a digit or a line end would stand for itself as well: what belongs to which field would be a guess.
    plain = all(c.isascii() and c.isprintable() and not c.isalnum() and c != " " for c in all_)
    if not 3 <= len(others) <= 5 or len(set(all_)) != len(all_) or not plain:
        raise MessageError(
            "Délimiteurs MSH-1 et MSH-2 impossibles", code="hl7-msh", condition="102", location="MSH^1^2"
        )
    escape = others[2]
    subcomponent = others[3] if len(others) > 3 else "&"
    return Delimiters(field, others[0], others[1], escape, subcomponent)


def _value(repetition: str, delimiters: Delimiters, component: int, subcomponent: int) -> str:
    if not repetition:
        return ""
    part = _part(_part(repetition, delimiters.component, component), delimiters.subcomponent, subcomponent)
    return _unescape(part, delimiters)


def _parts(text: str, separator: str) -> list[str]:
    """The parts of a text. A whole document may be one: it is not copied for nothing."""
    return text.split(separator) if separator in text else [text]


def _part(text: str, separator: str, number: int) -> str:
    """One part, counted from 1, without cutting out the others; empty when absent."""
    start = 0
    for _ in range(number - 1):
        start = text.find(separator, start) + 1
        if not start:
            return ""
    end = text.find(separator, start)
    return text[start:] if end < 0 else text[start:end]


def _split(text: str) -> list[str]:
    """At every CR, LF or CRLF."""
    *lines, last = text.split("\n")
    return [part for line in lines for part in line.removesuffix("\r").split("\r")] + last.split("\r")


def _lines(text: str, separator: str) -> Iterator[str]:
    """Lines that begin a segment, each with the lines that follow it and begin none (base64 broken by the sender)."""
    pending: list[str] = []
    for line in _split(text):
        if _SEGMENT.match(line) and line[3:4] in ("", separator):
            if pending:
                yield "\n".join(pending)
            pending = [line]
        elif line and pending:
            pending.append(line)
    if pending:
        yield "\n".join(pending)


def _segment(line: str, delimiters: Delimiters) -> Segment:
    parts = line.split(delimiters.field)
    if parts[0] == "MSH":
        # MSH-1 is the separator itself.
        parts.insert(1, delimiters.field)
    return Segment(parts[0], tuple(parts), delimiters)


def _unescape(text: str, delimiters: Delimiters) -> str:
    escape = delimiters.escape
    if escape not in text:
        return text
    known = {
        "F": delimiters.field,
        "S": delimiters.component,
        "T": delimiters.subcomponent,
        "R": delimiters.repetition,
        "E": escape,
        ".br": "\n",
    }
    pieces = text.split(escape)
    out = [pieces[0]]
    index = 1
    while index < len(pieces):
        # Escapes come in pairs; a lone escape character stands for itself.
        if index + 1 >= len(pieces):
            out.append(escape + pieces[index])
            break
        out.append(known.get(pieces[index], escape + pieces[index] + escape))
        out.append(pieces[index + 1])
        index += 2
    return "".join(out)


def escape(text: str, delimiters: Delimiters) -> str:
    """Text made safe for a field; line ends become ``.br``."""
    table = {
        delimiters.escape: "E",
        delimiters.field: "F",
        delimiters.component: "S",
        delimiters.subcomponent: "T",
        delimiters.repetition: "R",
    }
    mark = delimiters.escape
    escaped = "".join(f"{mark}{table[c]}{mark}" if c in table else c for c in text)
    return f"{mark}.br{mark}".join(_split(escaped))
