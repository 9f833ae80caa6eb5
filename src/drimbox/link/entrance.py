"""The door itself: who proved to be somebody is let in to the study of the link, or not; the journal knows first."""

from __future__ import annotations

from dataclasses import dataclass

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError
from drimbox.link.address import Link
from drimbox.link.agreement import Agreement, Disagrees, Named, until_beat
from drimbox.link.ports import AuditJournal
from drimbox.link.visit import Visitor, Who
from drimbox.link.visits import Door, Elsewhere, Visits
from drimbox.record.audit import Actor, Event, Kind, Object, Outcome, Thing, failed

SYSTEM = "lien du compte rendu"


@dataclass(frozen=True, slots=True)
class Entrance:
    """Opens doors, and closes them. Links that agree with nothing are refused at multiples of ``beat`` seconds."""

    agreement: Agreement
    visits: Visits
    journal: AuditJournal
    clock: Clock
    beat: float = 1.0

    async def enter(self, link: Link, who: Who, actor: Actor, elsewhere: Elsewhere | None = None) -> Door:
        """Hold the link against archive and PACS, and open; ``elsewhere`` is the session that vouches for the visitor.

        Raises ``Disagrees``, always after the same time; ``Unavailable``, ``Rejected`` or ``Misconfigured`` when the
        PACS cannot be asked about a link that agrees with the archive. Failures are in the journal.
        """
        begun = self.clock.monotonic()
        named: Named | None = None
        try:
            named = await self.agreement.published(link, who.visitor)
            await self.agreement.in_pacs(link, named)
        except DrimboxError as problem:
            await self.journal.write(None, refusal(Kind.LINK_OPENED, link, actor, problem, named))
            if isinstance(problem, Disagrees):
                await until_beat(self.clock, begun, self.beat)
            raise
        door = self.visits.prepare(who, named.archived, link, actor, elsewhere)
        objects = (*objects_of(link), Object(Thing.SESSION, door.visit.key, who.visitor.value))
        patient, structure = named.archived.ins, named.archived.structure
        # No door that the journal does not know.
        await self.journal.write(None, Event(Kind.LINK_OPENED, actor, objects, structure=structure, patient=patient))
        await self.journal.write(None, Event(Kind.LOGIN, actor, objects[-1:], structure=structure))
        self.visits.open(door)
        return door

    async def check(self, door: Door) -> None:
        """May what is open still be seen? Asked again now and then. Raises ``Disagrees``, the door being closed."""
        async with door.checking:
            if not self.visits.due(door):
                return
            visit = door.visit
            try:
                archived = await self.agreement.still(door.structure, door.link, visit.who.visitor)
                if archived.ins != visit.ins:
                    raise Disagrees("identité du patient changée")
            except Disagrees as problem:
                await self.leave(door, problem.why)
                raise
            door.moved_to(archived)
            self.visits.checked(door)

    async def leave(self, door: Door, why: str) -> None:
        """Close the door; written down once."""
        if self.visits.end(door):
            await self.tell_left(door, why)

    async def tell_left(self, door: Door, why: str) -> None:
        objects = (Object(Thing.SESSION, door.visit.key, why),)
        await self.journal.write(None, Event(Kind.LOGOUT, door.actor, objects, structure=door.structure))


def objects_of(link: Link) -> tuple[Object, ...]:
    """What a link names, for the journal."""
    series = (Object(Thing.SERIES, link.series_uid),) if link.series_uid else ()
    return (
        Object(Thing.STUDY, link.study_uid),
        *series,
        Object(Thing.ACCESSION, link.accession),
        Object(Thing.DOCUMENT, link.report.document_id),
    )


def refusal(kind: Kind, link: Link, actor: Actor, problem: DrimboxError, named: Named | None = None) -> Event:
    """That the link did not open, and why: for the journal alone."""
    patient = named.archived.ins if named is not None else None
    structure = named.archived.structure if named is not None else ""
    event = Event(kind, actor, objects_of(link), structure=structure, patient=patient)
    if isinstance(problem, Disagrees):
        return Event(
            kind,
            actor,
            objects_of(link),
            outcome=Outcome.SERIOUS_FAILURE,
            outcome_text=problem.why,
            structure=structure,
            patient=patient,
        )
    return failed(event, problem)


def patient_actor(address: str) -> Actor:
    """Somebody who comes as the patient: known by where they come from."""
    return Actor(system=f"{SYSTEM} ({Visitor.PATIENT.value})", address=address)
