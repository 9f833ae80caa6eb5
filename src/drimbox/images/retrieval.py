"""One answer with images, from the request to its last byte (standards.md C.4, C.5; decision 14).

The status line leaves when the first image is ready: until then an error has its own status. After that, whatever goes
wrong breaks the connection; a body that ends cleanly is whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Busy, DrimboxError, IdentityMismatch, Refused, Unavailable
from drimbox.images.ahead import prepared_ahead
from drimbox.images.bodies import Asked, Body, MetadataBody, Part
from drimbox.images.gate import Caller, Denied, Target
from drimbox.images.kept import DescribedPart, HeldPart, MultipartBody, StoredPart, as_stored, grouped, stored_at_once
from drimbox.images.ports import (
    Access,
    ArchivedKos,
    DescribingSource,
    Journal,
    KeptInstance,
    SeriesSource,
    StoredInstance,
    StudyFinder,
)
from drimbox.images.renditions import NotAcceptable
from drimbox.images.threads import in_thread

_log = logging.getLogger(__name__)

# Of a first chunk, that which is copied behind what stands before it.
_FIRST = 2**15

# A PACS that said nothing, or was not through, in the time that it has (504 rather than 503).
_TIME_IS_UP = frozenset({"pacs-silent", "pacs-too-slow"})

HEADERS = {
    "Cache-Control": "no-store",
    "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request.

    ``queue``: seconds that it waits for its turn; ``stall``: seconds that its caller may leave a chunk unread;
    ``ahead``: its instances in preparation at once.
    """

    queue: float = 30.0
    stall: float = 60.0
    ahead: int = 3


@dataclass(slots=True)
class Record:
    """What is known of a request while it is served: becomes one line of the journal."""

    clock: Clock
    caller: Caller
    target: Target = field(default_factory=lambda: Target(""))
    kos: ArchivedKos | None = None
    status: int = 0
    code: str = "client-left"
    reason: str = ""
    instances: int = 0
    bytes_sent: int = 0
    first: float | None = None
    syntaxes: set[str] = field(default_factory=set)
    started: float = 0.0

    def denied(self, denied: Denied) -> None:
        self.status, self.code, self.reason = denied.status, denied.code, denied.reason

    def access(self) -> Access:
        now = self.clock.monotonic()
        return Access(
            at=self.clock.now(),
            status=self.status,
            code=self.code,
            reason=self.reason,
            caller=self.caller.name,
            certificate=self.caller.certificate,
            address=self.caller.address,
            national_id=self.caller.national_id,
            profession=self.caller.profession,
            structure=self.kos.structure if self.kos else "",
            study_uid=self.target.study_uid,
            series_uid=self.target.series_uid,
            instance_uid=self.target.instance_uid,
            kos_uid=self.kos.kos_uid if self.kos else "",
            ins=self.kos.ins if self.kos else None,
            instances=self.instances,
            bytes_sent=self.bytes_sent,
            seconds=now - self.started,
            first_seconds=self.first - self.started if self.first is not None else None,
            syntaxes=tuple(sorted(self.syntaxes)),
        )


class Retrieval(Response):
    """The answer to a request that was let in. ``slots`` bounds how many are served at once."""

    def __init__(
        self,
        asked: Asked,
        body: Body,
        *,
        source: SeriesSource,
        finder: StudyFinder,
        slots: asyncio.Semaphore,
        limits: Limits,
        record: Record,
        journal: Journal,
    ) -> None:
        self._asked = asked
        self._body = body
        self._source = source
        self._finder = finder
        self._slots = slots
        self._limits = limits
        self._record = record
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.create_task(self._work(scope, receive, send))
        leaving = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # The caller has left, or the server stops: what is being retrieved for it is cancelled.
            work.cancel()
            leaving.cancel()
            await asyncio.wait((work, leaving))
            if not work.cancelled() and (failure := work.exception()) is not None:
                self._record.code, self._record.reason = "internal", type(failure).__name__
            await self._journal(self._record.access())
        if not work.cancelled():
            # An error of ours: the server logs it, and answers 500 or breaks the connection.
            work.result()

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = self._record
        try:
            await self._serve(send)
            record.code = ""
        except (Denied, DrimboxError) as error:
            record.code, record.reason = error.code, error.reason
            if record.status:
                # The status line has left: nothing more is sent, and the server breaks the connection.
                _log.warning("an answer with images was cut short: %s", error.code)
                return
            denied = await self._denial(error)
            record.denied(denied)
            await error_response(denied)(scope, receive, send)

    async def _serve(self, send: Send) -> None:
        async with AsyncExitStack() as stack:
            await self._take_slot(stack)
            parts = await self._open(stack)
            first = await anext(parts, None)
            if first is None:
                raise _missing()
            await self._begin(send, first)
            await self._send_part(send, first, first=True)
            async for part in parts:
                await self._send_part(send, part, first=False)
        # Last of all, when nothing is left to be let go of: once these octets are out, the server says that the caller
        # is gone, and what it then cut short would be lost.
        await self._send(send, self._closing(first), more=False)

    async def _take_slot(self, stack: AsyncExitStack) -> None:
        try:
            async with asyncio.timeout(self._limits.queue):
                await stack.enter_async_context(self._slots)
        except TimeoutError:
            raise Denied(503, "busy", "Trop de demandes en cours", headers={"Retry-After": "10"}) from None

    async def _open(self, stack: AsyncExitStack) -> AsyncIterator[Part]:
        asked, source = self._asked, self._source
        series_uid = asked.target.series_uid or None
        if isinstance(self._body, MetadataBody) and isinstance(source, DescribingSource):
            pieces = await stack.enter_async_context(
                source.described(asked.target.study_uid, series_uid, asked.expected)
            )
            if pieces is not None:
                return _only(DescribedPart(pieces, len(asked.expected)))
        instances = await stack.enter_async_context(source.retrieve(asked.target.study_uid, series_uid, asked.expected))
        groups = await stack.enter_async_context(aclosing(grouped(self._expected(instances))))
        prepared = await stack.enter_async_context(
            prepared_ahead(groups, self._prepare, _discard, width=self._limits.ahead, at_once=self._at_once)
        )
        return await stack.enter_async_context(aclosing(_flat(prepared)))

    async def _expected(self, instances: AsyncIterator[StoredInstance]) -> AsyncIterator[StoredInstance]:
        """Each expected instance once. Raises when one is missing at the end, whatever the source says."""
        missing = set(self._asked.expected)
        async for instance in instances:
            if instance.sop_instance_uid not in missing:
                # Added to the series after the KOS, or rejected before it: it is not part of what was published.
                continue
            missing.discard(instance.sop_instance_uid)
            yield instance
        if missing:
            raise _missing()

    def _at_once(self, group: Sequence[StoredInstance]) -> Sequence[Part] | None:
        part = stored_at_once(group, self._body) if isinstance(self._body, MultipartBody) else None
        return None if part is None else (part,)

    async def _prepare(self, group: Sequence[StoredInstance]) -> Sequence[Part]:
        if (at_once := self._at_once(group)) is not None:
            return at_once
        if isinstance(self._body, MultipartBody) and (part := await as_stored(group, self._body)) is not None:
            return (part,)
        parts: list[Part] = []
        try:
            for instance in group:
                parts.append(await self._prepare_one(instance))
        except BaseException:
            _discard(parts)
            raise
        return parts

    async def _prepare_one(self, instance: StoredInstance) -> Part:
        if not isinstance(instance, KeptInstance):
            return await self._body.prepare(instance.path, instance.sop_instance_uid)
        path = await in_thread(instance.acquire)
        try:
            return HeldPart(await self._body.prepare(path, instance.sop_instance_uid), instance)
        except BaseException:
            instance.release()
            raise

    def _head_of(self, first: Part) -> dict[str, str]:
        if isinstance(first, StoredPart | DescribedPart):
            return first.headers()
        return self._body.headers(first.part if isinstance(first, HeldPart) else first)

    def _closing(self, first: Part) -> bytes:
        if isinstance(first, StoredPart):
            return first.writer.closing()
        if isinstance(first, DescribedPart):
            return b"]"
        return self._body.closing(first.part if isinstance(first, HeldPart) else first)

    async def _begin(self, send: Send, first: Part) -> None:
        headers = HEADERS | self._head_of(first)
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        # From here on a failure can only be told by breaking the connection, even if this very line fails.
        self._record.status, self._record.first = 200, self._record.clock.monotonic()
        await send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _send_part(self, send: Send, part: Part, *, first: bool) -> None:
        try:
            pending = part.opening(first=first)
            async with aclosing(part.chunks()) as chunks:
                async for chunk in chunks:
                    view = memoryview(chunk)
                    if pending:
                        await self._send(send, pending + view[:_FIRST])
                        view, pending = view[_FIRST:], b""
                    await self._send(send, view)
            if ending := part.ending():
                await self._send(send, ending)
            self._record.instances += part.count if isinstance(part, StoredPart | DescribedPart) else 1
            self._record.syntaxes |= {part.syntax} - {""}
        finally:
            part.discard()

    async def _send(self, send: Send, data: bytes | memoryview, *, more: bool = True) -> None:
        if more and not data:
            return
        try:
            async with asyncio.timeout(self._limits.stall):
                await send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError:
            raise Busy("Le demandeur ne lit plus sa réponse", code="client-stalled") from None
        self._record.bytes_sent += len(data)
        # What could be done without waiting for anybody keeps others waiting.
        await asyncio.sleep(0)

    async def _denial(self, error: DrimboxError | Denied) -> Denied:
        """Which status an error deserves that came before the first byte."""
        if isinstance(error, Denied):
            return error
        if isinstance(error, NotAcceptable):
            return not_acceptable(error.supported)
        if isinstance(error, IdentityMismatch) or error.code == "pacs-wrong-instance":
            return Denied(502, error.code, "Le PACS a envoyé une image qui ne correspond pas au KOS")
        if isinstance(error, Refused):
            return Denied(502, error.code, "Image illisible au PACS")
        return await self._unavailable(error)

    async def _unavailable(self, error: DrimboxError) -> Denied:
        """The PACS gave nothing: are the images gone, or is it the PACS (410, 503, 504)?"""
        try:
            study = await self._finder.find(self._asked.target.study_uid)
        except DrimboxError as failure:
            status = 504 if {failure.code, error.code} & _TIME_IS_UP else 503
            return Denied(status, "pacs-unavailable", "PACS injoignable", headers={"Retry-After": "30"})
        held = {i.sop_instance_uid for s in study.series for i in s.instances} if study is not None else set()
        if not self._asked.expected <= held:
            return Denied(410, "images-gone", "Le PACS n'a plus ces images")
        status = 504 if error.code in _TIME_IS_UP else 503
        return Denied(status, "pacs-failed", "Le PACS n'a pas pu envoyer ces images", headers={"Retry-After": "30"})


def not_acceptable(supported: tuple[str, ...]) -> Denied:
    """406, with what would be possible (PS3.18 8.7.7)."""
    media = [f'multipart/related; type="application/dicom"; transfer-syntax={syntax}' for syntax in supported]
    return Denied(406, "not-acceptable", "Aucun format accepté n'est disponible", more={"supported": media})


def error_response(denied: Denied) -> JSONResponse:
    """A short answer in French with a code, without health data."""
    more: Mapping[str, Any] = denied.more if isinstance(denied.more, Mapping) else {}
    content = {"code": denied.code, "message": denied.reason, **more}
    return JSONResponse(content, denied.status, headers=HEADERS | denied.headers)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _only(part: Part) -> AsyncIterator[Part]:
    yield part


async def _flat(groups: AsyncIterator[Sequence[Part]]) -> AsyncGenerator[Part, None]:
    async for group in groups:
        for index, part in enumerate(group):
            try:
                yield part
            except BaseException:
                # Those that will not be sent any more; the one that is being sent is its sender's.
                _discard(group[index + 1 :])
                raise


def _discard(parts: Sequence[Part]) -> None:
    for part in parts:
        part.discard()


def _missing() -> Unavailable:
    return Unavailable("Le PACS n'a pas envoyé toutes les images", code="images-missing")
