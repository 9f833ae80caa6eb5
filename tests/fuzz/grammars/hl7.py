"""HL7 v2: segments, fields, components, escapes, delimiters, character sets, the document in base64."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from random import Random

from fuzz.grammars import xml
from fuzz.mutate import any_format, odd_text

_NAMES = (b"MSH", b"PID", b"PV1", b"ORC", b"OBR", b"OBX", b"PRT", b"TXA", b"ZZZ", b"NTE", b"msh", b"OB", b"IPC", b"EVN")
_ESCAPES = (
    b"\\F\\",
    b"\\S\\",
    b"\\T\\",
    b"\\R\\",
    b"\\E\\",
    b"\\.br\\",
    b"\\X0D0A\\",
    b"\\X00\\",
    b"\\",
    b"\\\\",
    b"\\H\\",
)
_CHARSETS = (b"UNICODE UTF-8", b"8859/1", b"8859/15", b"ASCII", b"", b"UTF-16", b"8859/1~UNICODE UTF-8", b"utf_7", b"~")
_WORDS = (
    b"NW",
    b"RO",
    b"CA",
    b"XO",
    b"F",
    b"C",
    b"D",
    b"Y",
    b"N",
    b"T02",
    b"T04",
    b"T10",
    b"O23",
    b"2.5",
    b"2.6",
    b"ED",
    b"CE",
    b"VALI",
    b"INS",
    b"SB",
    b"BDL",
    b"18748-4",
    b"DESTDMP",
    b"MASQUE_PS",
    b"1.2.250.1.213.1.4.10",
    b"279035121518989",
    b'""',
)
_LINE_ENDS = (b"\r", b"\n", b"\r\n", b"\n\r", b"\r\r")


def _segments(data: bytes) -> list[bytes]:
    return re.split(rb"\r\n|\r|\n", data)


def segment(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """A segment is left out, doubled, moved, renamed, or comes from another message."""
    lines = _segments(data)
    at = random.randrange(len(lines))
    match random.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines[at:at] = [lines[at]] * random.choice((1, 2, 50))
        case 2:
            lines.insert(random.randrange(len(lines)), lines.pop(at))
        case 3:
            lines[at] = random.choice(_NAMES) + lines[at][3:]
        case 4:
            lines.insert(at, random.choice(_segments(random.choice(corpus))) if corpus else b"ZZZ|")
        case _:
            lines.insert(at, random.choice(_NAMES) + random.choice((b"", b"|", b"|" * 400, b"|\\|", b"^~&")))
    return random.choice(_LINE_ENDS if random.random() < 0.3 else (b"\r",)).join(lines)


def field(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """A field or a component gets another value."""
    lines = _segments(data)
    at = random.randrange(len(lines))
    separator = random.choice((b"|", b"|", b"^", b"~", b"&"))
    parts = lines[at].split(separator)
    place = random.randrange(len(parts))
    match random.randrange(5):
        case 0:
            parts[place] = random.choice(_WORDS)
        case 1:
            parts[place] = odd_text(random)
        case 2:
            parts[place] += random.choice(_ESCAPES) * random.choice((1, 1, 3, 200))
        case 3:
            parts[place:place] = [b""] * random.choice((1, 2, 30))
        case _:
            del parts[place]
    lines[at] = separator.join(parts)
    return b"\r".join(lines)


def delimiters(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """MSH-1 and MSH-2 say something else, with or without the rest following."""
    new = random.choice(
        (b"|^~\\&", b"|^~\\&#", b"|^~", b"||||", b"#@!$%", b"\r^~\\&", b"M^~\\&", b"|^~\\\\", b"^|~\\&", b"\xa7^~\\&")
    )
    if random.random() < 0.5 or len(new) < 5:
        return data[:3] + new + data[8:]
    table = bytes.maketrans(b"|^~\\&", new[:5])
    return data.translate(table)


def charset(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """MSH-18 announces another character set, and the text may or may not be in it."""
    lines = _segments(data)
    fields = lines[0].split(b"|")
    fields += [b""] * (18 - len(fields))
    fields[17] = random.choice(_CHARSETS)
    lines[0] = b"|".join(fields)
    changed = b"\r".join(lines)
    if random.random() < 0.5:
        return changed
    return changed.decode("utf-8", "replace").encode(random.choice(("iso8859-15", "utf-8", "utf-16")), "replace")


def document(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """The document inside OBX-5 is changed as XML, as bytes, or in its base64."""
    found = re.search(rb"\^Base64\^([A-Za-z0-9+/=\s]{40,})", data, re.IGNORECASE)
    if found is None:
        return field(random, data, corpus)
    text = found[1]
    if random.random() < 0.75:
        try:
            inner = base64.b64decode(text)
        except binascii.Error:
            inner = b""
        change = random.choice((xml.element, xml.attribute, xml.text, xml.nest, xml.dtd, xml.encoding, any_format))
        text = base64.b64encode(change(random, inner, (inner,)))
    match random.randrange(8):
        case 0:
            width = random.choice((1, 4, 64, 76, 77))
            end = random.choice(_LINE_ENDS)
            text = end.join(text[i : i + width] for i in range(0, len(text), width))
        case 1:
            text = text[: random.randrange(len(text) + 1)]
        case 2:
            text = text.replace(b"=", b"") + random.choice((b"", b"=", b"===", b"A"))
        case 3:
            text = b"\\.br\\".join((text[:50], text[50:]))
        case _:
            pass
    return data[: found.start(1)] + text + data[found.end(1) :]


MUTATORS = (segment, field, field, delimiters, charset, document, document)
