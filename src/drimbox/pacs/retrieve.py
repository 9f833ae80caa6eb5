"""A series out of the PACS, each image handed on as it lands: by C-MOVE to our own receiver, or by C-GET.

A retrieve ends in one of two ways: everything that was expected has been given, or an error says why not. It never
hangs, and it never leaves a file behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.pacs.arrivals import delivering
from drimbox.pacs.contents import Contents
from drimbox.pacs.delivery import Delivery, Expectation, Pressure
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.storage import StoredInstance
from drimbox.pacs.inbox import Inbox
from drimbox.pacs.query import StudyFinder
from drimbox.pacs.site import PacsLink
from drimbox.pacs.suboperations import Get, Move, SubOperations

__all__ = ["PacsGetSource", "PacsSeriesSource", "SeriesSource", "StoredInstance"]


class SeriesSource(Protocol):
    """Gives the images of a series, or of a study."""

    def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str], *, patient_id: str | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[StoredInstance]]:
        """Each instance of ``expected`` (SOP Instance UIDs) as it lands; a file is good until the block is left.

        ``patient_id`` is what the PACS gives for the study, where known: every image must carry it; otherwise they must
        all carry the same. Raises ``Unavailable`` when the PACS fails, ``Rejected`` when it holds less than expected or
        sends something else, ``IdentityMismatch`` when it sends another patient's image. Leaving the block early
        cancels the retrieve; its files are removed in every case.
        """


class PacsSeriesSource:
    """``SeriesSource`` by C-MOVE to the AE title ``destination_ae`` of our receiver."""

    def __init__(
        self,
        link: PacsLink,
        inbox: Inbox,
        destination_ae: str,
        *,
        pressure: Pressure | None = None,
        late_timeout: float = 5.0,
    ) -> None:
        """``late_timeout``: seconds that images may still come after a PACS has said that it has sent them all."""
        self._link = link
        self._inbox = inbox
        self._destination = destination_ae
        self._pressure = pressure or Pressure()
        self._late_timeout = late_timeout

    @asynccontextmanager
    async def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str], *, patient_id: str | None = None
    ) -> AsyncIterator[AsyncIterator[StoredInstance]]:
        check_uids(study_uid, series_uid, expected)
        pacs = self._link.pacs
        expectation = Expectation(
            pacs_id=pacs.id,
            study_uid=study_uid,
            series_uid=series_uid,
            instances=frozenset(expected),
            destination_ae=self._destination,
            originator_ae=pacs.calling_ae_title,
            patient_id=patient_id,
            storing_ae_titles=pacs.storing_ae_titles,
            checks_originator=pacs.checks_originator,
        )

        async def carry(delivery: Delivery) -> None:
            await _in_time(self._link, Move(self._link, delivery, self._late_timeout))

        async with (
            self._link.moving(),
            delivering(self._inbox, expectation, self._pressure, carry, by_receiver=True) as given,
        ):
            yield given


class PacsGetSource:
    """``SeriesSource`` by C-GET: nothing has to be opened or configured for the PACS to call back.

    The presentation contexts are those of the SOP classes of the study: ``contents`` remembers them from the last
    query, else ``finder`` is asked.
    """

    def __init__(
        self,
        link: PacsLink,
        inbox: Inbox,
        finder: StudyFinder,
        contents: Contents,
        *,
        pressure: Pressure | None = None,
    ) -> None:
        self._link = link
        self._inbox = inbox
        self._finder = finder
        self._contents = contents
        self._pressure = pressure or Pressure()

    @asynccontextmanager
    async def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str], *, patient_id: str | None = None
    ) -> AsyncIterator[AsyncIterator[StoredInstance]]:
        check_uids(study_uid, series_uid, expected)
        pacs_id = self._link.pacs.id
        classes = await classes_of(self._contents, self._finder, study_uid, expected)
        expectation = private_expectation(pacs_id, study_uid, series_uid, expected, patient_id)

        async def carry(delivery: Delivery) -> None:
            await _in_time(self._link, Get(self._link, delivery, classes))

        async with (
            self._link.moving(),
            delivering(self._inbox, expectation, self._pressure, carry, by_receiver=False) as given,
        ):
            yield given


async def _in_time(link: PacsLink, work: SubOperations) -> None:
    """Runs it, however slowly what the PACS sends may drip, for the time that a retrieve has."""
    try:
        async with asyncio.timeout(link.pacs.retrieve_timeout):
            await link.in_thread(work.run, work.interrupt, work.cancel)
    except TimeoutError as error:
        reason = f"Le PACS {link.pacs.id} n'a pas fini d'envoyer les images dans le temps imparti."
        raise Unavailable(reason, code="pacs-too-slow") from error


async def classes_of(
    contents: Contents, finder: StudyFinder, study_uid: str, expected: Collection[str]
) -> dict[str, str]:
    """The SOP class of each expected instance that the PACS lists. Raises what ``finder`` raises."""
    known = contents.classes(study_uid)
    if known is None or not known.keys() >= set(expected):
        study = await finder.find(study_uid)
        known = contents.note(study) if study is not None else {}
    return {uid: known[uid] for uid in expected if uid in known}


def private_expectation(
    pacs_id: str, study_uid: str, series_uid: str | None, expected: Collection[str], patient_id: str | None
) -> Expectation:
    """What a retrieve waits for that comes over a connection of its own."""
    return Expectation(
        pacs_id=pacs_id,
        study_uid=study_uid,
        series_uid=series_uid,
        instances=frozenset(expected),
        destination_ae="",
        originator_ae="",
        patient_id=patient_id,
    )


def check_uids(study_uid: str, series_uid: str | None, expected: Collection[str]) -> None:
    """Raises ``Rejected`` (``study-uid``) where one of them is none."""
    asked = (study_uid, *((series_uid,) if series_uid is not None else ()), *expected)
    if not all(map(uids.is_plausible, asked)):
        raise Rejected("Un identifiant d'examen, de série ou d'image n'est pas un UID DICOM.", code="study-uid")
