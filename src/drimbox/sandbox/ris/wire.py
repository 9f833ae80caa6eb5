"""The RIS's side of MLLP: send messages one after the other, read each answer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence


async def send(
    host: str, port: int, messages: Sequence[bytes], *, tls: ssl.SSLContext | None = None, timeout: float = 60.0
) -> list[bytes]:
    """Send on one connection, each message after the answer to the one before; returns the answers.

    Raises ``ConnectionError`` when the connection ends before an answer, ``TimeoutError`` after ``timeout`` seconds.
    """
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    answers: list[bytes] = []
    try:
        for message in messages:
            writer.write(b"\x0b" + message + b"\x1c\r")
            await writer.drain()
            try:
                async with asyncio.timeout(timeout):
                    raw = await reader.readuntil(b"\x1c\r")
            except asyncio.IncompleteReadError as error:
                raise ConnectionError("the connection ended before the answer") from error
            answers.append(raw[raw.index(b"\x0b") + 1 : -2])
    finally:
        writer.close()
    return answers


def verdict(answer: bytes) -> str:
    """MSA-1 of an answer: AA, AE or AR; empty when there is none."""
    for segment in answer.decode("utf-8", "replace").split("\r"):
        if segment.startswith("MSA|"):
            return segment.split("|")[1]
    return ""
