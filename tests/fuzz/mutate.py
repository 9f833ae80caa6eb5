"""Changes that suit any format: bits, numbers, pieces taken out, doubled, or put in from other inputs."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from fuzz.target import Mutator

_NUMBERS = (0, 1, 2, 7, 8, 15, 16, 63, 64, 127, 128, 255, 256, 4095, 4096, 32767, 32768, 65535, 65536, 2**31 - 1)
_LARGE = (2**31, 2**32 - 1, 2**32 - 2, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_TEXTS = (
    b"",
    b"\x00",
    b"\xff",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xc3\x83\xc2\xa9",
    "²".encode(),
    "٣".encode(),
    "İ".encode(),
    "\u2028".encode(),
    "\U0001f9ff".encode(),
    b"\x85",
    b"\r",
    b"\n",
    b"\r\n",
    b"-1",
    b"0",
    b"1e999",
    b"NaN",
    b"0x10",
    b"9" * 20,
    b"9" * 5000,
    b"%s%n",
    b"../../../../etc/passwd",
    b"A" * 300,
    b" " * 2000,
    b"'\"<>&;",
    b"1.2.840.10008." + b"1" * 60,
)


def any_format(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """One change that knows no format."""
    return random.choice(_CHANGES)(random, data, corpus)


def _flip_bit(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    if not data:
        return b"\x00"
    changed = bytearray(data)
    changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _set_bytes(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    if not data:
        return random.randbytes(random.randrange(1, 9))
    changed = bytearray(data)
    for _n in range(random.randrange(1, 5)):
        changed[random.randrange(len(data))] = random.randrange(256)
    return bytes(changed)


def _set_number(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    width = random.choice((1, 2, 4, 8))
    order = random.choice(("little", "big"))
    value = random.choice((*_NUMBERS, *_LARGE, len(data), max(0, len(data) - 4))) % 256**width
    at = random.randrange(max(1, len(data) - width + 1))
    return data[:at] + value.to_bytes(width, order) + data[at + width :]  # type: ignore[arg-type]


def _step_number(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    at = random.randrange(len(data))
    changed[at] = (changed[at] + random.choice((-2, -1, 1, 2))) % 256
    return bytes(changed)


def _slice(random: Random, data: bytes) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    length = random.choice((1, 2, 4, 16, 64, 512, 4096, len(data)))
    return start, min(len(data), start + random.randrange(length + 1))


def _take_out(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _slice(random, data)
    return data[:start] + data[end:]


def _cut(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _double(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _slice(random, data)
    times = random.choice((1, 1, 2, 3, 20, 300))
    piece = data[start:end]
    return data[:end] + piece * min(times, 1 + 65536 // max(1, len(piece))) + data[end:]


def _move(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _slice(random, data)
    rest = data[:start] + data[end:]
    at = random.randrange(len(rest) + 1)
    return rest[:at] + data[start:end] + rest[at:]


def _splice(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    other = random.choice(corpus) if corpus else b""
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


def _graft(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    other = random.choice(corpus) if corpus else b""
    start, end = _slice(random, other)
    at = random.randrange(len(data) + 1)
    over = random.choice((0, end - start))
    return data[:at] + other[start:end] + data[at + over :]


def _put_text(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    text = random.choice(_TEXTS)
    return data[:at] + text + data[at + random.choice((0, 1, len(text))) :]


_CHANGES: tuple[Mutator, ...] = (
    _flip_bit,
    _set_bytes,
    _set_number,
    _step_number,
    _take_out,
    _cut,
    _double,
    _move,
    _splice,
    _graft,
    _put_text,
)


def odd_text(random: Random) -> bytes:
    """A text that parsers tend to trip over."""
    return random.choice(_TEXTS)


def odd_number(random: Random) -> int:
    """A number at the edge of something."""
    return random.choice((*_NUMBERS, *_LARGE))
