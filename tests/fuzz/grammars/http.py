"""What HTTP carries: header values, multipart bodies, forms, JSON, tokens; pieces are told apart by separators."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from random import Random

from fuzz.mutate import odd_text

_WORDS = (
    b"*/*",
    b"application/dicom",
    b"multipart/related",
    b'type="application/dicom"',
    b"transfer-syntax=*",
    b"transfer-syntax=1.2.840.10008.1.2.4.50",
    b"q=0",
    b"q=0.5",
    b"q=1.0000000000001",
    b"q=-1",
    b"q=.5e-3",
    b"boundary=**",
    b'boundary="a b"',
    b'"',
    b"\\",
    b"=",
    b";",
    b",",
    b"charset=utf-8",
    b"--",
    b"\r\n",
    b"\n",
    b"Content-Length: 5",
    b"Content-Length: 99999999999999999999",
    b"Content-Transfer-Encoding: base64",
    b"Content-ID: <0.1>",
    b"\xc2\xb2",
    b"%00",
    b"%E9",
    b"&",
    b"+",
)


def tokens(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Words between separators are swapped, doubled, left out, or replaced."""
    parts = re.split(rb"([;,=&\r\n :\"])", data)
    at = random.randrange(len(parts))
    match random.randrange(6):
        case 0:
            parts[at] = random.choice(_WORDS)
        case 1:
            del parts[at]
        case 2:
            parts.insert(at, random.choice(_WORDS))
        case 3:
            parts[at] *= random.choice((2, 3, 500))
        case 4:
            other = random.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        case _:
            parts[at] = odd_text(random)
    return b"".join(parts)


def lines(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Lines are left out, doubled, moved; their ends change."""
    found = data.splitlines(keepends=True) or [b""]
    at = random.randrange(len(found))
    match random.randrange(5):
        case 0:
            del found[at]
        case 1:
            found[at:at] = [found[at]] * random.choice((1, 2, 300))
        case 2:
            found.insert(random.randrange(len(found)), found.pop(at))
        case 3:
            found[at] = found[at].rstrip(b"\r\n") + random.choice((b"", b"\n", b"\r", b"\r\n", b"\n\r\n", b"\r\n "))
        case _:
            return data.replace(b"\r\n", b"\n") if b"\r\n" in data else data.replace(b"\n", b"\r\n")
    return b"".join(found)


def json_value(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """A value of a JSON document becomes one of another kind."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return data
    for _ in range(random.choice((1, 1, 2))):
        content = _changed(random, content)
    try:
        return json.dumps(content, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return data


_ODD = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    1e300,
    10**30,
    "",
    "²",
    "٣",
    "x" * 3000,
    [],
    {},
    [[]],
    [None],
    {"": None},
    "\ud800",
    "\x00",
    "10/SM44",
)


def _changed(random: Random, content: object) -> object:
    if isinstance(content, dict) and content and random.random() < 0.85:
        key = random.choice(list(content))
        match random.randrange(5):
            case 0:
                return {k: v for k, v in content.items() if k != key}
            case 1:
                return content | {key: random.choice(_ODD)}
            case 2:
                return content | {random.choice(list(content)): content[key]}
            case _:
                return content | {key: _changed(random, content[key])}
    if isinstance(content, list) and content and random.random() < 0.85:
        at = random.randrange(len(content))
        return [*content[:at], _changed(random, content[at]), *content[at + random.choice((0, 1)) :]]
    return random.choice(_ODD)


def token_part(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """One of the three parts of a signed token changes inside."""
    parts = data.split(b".")
    at = random.randrange(len(parts))
    try:
        inner = base64.urlsafe_b64decode(parts[at] + b"==")
    except ValueError:
        return tokens(random, data, corpus)
    changed = json_value(random, inner, ())
    parts[at] = base64.urlsafe_b64encode(changed if changed != inner else odd_text(random)).rstrip(b"=")
    return b".".join(parts)


HEADER = (tokens, tokens, tokens)
MULTIPART = (tokens, lines, lines)
JSON = (json_value, json_value, json_value)
