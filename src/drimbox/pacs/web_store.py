"""Images into a PACS by STOW-RS (PS3.18 10.5): a few at a time, and what the PACS said of each one."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from drimbox.foundation.errors import OutcomeUnknown, Rejected, Unavailable
from drimbox.pacs.dicomweb import WebService
from drimbox.pacs.dimse.storing import Outgoing
from drimbox.pacs.site import PacsLink
from drimbox.pacs.store import Sent

_MOST_BYTES = 32 * 2**20
_MOST_INSTANCES = 64
_CHUNK = 2**20
_REFERENCED, _FAILED, _OTHER_FAILED = "00081199", "00081198", "0008119A"
_INSTANCE, _WARNING_REASON, _FAILURE_REASON = "00081155", "00081196", "00081197"
# A failed store whose reason the server keeps to itself: "processing failure" (PS3.18 I.2.2).
_PROCESSING_FAILURE = 0x0110


class WebStore:
    """Stores instances into one PACS over its DICOMweb service."""

    def __init__(self, link: PacsLink, service: WebService) -> None:
        self._link = link
        self._service = service

    @asynccontextmanager
    async def sending(self, instances: Sequence[Outgoing]) -> AsyncIterator[AsyncIterator[Sent]]:
        """What becomes of each instance, as the PACS answers; every one is told of exactly once.

        Iterating raises ``Unavailable``, ``Busy`` or ``Rejected`` where the PACS cannot be stored to (any more): those
        not told of until then are not known to be stored. Leaving the block early stops after the request at hand.
        """
        async with self._link.moving(), aclosing(self._sent(instances)) as results:
            yield results

    async def _sent(self, instances: Sequence[Outgoing]) -> AsyncGenerator[Sent, None]:
        for batch in _batches(instances):
            for one in await self._post(batch):
                yield one

    async def _post(self, batch: Sequence[Outgoing]) -> list[Sent]:
        # Plain letters and digits, and nothing before the first part: some servers read no others.
        boundary = uuid.uuid4().hex
        parts = [(_part_head(boundary, first=one is batch[0]), one) for one in batch]
        ending = f"\r\n--{boundary}--\r\n".encode()
        length = sum(len(head) + one.start + one.size for head, one in parts) + len(ending)
        pacs = self._link.pacs
        try:
            reply = await self._service.post(
                "/studies",
                _body(parts, ending),
                length=length,
                content_type=f'multipart/related; type="application/dicom"; boundary={boundary}',
                timeout=pacs.answer_timeout + length / 2**20,
            )
        except OSError:
            return [Sent(one, None, code="file-unreadable") for one in batch]
        except (Unavailable, OutcomeUnknown, Rejected) as error:
            told = self._service.unreachable(error)
            if isinstance(told, OutcomeUnknown):
                raise Unavailable(told.reason, code=told.code, peer_code=told.peer_code) from error
            raise told from error
        if reply.status == 413 and len(batch) > 1:
            return [sent for one in batch for sent in await self._post([one])]
        if reply.status == 413:
            return [Sent(batch[0], None, code="too-large", comment="trop volumineuse pour le PACS")]
        if reply.status == 415:
            return [Sent(one, None, code="context-refused") for one in batch]
        if reply.status not in (200, 202, 409):
            raise self._service.refused(reply.status, reply.headers)
        answers = await asyncio.to_thread(_answers, reply.body)
        return [_sent(one, answers, reply.status, alone=len(batch) == 1) for one in batch]


def _batches(instances: Sequence[Outgoing]) -> list[list[Outgoing]]:
    batches: list[list[Outgoing]] = []
    size = 0
    for one in instances:
        if not batches or size + one.size > _MOST_BYTES or len(batches[-1]) >= _MOST_INSTANCES:
            batches.append([])
            size = 0
        batches[-1].append(one)
        size += one.size
    return batches


def _part_head(boundary: str, *, first: bool) -> bytes:
    """The syntax stands in the file itself; Orthanc refuses a part whose media type repeats it."""
    before = "" if first else "\r\n"
    return f"{before}--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode("ascii")


async def _body(parts: Sequence[tuple[bytes, Outgoing]], ending: bytes) -> AsyncIterator[bytes]:
    for head, one in parts:
        yield head
        file = os.open(one.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # The file as it is to be stored: a new beginning, then the old one's rest.
            if one.head:
                yield one.head
            position, size = one.rest, one.rest + one.start + one.size - len(one.head)
            while position < size:
                data = await asyncio.to_thread(os.pread, file, min(_CHUNK, size - position), position)
                if not data:
                    raise OSError("file shorter than it was")
                position += len(data)
                yield data
        finally:
            os.close(file)
    yield ending


def _answers(body: bytes) -> Mapping[str, int]:
    """The status of each instance that the answer names; a warning is its own reason. What is unreadable says nothing.

    Where a server gives no reason for a failure, it is a processing failure.
    """
    try:
        answer = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        return {}
    if isinstance(answer, list):
        answer = answer[0] if answer else {}
    found: dict[str, int] = {}
    for uid, reason in _items(answer, _REFERENCED, _WARNING_REASON):
        found[uid] = reason or 0
    for uid, reason in _items(answer, _FAILED, _FAILURE_REASON):
        found[uid] = reason or _PROCESSING_FAILURE
    return found


def _items(answer: Any, sequence: str, reason: str) -> list[tuple[str, int | None]]:
    element = answer.get(sequence) if isinstance(answer, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return [
        (str(uid), code if isinstance(code, int) else None)
        for item in (values if isinstance(values, list) else [])
        if isinstance(item, dict) and (uid := _first(item, _INSTANCE))
        for code in [_first(item, reason)]
    ]


def _first(item: Mapping[str, Any], tag: str) -> Any:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _sent(one: Outgoing, answers: Mapping[str, int], status: int, *, alone: bool) -> Sent:
    if one.sop_instance_uid in answers:
        return Sent(one, answers[one.sop_instance_uid])
    if status == 409 and alone:
        return Sent(one, _PROCESSING_FAILURE)
    # It may be stored or not: only what is named is.
    return Sent(one, None, code="not-answered")
