"""The audit journal: who did what to which object, when, from where, and how it ended (standards.md I).

Events use the codes of the DICOM audit message (PS3.15 A.5) and of the IHE transactions, so that they can be sent to
the hospital's own repository later; they are kept as rows of the table ``audit``, which only takes inserts.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum, IntEnum, StrEnum
from typing import Any

from psycopg.types.json import Jsonb

from drimbox.foundation.errors import DrimboxError, Misconfigured, OutcomeUnknown, Unavailable
from drimbox.foundation.uids import new_secret
from drimbox.identity.ins import Ins
from drimbox.record import logs
from drimbox.record.masking import masked
from drimbox.record.pseudonym import PatientKey
from drimbox.store.database import Connection, Pool

_log = logging.getLogger(__name__)


class Action(StrEnum):
    """EventActionCode (PS3.15 A.5.2.1)."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(IntEnum):
    """EventOutcomeIndicator (PS3.15 A.5.2.1)."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8
    MAJOR_FAILURE = 12


class Kind(Enum):
    """What happened: (EventID, EventTypeCode, EventActionCode); EventIDs are of DCM (standards.md I.1, I.2)."""

    STARTED = ("110100", "110120", Action.EXECUTE)
    STOPPED = ("110100", "110121", Action.EXECUTE)
    AUDIT_READ = ("110101", "", Action.READ)
    AUDIT_EXPORTED = ("110101", "export", Action.READ)
    AUDIT_VERIFIED = ("110101", "verification", Action.EXECUTE)
    AUDIT_REMOVED = ("110101", "retention", Action.DELETE)
    REPORT_RECEIVED = ("110107", "RAD-128", Action.CREATE)
    MDM_RECEIVED = ("110107", "CARD-7", Action.CREATE)
    ORDER_RECEIVED = ("110107", "RAD-13", Action.CREATE)
    NOTE_RECEIVED = ("110107", "RAD-66", Action.CREATE)
    PACS_QUERIED = ("110112", "C-FIND", Action.EXECUTE)
    DMP_QUERIED = ("110112", "ITI-18", Action.EXECUTE)
    DMP_ACCESS_CHECKED = ("110112", "TD0.2", Action.EXECUTE)
    DMP_ACCESS_CHANGED = ("110110", "TD0.3", Action.UPDATE)
    KOS_PUBLISHED = ("110106", "ITI-41", Action.READ)
    KOS_UPDATED = ("110106", "ITI-57", Action.UPDATE)
    KOS_DEPUBLISHED = ("110106", "ITI-57", Action.DELETE)
    DOCUMENT_RETRIEVED = ("110107", "ITI-43", Action.CREATE)
    ARCHIVE_EXPORTED = ("110106", "ITI-32", Action.READ)
    ARCHIVE_IMPORTED = ("110107", "ITI-32", Action.CREATE)
    BACKUP_MADE = ("110106", "backup", Action.READ)
    BACKUP_RESTORED = ("110107", "backup", Action.CREATE)
    ARCHIVE_WALKED = ("110100", "archive-walk", Action.EXECUTE)
    IMAGES_SERVED = ("110104", "RAD-107", Action.READ)
    PACS_MEASURED = ("110104", "speedtest", Action.READ)
    IMAGES_FETCHED = ("110104", "RAD-107", Action.CREATE)
    IMAGES_VIEWED = ("110103", "", Action.READ)
    IMAGES_IMPORTED = ("110107", "C-STORE", Action.CREATE)
    IMAGES_EXPORTED = ("110106", "PDI", Action.READ)
    STUDY_DELETED = ("110105", "", Action.DELETE)
    CONTEXTUAL_CALL = ("110100", "contextual-call", Action.EXECUTE)
    LINK_OPENED = ("110100", "RAD-106", Action.EXECUTE)
    LINK_IDENTITY_CHECKED = ("110113", "link-identity", Action.EXECUTE)
    LINK_CODE_SENT = ("110113", "link-code", Action.EXECUTE)
    LOGIN = ("110114", "110122", Action.EXECUTE)
    LOGOUT = ("110114", "110123", Action.EXECUTE)
    NODE_REFUSED = ("110113", "110126", Action.EXECUTE)
    TOKEN_REFUSED = ("110113", "110132", Action.EXECUTE)
    WHITELIST_REFUSED = ("110113", "whitelist", Action.EXECUTE)
    WHITELIST_CHANGED = ("110113", "whitelist", Action.UPDATE)
    EVIDENCE_EXPORTED = ("110106", "evidence", Action.READ)
    CONFIGURATION_CHANGED = ("110113", "110129", Action.UPDATE)
    ROLES_CHANGED = ("110113", "110136", Action.UPDATE)
    ACCOUNT_CHANGED = ("110113", "110137", Action.UPDATE)
    EMERGENCY_STARTED = ("110113", "110127", Action.EXECUTE)
    EMERGENCY_STOPPED = ("110113", "110138", Action.EXECUTE)
    IDENTITY_DECIDED = ("110113", "identity", Action.EXECUTE)
    NOTICE_ACCEPTED = ("110100", "notice", Action.EXECUTE)
    MESSAGE_READ = ("110110", "message", Action.READ)
    QUEUE_ACTED = ("110100", "operator-queue", Action.EXECUTE)

    @property
    def action(self) -> Action:
        action: Action = self.value[2]
        return action

    @property
    def code(self) -> str:
        """How the journal stores it: ``110106/ITI-41``, ``110103``."""
        return "/".join(part for part in self.value[:2] if part)


_EXPORT_PAGE = 1000
_KINDS = {(kind.code, kind.action.value): kind for kind in Kind}


class Thing(StrEnum):
    """What an object of an event is."""

    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"
    KOS = "kos"
    DOCUMENT = "document"
    SUBMISSION = "submission"
    MESSAGE = "message"
    ACCESSION = "accession"
    SESSION = "session"
    SYSTEM = "system"
    QUERY = "query"
    PATIENT = "patient"
    INCIDENT = "incident"
    ACCOUNT = "account"


@dataclass(frozen=True, slots=True)
class Object:
    """One object: a UID, a document uniqueId, a message control id... never a patient identity, nor a token."""

    thing: Thing
    identifier: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acted: a natural person, a system, or one through the other (PGSSI-S imputability, standards.md I.3).

    ``person`` is the national id (``SubjectNameID``), ``system`` the software or AE title or application,
    ``certificate_dn`` what the peer proved in TLS, ``address`` where it came from.
    """

    person: str = ""
    name: str = ""
    profession: str = ""
    structure: str = ""
    sector: str = ""
    system: str = ""
    certificate_dn: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``outcome_text`` is EventOutcomeDescription: the reason of a failure (DB.SO.45, DB.SO.47).

    ``structure`` is the structure of this box that the event belongs to; ``patient`` is written as a keyed reference
    only; an empty ``correlation`` takes that of the work in progress (``record.logs.correlation``).
    """

    kind: Kind
    actor: Actor
    objects: tuple[Object, ...] = ()
    outcome: Outcome = Outcome.SUCCESS
    outcome_text: str = ""
    structure: str = ""
    patient: Ins | None = None
    correlation: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as the journal gives it back; the patient is among ``objects`` as a reference."""

    id: int
    at: dt.datetime
    event: Event


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for; what is not given does not matter. ``before`` is the ``id`` to go on from (newest first)."""

    patient: Ins | None = None
    person: str = ""
    identifier: str = ""
    kind: Kind | None = None
    correlation: str = ""
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    before: int | None = None
    limit: int = 100


class Journal:
    """Writes and searches the table ``audit``."""

    def __init__(self, pool: Pool, patient_key: PatientKey | None = None) -> None:
        self._pool = pool
        self._patient_key = patient_key

    async def write(self, connection: Connection | None, event: Event) -> None:
        """Write one event: in the caller's transaction, or at once in one of its own when ``connection`` is None.

        Raises ``Misconfigured`` (``audit-key``) when the event names a patient and the journal has no key.
        """
        row = self.row(event)
        if connection is not None:
            await connection.execute(INSERT, row)
        else:
            async with self._pool.connection() as own:
                await own.execute(INSERT, row)

    async def search(self, search: Search, reader: Actor) -> tuple[Recorded, ...]:
        """The events that match, newest first, ``limit`` (1,000 at most) of them.

        Reading the journal is itself an event (PS3.15 A.5.3.2), committed before the answer is given. Raises
        ``Misconfigured`` (``audit-key``) for a search by patient when part of the journal was written under another
        key: an empty answer would be a lie.
        """
        async with self._pool.connection() as connection:
            rows = await self._found(connection, search)
            await self.write(connection, _reading(Kind.AUDIT_READ, search, reader))
        return tuple(_recorded(row) for row in rows)

    async def export(self, search: Search, reader: Actor) -> AsyncIterator[Recorded]:
        """Every event that matches, newest first, however many; ``limit`` does not matter.

        That the journal was copied is written before anything is given. Raises as ``search`` does.
        """
        async with self._pool.connection() as connection:
            rows = await self._found(connection, replace(search, limit=_EXPORT_PAGE))
            await self.write(connection, _reading(Kind.AUDIT_EXPORTED, search, reader))
        return self._all_from(rows, search)

    async def _all_from(self, rows: Sequence[dict[str, Any]], search: Search) -> AsyncIterator[Recorded]:
        while rows:
            for row in rows:
                yield _recorded(row)
            if len(rows) < _EXPORT_PAGE:
                return
            search = replace(search, before=rows[-1]["id"], limit=_EXPORT_PAGE)
            async with self._pool.connection() as connection:
                rows = await self._found(connection, search)

    async def _found(self, connection: Connection, search: Search) -> Sequence[dict[str, Any]]:
        if search.patient is not None:
            await self._check_keys(connection, search.patient)
        return await (await connection.execute(_SEARCH, self._criteria(search))).fetchall()

    def row(self, event: Event) -> dict[str, object]:
        """The values of ``INSERT`` that write an event, for who writes it within a statement of its own.

        Raises ``Misconfigured`` (``audit-key``).
        """
        # The journal itself is for those who may read it; that something happened, and how it ended, is for the log.
        _log.info("%s, outcome %d", event.kind.name, event.outcome)
        objects = [_compact(o) for o in event.objects]
        if event.patient is not None:
            objects.append({"thing": Thing.PATIENT.value, "identifier": self._reference(event.patient)})
        return {
            "event": event.kind.code,
            "action": event.kind.action.value,
            "outcome": event.outcome.value,
            "outcome_text": masked(event.outcome_text),
            "correlation": event.correlation or logs.correlation.get() or new_secret(),
            "structure": event.structure,
            "actor": Jsonb(_compact(event.actor)),
            "objects": Jsonb(objects),
        }

    def _reference(self, ins: Ins) -> str:
        if self._patient_key is None:
            raise Misconfigured("Le journal d'audit n'a pas de clé pour désigner les patients", code="audit-key")
        return self._patient_key.reference(ins)

    def _criteria(self, search: Search) -> dict[str, object]:
        wanted = []
        if search.patient is not None:
            wanted.append({"thing": Thing.PATIENT.value, "identifier": self._reference(search.patient)})
        if search.identifier:
            wanted.append({"identifier": search.identifier})
        return {
            "objects": Jsonb(wanted),
            "person": search.person or None,
            "event": search.kind.code if search.kind else None,
            "action": search.kind.action.value if search.kind else None,
            "correlation": search.correlation or None,
            "since": search.since,
            "until": search.until,
            "before": search.before,
            "limit": max(1, min(search.limit, 1000)),
        }

    async def _check_keys(self, connection: Connection, patient: Ins) -> None:
        fingerprint, _, _ = self._reference(patient).partition(":")
        row = await (await connection.execute(_OTHER_KEY, {"key": f"{fingerprint}:%"})).fetchone()
        if row is not None:
            raise Misconfigured(
                "Une partie du journal d'audit désigne les patients avec une autre clé : "
                "remettez le fichier de clé d'origine (sauvegarde, autre nœud)",
                code="audit-key",
            )


def failed(event: Event, error: DrimboxError) -> Event:
    """The same event, ended by ``error``: minor when it will be tried again, serious when it is over."""
    minor = isinstance(error, Unavailable | OutcomeUnknown)
    text = f"{error.code}: {error.reason}" + (f" [{error.peer_code}]" if error.peer_code else "")
    return replace(event, outcome=Outcome.MINOR_FAILURE if minor else Outcome.SERIOUS_FAILURE, outcome_text=text)


INSERT = """
INSERT INTO audit (event, action, outcome, outcome_text, correlation, structure, actor, objects)
VALUES (%(event)s, %(action)s, %(outcome)s, %(outcome_text)s, %(correlation)s, %(structure)s, %(actor)s, %(objects)s)
"""

_SEARCH = """
SELECT id, at, event, action, outcome, outcome_text, correlation, structure, actor, objects
FROM audit
WHERE objects @> %(objects)s
  AND (%(person)s::text IS NULL OR actor ->> 'person' = %(person)s)
  AND (%(event)s::text IS NULL OR event = %(event)s AND action = %(action)s)
  AND (%(correlation)s::text IS NULL OR correlation = %(correlation)s)
  AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR at < %(until)s)
  AND (%(before)s::bigint IS NULL OR id < %(before)s)
ORDER BY id DESC
LIMIT %(limit)s
"""

# The oldest row shows a key that was lost, the newest ones another node's: no need to read the whole journal.
_OTHER_KEY = """
SELECT 1
FROM (
    (SELECT objects FROM audit WHERE objects @> '[{"thing": "patient"}]' ORDER BY id LIMIT 1)
    UNION ALL
    (SELECT objects FROM audit WHERE objects @> '[{"thing": "patient"}]' ORDER BY id DESC LIMIT 1000)
) AS sample, jsonb_array_elements(sample.objects) AS object
WHERE object ->> 'thing' = 'patient' AND object ->> 'identifier' NOT LIKE %(key)s
LIMIT 1
"""


def _compact(thing: Actor | Object) -> dict[str, str]:
    """The filled fields by name: what is empty takes no room in the journal. Free text passes the safety net."""
    values = ((f.name, str(getattr(thing, f.name))) for f in fields(thing))
    return {name: masked(value) if name == "detail" else value for name, value in values if value}


def _reading(kind: Kind, search: Search, reader: Actor) -> Event:
    criteria = tuple(Object(Thing.QUERY, name, value) for name, value in _told(search))
    return Event(kind, reader, criteria, patient=search.patient)


def _told(search: Search) -> list[tuple[str, str]]:
    """The criteria of a search as the journal tells them; the patient is told as a reference, elsewhere."""
    values = ((f.name, getattr(search, f.name)) for f in fields(search) if f.name != "patient")
    return [(name, value.code if isinstance(value, Kind) else str(value)) for name, value in values if value]


def _recorded(row: dict[str, Any]) -> Recorded:
    event = Event(
        kind=_KINDS[row["event"], row["action"]],
        actor=Actor(**row["actor"]),
        objects=tuple(Object(Thing(o["thing"]), o["identifier"], o.get("detail", "")) for o in row["objects"]),
        outcome=Outcome(row["outcome"]),
        outcome_text=row["outcome_text"],
        structure=row["structure"],
        correlation=row["correlation"],
    )
    return Recorded(row["id"], row["at"], event)
