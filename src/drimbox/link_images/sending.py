"""A body made while it is sent: one that could not be finished is broken off, and its reader is told by that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from drimbox.foundation.errors import Busy, DrimboxError, Unavailable
from drimbox.link_images.visits import OpenStudy, OpenVisits

_log = logging.getLogger(__name__)
_STALL_SECONDS = 60.0

#: Told when the body was cut: the status line had left by then.
Cut = Callable[[DrimboxError], Awaitable[None]]


class Sent(Response):
    """``first`` is there already, ``pieces`` come while they are sent, and are closed at the end, whatever it is."""

    def __init__(
        self,
        first: bytes,
        pieces: AsyncGenerator[bytes, None],
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        cut: Cut | None = None,
    ) -> None:
        super().__init__(media_type=media_type, headers={"Cache-Control": "no-store", **(headers or {})})
        del self.headers["content-length"]
        self._first = first
        self._pieces = pieces
        self._cut = cut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.create_task(self._send_all(send))
        leaving = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            leaving.cancel()
            await asyncio.wait((work, leaving))
            await self._pieces.aclose()
        if work.cancelled():
            await self._tell(Unavailable("Le visiteur est parti avant la fin", code="client-left"))
        elif isinstance(error := work.exception(), DrimboxError):
            # Nothing more is sent, and the server breaks the connection.
            _log.warning("an answer to a visit was cut short: %s", error.code)
            await self._tell(error)
        else:
            work.result()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await _piece(send, self._first)
        async for piece in self._pieces:
            await _piece(send, piece)
        # The visitor who has the last octets is gone for the server: what is to be let go of, is let go of before.
        await self._pieces.aclose()
        await _piece(send, b"", more=False)

    async def _tell(self, error: DrimboxError) -> None:
        if self._cut is not None:
            await self._cut(error)


class Watched(Response):
    """An answer that is broken off, connection and all, once the study may not be seen any more."""

    def __init__(self, answer: Response, visits: OpenVisits, study: OpenStudy) -> None:
        self._answer = answer
        self._visits = visits
        self._study = study

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._visits.answering(self._study) as stop:
            await self._until(stop, scope, receive, send)

    async def _until(self, stop: asyncio.Event, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.create_task(self._answer(scope, receive, send))
        over = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((work, over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            over.cancel()
            await asyncio.wait((work, over))
        if not work.cancelled():
            work.result()


async def _piece(send: Send, piece: bytes, *, more: bool = True) -> None:
    if more and not piece:
        return
    try:
        async with asyncio.timeout(_STALL_SECONDS):
            await send({"type": "http.response.body", "body": piece, "more_body": more})
    except TimeoutError:
        raise Busy("Le visiteur ne lit plus", code="client-stalled") from None
    await asyncio.sleep(0)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
