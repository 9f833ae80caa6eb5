"""MLLP framing and the server around it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.reports.mllp import END, START, Frame, Framer, Limits, listening
from drimbox.sandbox.ris import wire

content = st.binary(max_size=60).filter(lambda b: b"\x1c" not in b and b"\x0b" not in b)


@given(st.lists(content, max_size=5), st.lists(st.integers(1, 20), max_size=40), content)
def test_frames_come_out_whole_however_the_stream_is_cut(frames: list[bytes], cuts: list[int], noise: bytes) -> None:
    stream = b"".join(noise + START + f + END for f in frames)
    framer, found, position = Framer(1000), [], 0
    for cut in [*cuts, len(stream)]:
        found += framer.feed(stream[position : position + cut])
        position += cut
    assert found == [Frame(f) for f in frames]


@given(st.integers(1, 50))
def test_an_overlong_frame_keeps_its_head_and_the_next_one_is_read(step: int) -> None:
    framer, found = Framer(100), []
    stream = START + b"MSH" + b"x" * 10_000 + END + START + b"next" + END
    for position in range(0, len(stream), step * 37):
        found += framer.feed(stream[position : position + step * 37])
    assert [f.whole for f in found] == [False, True]
    assert found[0].content.startswith(b"MSHxxx")
    assert found[1] == Frame(b"next")


def test_a_frame_of_exactly_the_limit_is_whole() -> None:
    assert Framer(4).feed(START + b"1234" + END) == [Frame(b"1234")]
    assert not Framer(3).feed(START + b"1234" + END)[0].whole


async def echo(frame: Frame, peer: str) -> bytes:
    await asyncio.sleep(0)
    return frame.content.upper() if frame.whole else b"TOO LONG"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    limits = Limits(max_bytes=1000, max_connections=3, message_timeout=0.5)
    async with listening(echo, host="127.0.0.1", port=0, limits=limits) as port:
        yield port


async def test_several_messages_on_one_connection_are_answered_in_order(port: int) -> None:
    messages = [b"one", b"two", b"three"]
    assert await wire.send("127.0.0.1", port, messages) == [b"ONE", b"TWO", b"THREE"]


async def test_an_overlong_message_is_answered_and_the_connection_goes_on(port: int) -> None:
    assert await wire.send("127.0.0.1", port, [b"x" * 200_000, b"next"]) == [b"TOO LONG", b"NEXT"]


async def test_a_message_that_never_ends_is_cut_off_and_others_go_on(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(START + b"never")
    await writer.drain()
    assert await wire.send("127.0.0.1", port, [b"other"]) == [b"OTHER"]
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_connections_over_the_limit_are_closed(port: int) -> None:
    open_ones = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    for reader, writer in open_ones:
        writer.write(START + b"a" + END)
        assert await reader.readuntil(END) == START + b"A" + END
    with pytest.raises(ConnectionError):
        await wire.send("127.0.0.1", port, [b"fourth"])
    for _, writer in open_ones:
        writer.close()
