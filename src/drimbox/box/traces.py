"""How the access to images is told to the audit journal (DB.SO.46, DB.SO.47), speed tests included."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from cryptography import x509
from psycopg_pool import PoolTimeout

from drimbox.foundation.errors import Unavailable
from drimbox.images.ports import Access
from drimbox.record.audit import Actor, Event, Journal, Kind, Object, Outcome, Thing
from drimbox.speedtest.measuring import Record, Trace
from drimbox.trust.names import written

_SECURITY = {401: Kind.TOKEN_REFUSED, 403: Kind.NODE_REFUSED}
# A known box whose user's profession may not fetch images: an access refused, no attack on the circle of trust.
_ACCESS_REFUSED = frozenset({"profession-refused"})


def event_of(access: Access) -> Event:
    """The event of one access; its outcome says how it ended, never whose images they were."""
    refused = bool(access.code) and access.code not in _ACCESS_REFUSED
    kind = _SECURITY.get(access.status, Kind.IMAGES_SERVED) if refused else Kind.IMAGES_SERVED
    actor = Actor(
        person=access.national_id,
        profession=access.profession,
        system=access.caller,
        certificate_dn=_subject(access.certificate),
        address=access.address,
    )
    named = (
        (Thing.STUDY, access.study_uid),
        (Thing.SERIES, access.series_uid),
        (Thing.INSTANCE, access.instance_uid),
        (Thing.KOS, access.kos_uid),
    )
    detail = f"{access.instances} images, {access.bytes_sent} octets, {access.seconds:.3f} s"
    if access.first_seconds is not None:
        detail += f", première image {access.first_seconds:.3f} s, {' '.join(access.syntaxes)}"
    objects = tuple(Object(thing, uid, detail if thing is Thing.STUDY else "") for thing, uid in named if uid)
    return Event(
        kind,
        actor,
        objects,
        outcome=_outcome(access),
        outcome_text=f"{access.code}: {access.reason}" if access.code else "",
        structure=access.structure,
        patient=access.ins,
    )


def _outcome(access: Access) -> Outcome:
    if not access.code:
        return Outcome.SUCCESS
    return Outcome.MINOR_FAILURE if access.status in (0, 200, 503, 504) else Outcome.SERIOUS_FAILURE


def _subject(certificate: bytes | None) -> str:
    return written(x509.load_der_x509_certificate(certificate).subject) if certificate else ""


def recording(journal: Journal) -> Callable[[str], Record]:
    """What writes a measurement into the audit journal, for who asked for it (PS3.15 A.5.3.7)."""

    def by(person: str) -> Record:
        async def record(trace: Trace) -> None:
            told = f"{trace.images} images, {trace.bytes} octets, non conservées"
            objects = (Object(Thing.SYSTEM, f"PACS {trace.pacs}"), Object(Thing.STUDY, trace.study_uid, told))
            event = Event(
                Kind.PACS_MEASURED,
                Actor(person=person, system="drimbox speedtest"),
                tuple(one for one in objects if one.identifier),
                outcome=Outcome.MINOR_FAILURE if trace.code else Outcome.SUCCESS,
                outcome_text=": ".join(filter(None, (trace.code, trace.reason))),
            )
            try:
                await journal.write(None, event)
            except (psycopg.Error, PoolTimeout) as error:
                reason = "La mesure n'a pas pu être inscrite au journal d'audit : elle n'est pas rendue."
                raise Unavailable(reason, code="audit-silent") from error

        return record

    return by
