"""XML: elements, attributes, text, depth, encodings, entities, namespaces. Works on text that need not be valid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from random import Random

from fuzz.mutate import odd_text

_MOST = 20_000
_TAG = re.compile(rb"<(/?)([A-Za-z_][\w:.-]*)([^<>]*)>")
_ATTRIBUTE = re.compile(rb'([A-Za-z_][\w:.-]*)="([^"<>]*)"')
_DTDS = (
    b'<!DOCTYPE a [<!ENTITY b "c">]>',
    b'<!DOCTYPE a SYSTEM "file:///etc/passwd">',
    b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>',
    b'<!DOCTYPE a [<!ENTITY l "lol"><!ENTITY m "&l;&l;&l;&l;"><!ENTITY n "&m;&m;&m;&m;">]>',
    b'<!DOCTYPE a PUBLIC "-//X//Y" "http://127.0.0.1:9/x.dtd">',
    b"<!DOCTYPE a>",
    b'<!DOCTYPE a [<!ATTLIST a b CDATA "c">]>',
)
_TEXTS = (
    b"&amp;&lt;",
    b"&#0;",
    b"&#x1F9FF;",
    b"&#55296;",
    b"&inconnu;",
    b"<![CDATA[]]>",
    b"<![CDATA[ <a> ]]>",
    b"<!-- x -->",
    b"<?pi x?>",
    b"<x/>",
    b"\n\n",
    b"20240230",
    b"20240115101112.5+9999",
    b"00010101000000-2359",
    b"99991231235959+0000",
    b"99991231235959-1200",
    b"urn:oid:1.2.3",
)
_VALUES = (
    b"",
    b" ",
    b"1.2.3",
    b"1.2.250.1.213.1.4.10",
    b"1.2.250.1.213.1.4.8",
    b"F",
    b"urn:oasis:names:tc:ebxml-regrep:StatusType:Approved",
    b"urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Failure",
    b"urn:uuid:2e82c1f6-a085-4c72-9da3-8640a32e42ab",
    b"cid:",
    b"cid:%zz",
    b"http://x/",
    b"279035121518989^^^&amp;1.2.250.1.213.1.4.10&amp;ISO^NH",
    b"^^^^^^^^^&amp;&amp;&amp;",
)
_PREAMBLES = (
    b'<?xml version="1.0" encoding="UTF-8"?>',
    b'<?xml version="1.0" encoding="ISO-8859-1"?>',
    b'<?xml version="1.0" encoding="UTF-16"?>',
    b'<?xml version="1.0" encoding="windows-1252"?>',
    b'<?xml version="1.0" encoding="x-nothing"?>',
    b'<?xml version="1.1"?>',
    b'<?xml version="1.0" encoding="UTF-7"?>',
)


def _tags(data: bytes) -> list[re.Match[bytes]]:
    """The first tags: an input may be nothing but tags."""
    return list(islice(_TAG.finditer(data), _MOST))


def _replaced(data: bytes, span: tuple[int, int], new: bytes) -> bytes:
    return data[: span[0]] + new + data[span[1] :]


def element(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """A tag is left out, renamed, doubled, closed, or an element is moved or taken from another document."""
    tags = _tags(data)
    if not tags:
        return b"<a/>"
    tag = random.choice(tags)
    match random.randrange(7):
        case 0:
            return _replaced(data, tag.span(), b"")
        case 1:
            return _replaced(data, tag.span(2), random.choice(tags)[2])
        case 2:
            return _replaced(data, tag.span(), tag[0] * random.choice((2, 3, 300)))
        case 3:
            return _replaced(data, tag.span(), b"<" + tag[2] + tag[3].rstrip(b"/") + b"/>")
        case _:
            return _branch(random, data, tag, corpus)


def _branch(random: Random, data: bytes, tag: re.Match[bytes], corpus: Sequence[bytes]) -> bytes:
    """A whole element is left out, doubled, or put in another place."""
    start, end = _whole(data, tag)
    piece = data[start:end]
    rest = random.choice((data, _replaced(data, (start, end), b"")))
    if random.random() < 0.3 and corpus:
        other = random.choice(corpus)
        others = _tags(other)
        if others:
            span = _whole(other, random.choice(others))
            piece = other[span[0] : span[1]]
    if random.random() < 0.2:
        return rest
    places = [m.start() for m in _tags(rest)] or [0]
    at = random.choice(places)
    times = random.choice((1, 1, 1, 2, 40))
    return rest[:at] + piece * min(times, 1 + 100_000 // max(1, len(piece))) + rest[at:]


def _whole(data: bytes, tag: re.Match[bytes]) -> tuple[int, int]:
    if tag[1] or tag[3].endswith(b"/"):
        return tag.span()
    end = data.find(b"</" + tag[2] + b">", tag.end())
    return tag.start(), tag.end() if end < 0 else end + len(tag[2]) + 3


def attribute(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """An attribute gets another value or name, is left out, doubled, or grows very long."""
    found = list(islice(_ATTRIBUTE.finditer(data), _MOST))
    if not found:
        return data
    one = random.choice(found)
    match random.randrange(7):
        case 0:
            return _replaced(data, one.span(2), random.choice(_VALUES))
        case 1:
            return _replaced(
                data, one.span(2), odd_text(random).replace(b'"', b"").replace(b"<", b"").replace(b"&", b"")
            )
        case 2:
            return _replaced(data, one.span(), b"")
        case 3:
            return _replaced(data, one.span(), one[0] + b" " + one[0])
        case 4:
            return _replaced(data, one.span(2), one[2] * random.choice((2, 1000)))
        case 5:
            return _replaced(data, one.span(2), random.choice(found)[2])
        case _:
            return _replaced(
                data,
                one.span(1),
                random.choice((b"xmlns", b"xmlns:h", b"xml:lang", b"xml:base", random.choice(found)[1])),
            )


def text(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """Text between two tags becomes something else."""
    found = list(islice(re.finditer(rb">([^<>]*)<", data), _MOST))
    if not found:
        return data
    return _replaced(data, random.choice(found).span(1), random.choice((random.choice(_TEXTS), odd_text(random))))


def nest(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """An element is wrapped in many more."""
    tags = _tags(data)
    if not tags:
        return data
    start, end = _whole(data, random.choice(tags))
    depth = random.choice((1, 5, 60, 255, 256, 300, 5000))
    name = random.choice(tags)[2]
    return data[:start] + (b"<" + name + b">") * depth + data[start:end] + (b"</" + name + b">") * depth + data[end:]


def dtd(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """A document type, with entities or without."""
    head = re.match(rb"\s*<\?xml[^>]*\?>", data)
    at = head.end() if head else 0
    return data[:at] + random.choice(_DTDS) + data[at:].replace(b">x<", b">&b;<", 1)


def encoding(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """Another encoding: announced, real, or both."""
    body = re.sub(rb"^\s*<\?xml[^>]*\?>", b"", data)
    preamble = random.choice(_PREAMBLES)
    if random.random() < 0.4:
        return preamble + body
    real = random.choice(("utf-16", "utf-16-le", "latin-1", "cp1252", "utf-8-sig", "utf-32", "utf-7"))
    return (preamble + body).decode("utf-8", "replace").encode(real, "replace")


def namespace(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """Namespaces are declared again, undeclared, or prefixes changed."""
    tags = [m for m in _tags(data) if not m[1]]
    if not tags:
        return data
    tag = random.choice(tags)
    more = random.choice(
        (b' xmlns=""', b' xmlns:rim=""', b' xmlns:x="urn:x"', b' xmlns="urn:hl7-org:v3"', b' x:y="z"', b' xml:id="a"')
    )
    if random.random() < 0.3:
        return _replaced(data, tag.span(2), random.choice((b"x:", b"xml:", b"rim:", b":")) + tag[2].split(b":")[-1])
    return _replaced(data, (tag.end(2), tag.end(2)), more)


MUTATORS = (element, element, attribute, attribute, text, nest, dtd, encoding, namespace)
