"""A series out of the PACS by WADO-RS (PS3.18 10.4): each part a file, believed for what its own header says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from drimbox.foundation.errors import OutcomeUnknown, Refused, Rejected, Unavailable
from drimbox.foundation.http_client import Stream
from drimbox.foundation.media_types import parse_media_type
from drimbox.foundation.multipart import PartData, PartEnd, PartStart, Reader
from drimbox.pacs.arrivals import delivering
from drimbox.pacs.delivery import Delivery, Pressure
from drimbox.pacs.dicomweb import WebService
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.association import Interrupt
from drimbox.pacs.dimse.client import MAX_INSTANCE_BYTES
from drimbox.pacs.dimse.storage import StoredInstance, StoreOffer, StoreRefused
from drimbox.pacs.header import InstanceHeader, read_header
from drimbox.pacs.inbox import Inbox
from drimbox.pacs.retrieve import check_uids, private_expectation
from drimbox.pacs.site import PacsLink

_FORM = 'multipart/related; type="application/dicom"'
AS_STORED = f"{_FORM}; transfer-syntax=*"
"""What is held, as it is held (PS3.18 8.7.3.5.2)."""
ANY_LISTED = ", ".join(f"{_FORM}; transfer-syntax={uid}" for uid in uids.AS_STORED)
"""The same for a server that does not know ``*``: lossless compressed first, lossy last."""
_WRITE_BYTES = 2**20


class WebSeriesSource:
    """``SeriesSource`` by WADO-RS."""

    def __init__(
        self,
        link: PacsLink,
        service: WebService,
        inbox: Inbox,
        *,
        pressure: Pressure | None = None,
        most: int = MAX_INSTANCE_BYTES,
    ) -> None:
        """``most``: bytes of one instance."""
        self._link = link
        self._service = service
        self._inbox = inbox
        self._pressure = pressure or Pressure()
        self._most = most

    @asynccontextmanager
    async def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str], *, patient_id: str | None = None
    ) -> AsyncIterator[AsyncIterator[StoredInstance]]:
        check_uids(study_uid, series_uid, expected)
        expectation = private_expectation(self._link.pacs.id, study_uid, series_uid, expected, patient_id)

        async def carry(delivery: Delivery) -> None:
            await _Fetch(self._link, self._service, delivery, self._most).run()

        async with (
            self._link.moving(),
            delivering(self._inbox, expectation, self._pressure, carry, by_receiver=False) as given,
        ):
            yield given


class _Fetch:
    """One retrieve."""

    def __init__(self, link: PacsLink, service: WebService, delivery: Delivery, most: int) -> None:
        self._link = link
        self._pacs = link.pacs
        self._service = service
        self._delivery = delivery
        self._most = most

    async def run(self) -> None:
        if not self._delivery.expectation.instances:
            return
        try:
            async with asyncio.timeout(self._pacs.retrieve_timeout):
                partial = await self._fetch()
        except TimeoutError as error:
            raise self._unavailable(
                "n'a pas fini d'envoyer les images dans le temps imparti", "pacs-too-slow"
            ) from error
        self._judge(partial=partial)

    async def _fetch(self) -> bool:
        """Asks for what is stored as it is stored; tells whether the server says that it gave a part only."""
        for accept in (AS_STORED, ANY_LISTED):
            try:
                async with self._service.stream(self._path(), accept, self._pacs.answer_timeout) as answer:
                    if answer.status in (400, 406) and accept is AS_STORED:
                        continue
                    if answer.status not in (200, 206):
                        raise self._service.refused(answer.status, answer.headers)
                    await self._receive(answer)
                    return answer.status == 206
            except (Unavailable, OutcomeUnknown) as error:
                raise self._service.unreachable(error) from error
        raise AssertionError("unreachable")

    def _path(self) -> str:
        own = self._delivery.expectation
        if own.series_uid is None:
            return f"/studies/{own.study_uid}"
        path = f"/studies/{own.study_uid}/series/{own.series_uid}"
        return f"{path}/instances/{next(iter(own.instances))}" if len(own.instances) == 1 else path

    async def _receive(self, answer: Stream) -> None:
        file = _File(self._delivery, self._most)
        try:
            reader = Reader(self._boundary(answer))
            async for chunk in answer.chunks:
                for event in reader.feed(chunk):
                    match event:
                        case PartStart():
                            pass
                        case PartData(data):
                            file.take(data)
                            if file.pending >= _WRITE_BYTES:
                                await self._in_thread(file.write)
                        case PartEnd():
                            await self._in_thread(file.end)
                if self._delivery.error is not None:
                    raise self._delivery.error
            reader.close()
        except Refused as error:
            if error.code.startswith("multipart"):
                raise self._unavailable("donne une réponse illisible", "pacs-protocol") from error
            raise
        except OSError as error:
            reason = f"Les images du PACS {self._pacs.id} ne peuvent pas être écrites ({error.strerror})."
            raise Unavailable(reason, code="spool-full") from error
        finally:
            file.give_up()

    async def _in_thread(self, work: Callable[[], None]) -> None:
        await self._link.in_thread(work, Interrupt())

    def _boundary(self, answer: Stream) -> str:
        media = parse_media_type(answer.headers.get("Content-Type", ""))
        if media is None or media.name != "multipart/related" or not media.get("boundary"):
            raise self._unavailable("répond en DICOMweb autre chose que des images", "pacs-protocol")
        return media.get("boundary")

    def _judge(self, *, partial: bool) -> None:
        if self._delivery.error is not None:
            raise self._delivery.error
        missing = len(self._delivery.missing)
        if not missing:
            return
        wanted = len(self._delivery.expectation.instances)
        what = f"n'a envoyé que {wanted - missing} des {wanted} images attendues"
        if partial:
            raise self._unavailable(what, "pacs-retrieve-incomplete", "206")
        raise Rejected(f"Le PACS {self._pacs.id} {what}.", code="pacs-instances-missing")

    def _unavailable(self, what: str, code: str, peer_code: str | None = None) -> Unavailable:
        return Unavailable(f"Le PACS {self._pacs.id} {what}.", code=code, peer_code=peer_code)


class _File:
    """The part that is coming in, beside the files of the delivery until it is known whose it is."""

    def __init__(self, delivery: Delivery, most: int) -> None:
        self._delivery = delivery
        self._most = most
        self._path: Path = delivery.folder / "coming.part"
        self._file: int | None = None
        self._pending: list[bytes] = []
        self.pending = 0
        self._size = 0

    def take(self, data: bytes) -> None:
        self._pending.append(data)
        self.pending += len(data)

    def write(self) -> None:
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            self._size = 0
        data = memoryview(b"".join(self._pending))
        self._pending.clear()
        self._size += self.pending
        self.pending = 0
        if self._size > self._most:
            raise Refused("Une image du PACS dépasse la taille permise.", code="instance-size")
        while data:
            data = data[os.write(self._file, data) :]
        self._delivery.progress()

    def end(self) -> None:
        """The part is whole: to whom does it belong?"""
        self.write()
        assert self._file is not None
        os.close(self._file)
        self._file = None
        header = self._header()
        try:
            if header is not None:
                self._land(header)
        except StoreRefused:
            # Not expected, or not what it should be: the delivery knows, and tells.
            pass
        finally:
            self._path.unlink(missing_ok=True)

    def give_up(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._path.unlink(missing_ok=True)

    def _header(self) -> InstanceHeader | None:
        try:
            return read_header(self._path)
        except Refused as error:
            self._delivery.fail(error)
            return None

    def _land(self, header: InstanceHeader) -> None:
        offer = StoreOffer(
            called_ae="",
            calling_ae="",
            sop_class_uid=header.sop_class_uid,
            sop_instance_uid=header.sop_instance_uid,
            transfer_syntax_uid=header.transfer_syntax_uid,
            move_originator_ae=None,
            move_originator_id=None,
        )
        landing = self._delivery.admit(offer)
        stored = StoredInstance(
            header.sop_class_uid, header.sop_instance_uid, header.transfer_syntax_uid, landing.path, self._size
        )
        try:
            os.rename(self._path, landing.path)
        except OSError:
            landing.lost()
            raise
        try:
            landing.landed(stored)
        except StoreRefused:
            landing.path.unlink(missing_ok=True)
            raise
