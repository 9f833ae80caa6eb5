"""multipart/related: what we write, what we read, what we refuse."""

from __future__ import annotations

import contextlib
import email.parser
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.foundation.errors import Refused, Unavailable
from drimbox.images.media import parse_media_type
from drimbox.images.multipart import (
    MAX_PART_HEADER_BYTES,
    PartData,
    PartEnd,
    PartStart,
    Reader,
    Writer,
    choose_boundary,
)

BOUNDARY = "7544a517-4f5a-4007-9762-690998213829"

# Payloads full of what delimiters are made of.
tricky = st.lists(
    st.one_of(
        st.binary(max_size=20), st.sampled_from([b"\r\n", b"\n", b"--", b"\r\n--", BOUNDARY.encode()[:20], b"\r"])
    ),
    max_size=8,
).map(b"".join)
payloads = st.lists(tricky.filter(lambda p: BOUNDARY.encode() not in p), max_size=4)


def body_of(parts: list[bytes], boundary: str = BOUNDARY) -> bytes:
    return written(parts, Writer(boundary), {"Content-Type": "application/dicom"})


def written(parts: list[bytes], writer: Writer, headers: dict[str, str]) -> bytes:
    sent = [writer.opening(headers) + p + writer.delimiter() for p in parts]
    return writer.delimiter() + b"".join(sent) + writer.closing()


def read(body: bytes, cuts: list[int] | None = None, boundary: str = BOUNDARY) -> list[tuple[dict[str, str], bytes]]:
    reader, parts, position = Reader(boundary), [], 0
    whole = True
    for cut in [*(cuts or []), len(body)]:
        for event in reader.feed(body[position : position + cut]):
            match event:
                case PartStart(headers):
                    assert whole
                    parts.append((dict(headers), b""))
                    whole = False
                case PartData(data):
                    assert data
                    parts[-1] = (parts[-1][0], parts[-1][1] + data)
                case PartEnd():
                    whole = True
        position += cut
    reader.close()
    assert whole
    return parts


@given(payloads, st.lists(st.integers(1, 30), max_size=60))
def test_what_is_written_is_read_however_the_stream_is_cut(parts: list[bytes], cuts: list[int]) -> None:
    assert read(body_of(parts), cuts) == [({"content-type": "application/dicom"}, p) for p in parts]


@given(payloads, st.lists(st.integers(1, 30), max_size=60))
def test_parts_that_tell_their_length_are_read_as_well(parts: list[bytes], cuts: list[int]) -> None:
    writer = Writer("x")
    sent = [writer.opening({"Content-Length": str(len(p))}) + p + writer.delimiter() for p in parts]
    body = writer.delimiter() + b"".join(sent) + writer.closing()
    assert [p for _, p in read(body, cuts, boundary="x")] == parts


@given(tricky, st.integers(-20, 20).filter(bool), st.lists(st.integers(1, 30), max_size=60))
def test_a_false_length_is_refused_however_the_stream_is_cut(part: bytes, error: int, cuts: list[int]) -> None:
    if len(part) + error < 0:
        return
    body = written([part, b"z" * 40], Writer(BOUNDARY), {"Content-Length": str(len(part) + error)})
    with pytest.raises((Refused, Unavailable)):
        read(body, cuts)


def test_a_part_of_known_length_ends_before_what_follows_it() -> None:
    reader = Reader("x")
    events = list(reader.feed(b"--x\r\nContent-Length: 3\r\n\r\nabc"))
    assert events[1:] == [PartData(b"abc"), PartEnd()]
    assert list(reader.feed(b"\r\n--x--")) == []
    reader.close()


@given(payloads.filter(bool), st.integers(0, 3000))
def test_a_truncated_body_is_never_whole(parts: list[bytes], missing: int) -> None:
    body = body_of(parts)[: -len(b"-\r\n")]
    with pytest.raises(Unavailable):
        read(body[: max(0, len(body) - missing)])


def test_the_standard_library_reads_what_we_write() -> None:
    writer = Writer(choose_boundary())
    head = f"Content-Type: {writer.content_type()}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
        head + body_of([b"one", b"two"], writer.boundary)
    )
    assert [p.get_payload() for p in message.iter_parts()] == ["one", "two"]


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
@pytest.mark.parametrize("before", ["", "{}", "a preamble{}", "line --{}"])
@pytest.mark.parametrize("after", ["", "{}", "{}an epilogue --x--"])
def test_careless_peers_are_understood(line_end: str, before: str, after: str) -> None:
    text = (
        before.format(line_end)
        + f"--x  {line_end}content-TYPE:application/dicom;{line_end} transfer-syntax=1.2{line_end}{line_end}AB\r\0CD"
        + f"{line_end}--x\t{line_end}{line_end}second{line_end}--x--"
        + after.format(line_end)
    )
    for step in (1, 3, 1000):
        parts = read(text.encode(), [step] * len(text), boundary="x")
        assert [p for _, p in parts] == [b"AB\r\0CD", b"second"]
        media = parse_media_type(parts[0][0]["content-type"])
        assert media is not None
        assert (media.name, media.get("transfer-syntax")) == ("application/dicom", "1.2")


def test_a_longer_word_is_no_delimiter() -> None:
    assert read(b"--x\r\n\r\nA\r\n--xy\r\nB\r\n--x--", boundary="x") == [({}, b"A\r\n--xy\r\nB")]


def test_headers_and_preambles_are_bounded() -> None:
    with pytest.raises(Refused, match="trop long"):
        read(b"--x\r\n" + b"a: b\r\n" * MAX_PART_HEADER_BYTES, boundary="x")
    with pytest.raises(Refused, match="trop long"):
        read(b"--x\r\n" + b"a" * (MAX_PART_HEADER_BYTES + 1) + b"\r\n\r\n--x--", boundary="x")
    with pytest.raises(Refused, match="sans délimiteur"):
        read(b"<html>" * 20_000, boundary="x")
    with pytest.raises(Refused, match="mal formé"):
        read(b"--x\r\nno colon here\r\n\r\n--x--", boundary="x")


@given(st.binary(max_size=400), st.integers(1, 50))
def test_no_bytes_do_more_than_be_refused(body: bytes, step: int) -> None:
    with contextlib.suppress(Refused, Unavailable):
        read(b"--x\r\n" + body, [step] * 500, boundary="x")


@pytest.mark.parametrize("boundary", ["", "é", "x" * 300])
def test_an_unreadable_boundary_is_refused(boundary: str) -> None:
    with pytest.raises(Refused):
        Reader(boundary)


def test_a_long_part_is_handed_on_as_it_comes() -> None:
    reader = Reader("x")
    list(reader.feed(b"--x\r\n\r\n"))
    for _ in range(100):
        released = sum(len(e.data) for e in reader.feed(b"z" * 10_000) if isinstance(e, PartData))
        assert released > 9_900


@pytest.mark.parametrize(
    ("asked", "kept"), [("**", False), ("myboundary", True), ("a b", False), ("x" * 71, False), ("ab", False)]
)
def test_only_a_legal_boundary_of_the_caller_is_kept(asked: str, kept: bool) -> None:
    assert (choose_boundary([asked]) == asked) is kept


def test_random_boundaries_differ_and_are_long() -> None:
    assert len({choose_boundary() for _ in range(100)}) == 100
    assert len(choose_boundary()) == 32


@given(st.from_regex(r"[0-9A-Za-z'()+_,./:=?-]{6,70}", fullmatch=True))
def test_any_legal_boundary_survives_the_content_type(boundary: str) -> None:
    media = parse_media_type(Writer(boundary).content_type("1.2.3"))
    assert media is not None
    assert media.get("boundary") == boundary
    assert (media.name, media.get("type"), media.get("transfer-syntax")) == (
        "multipart/related",
        "application/dicom",
        "1.2.3",
    )
