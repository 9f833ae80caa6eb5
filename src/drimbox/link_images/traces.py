"""What a visit leaves in the audit journal: what was looked at, what was taken home, what was refused (DB.SO.46)."""

from __future__ import annotations

import logging

import psycopg
from psycopg_pool import PoolTimeout

from drimbox.foundation.errors import DrimboxError, IdentityMismatch, Unavailable
from drimbox.link.visit import Visit, Visitor
from drimbox.link_images.arriving import SeriesImages
from drimbox.link_images.ports import AuditJournal
from drimbox.link_images.standing import Standing
from drimbox.record.audit import Actor, Event, Kind, Object, Thing, failed

_log = logging.getLogger(__name__)
SYSTEM = "lien du compte rendu"


class Traces:
    """Writes events of visits. The patient is a keyed reference in the journal, and no name of a patient is in it."""

    def __init__(self, journal: AuditJournal) -> None:
        self._journal = journal

    async def viewed(self, visit: Visit, standing: Standing, address: str) -> None:
        """The viewer is opened. Raises ``Unavailable`` (``audit-silent``): what cannot be written is not shown."""
        await self._before(self._event(Kind.IMAGES_VIEWED, visit, standing, address=address))

    async def taken(self, visit: Visit, standing: Standing, address: str, form: str) -> None:
        """A download begins, in the form ``dicom`` or ``jpeg``. Raises as ``viewed``."""
        await self._before(self._event(Kind.IMAGES_EXPORTED, visit, standing, detail=form, address=address))

    async def not_taken(self, visit: Visit, standing: Standing, address: str, form: str, error: DrimboxError) -> None:
        """A download that was cut short: what the visitor has is no whole ZIP."""
        event = self._event(Kind.IMAGES_EXPORTED, visit, standing, detail=form, address=address)
        await self._after(failed(event, error))

    async def received(self, visit: Visit, standing: Standing, series: SeriesImages) -> None:
        """A series is over: how many of its images could be shown, or why they could not."""
        syntaxes = " ".join(sorted({come.transfer_syntax_uid for come in series.all()}))
        detail = f"{series.received} images sur {series.expected}, {series.seconds:.3f} s, {syntaxes}"
        objects = (Object(Thing.SERIES, series.listed.series_uid, detail),)
        event = self._event(Kind.IMAGES_VIEWED, visit, standing, more=objects)
        if series.failure is not None:
            if series.failure.code == "gone":
                return
            event = failed(event, series.failure)
        await self._after(event)

    async def refused(self, visit: Visit, standing: Standing, address: str, error: DrimboxError) -> None:
        """Images were asked for that are not of the visit, or may not be shown."""
        kind = Kind.IMAGES_VIEWED if isinstance(error, IdentityMismatch) else Kind.NODE_REFUSED
        await self._after(failed(self._event(kind, visit, standing, address=address), error))

    def _event(
        self,
        kind: Kind,
        visit: Visit,
        standing: Standing,
        *,
        detail: str = "",
        address: str = "",
        more: tuple[Object, ...] = (),
    ) -> Event:
        patient = visit.who.visitor is Visitor.PATIENT
        actor = Actor(
            person=visit.who.number,
            name="" if patient else visit.who.name,
            profession="patient" if patient else "",
            system=SYSTEM,
            address=address,
        )
        objects = (
            Object(Thing.STUDY, visit.study_uid, detail),
            Object(Thing.KOS, standing.kos.kos_uid),
            Object(Thing.SESSION, visit.key),
            *more,
        )
        return Event(kind, actor, objects, structure=standing.kos.structure, patient=visit.ins)

    async def _before(self, event: Event) -> None:
        try:
            await self._journal.write(None, event)
        except (psycopg.Error, PoolTimeout) as error:
            raise Unavailable("Le journal d'audit ne répond pas", code="audit-silent") from error

    async def _after(self, event: Event) -> None:
        """What has happened already is lost for the journal where it does not answer; the log says so."""
        try:
            await self._journal.write(None, event)
        except (psycopg.Error, PoolTimeout) as error:
            _log.error("an event of a visit is not in the journal: %s", type(error).__name__)
