"""A checked set put into the archive, in one transaction; the same set again changes nothing.

A state only ever moves on: current, replaced, depublished. Of several versions of a study that say they are current,
the one submitted last is; the others are kept as replaced.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from drimbox.foundation.errors import Misconfigured, Unavailable
from drimbox.portability import identity
from drimbox.portability.check import CheckedSet, CheckedVersion
from drimbox.portability.layout import refused
from drimbox.portability.notes import Times
from drimbox.publication.incidents import Incidents
from drimbox.publication.kos import State
from drimbox.reports.report import Structure
from drimbox.store.database import Connection, Pool

_ORDER = (State.CURRENT.value, State.REPLACED.value, State.DEPUBLISHED.value)
_TRIES = 5
_RACES = (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)


@dataclass(frozen=True, slots=True)
class Target:
    """A structure of this box that sets may be imported for.

    ``id`` is its short name, ``structure`` the one that stands in its submission sets, ``identifiers`` every
    Struct_IdNat that messages use for it, ``pacs`` the PACSs that may hold its studies.
    """

    id: str
    structure: Structure
    sector: str
    identifiers: tuple[str, ...]
    pacs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of a set: how many versions came in, moved on, or were there already; codes of what is odd."""

    imported: int = 0
    updated: int = 0
    unchanged: int = 0
    warnings: tuple[str, ...] = ()


async def place_set(
    pool: Pool, checked: CheckedSet, target: Target, *, pacs: str | None, incidents: Incidents, now: dt.datetime
) -> Placed:
    """Put a set into the archive of a structure.

    ``pacs`` holds the studies where the set does not name a PACS of the structure. Raises ``Refused``
    (``archive-conflict``: another KOS of the same identifier is there; ``archive-values``: what PostgreSQL does not
    take), ``Misconfigured`` (``archive-pacs``: nothing says which PACS), ``Unavailable``.
    """
    for _ in range(_TRIES):
        try:
            async with pool.connection() as connection, connection.transaction():
                return await _Placing(connection, checked, target, pacs, incidents, now).run()
        except _RACES:
            # A publication of the same study went through meanwhile: look again.
            continue
        except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded) as error:
            raise refused("Le lot porte une valeur que l'archive ne peut pas garder", "values") from error
    raise Unavailable("L'archive est trop occupée : relancez l'import, il reprendra", code="archive-busy")


def pacs_of(told: str, target: Target, chosen: str | None) -> str:
    """The PACS that holds the study: the one that the archive names if it is known, the chosen one, the only one."""
    if told in target.pacs:
        return told
    if chosen is not None:
        return chosen
    if len(target.pacs) == 1:
        return target.pacs[0]
    raise Misconfigured(
        f"La structure {target.id} a plusieurs PACS : dites avec --pacs lequel tient les examens de cette archive",
        code="archive-pacs",
    )


class _Placing:
    """One set, in one transaction."""

    def __init__(
        self,
        connection: Connection,
        checked: CheckedSet,
        target: Target,
        pacs: str | None,
        incidents: Incidents,
        now: dt.datetime,
    ) -> None:
        self._connection = connection
        self._checked = checked
        self._target = target
        self._pacs = pacs
        self._incidents = incidents
        self._now = now
        self._warnings = list(checked.warnings)

    async def run(self) -> Placed:
        counts = {"imported": 0, "updated": 0, "unchanged": 0}
        for version in self._checked.versions:
            counts[await self._version(version)] += 1
        return Placed(**counts, warnings=tuple(dict.fromkeys(self._warnings)))

    async def _version(self, version: CheckedVersion) -> str:
        known = await self._one(
            "SELECT id, structure, study_uid, state, kos FROM publication WHERE kos_uid = %s FOR UPDATE",
            (version.kos_uid,),
        )
        if known is None:
            await self._insert(version)
            return "imported"
        mine = (known["structure"], known["study_uid"], bytes(known["kos"]))
        if mine != (self._target.id, version.study_uid, version.kos):
            raise refused("Un autre KOS de même identifiant est déjà dans l'archive de la passerelle", "conflict")
        if known["state"] not in _ORDER or _ORDER.index(known["state"]) >= _ORDER.index(version.state):
            return "unchanged"
        await self._connection.execute(
            "UPDATE publication SET state = %s, ended_at = %s WHERE id = %s",
            (version.state.value, self._times(version).ended or self._now, known["id"]),
        )
        await self._stand(version)
        return "updated"

    async def _insert(self, version: CheckedVersion) -> None:
        times, state = self._times(version), version.state
        if state is State.CURRENT:
            times, state = await self._among_others(version, times)
        elif times.ended is None:
            times = replace(times, ended=self._now)
        made = self._identity(version, times.prepared)
        await self._connection.execute(
            _INSERT,
            {
                "structure": self._target.id,
                "study_uid": version.study_uid,
                "kos_uid": version.kos_uid,
                "state": state.value,
                "kos": version.kos,
                "metadata": self._checked.metadata,
                "signature": self._checked.signature,
                "submission_uid": self._checked.submission_set.unique_id,
                "entry_uuid": version.entry_uuid or None,
                "replaces": await self._predecessor(version),
                "document_ids": list(version.documents),
                "pacs": pacs_of(version.notes.pacs, self._target, self._pacs),
                "ins": version.ins.matricule,
                "ins_oid": version.ins.oid,
                "vihf_identity": Jsonb(dict(made)),
                "visibility": Jsonb(
                    {
                        "masked_to_professionals": version.entry.masked,
                        "hidden_from_patient": version.entry.hidden_from_patient,
                        "hidden_from_representatives": version.entry.hidden_from_representatives,
                        identity.SECRET: made.get(identity.SECRET) is True,
                    }
                ),
                "fingerprint": version.notes.fingerprint,
                "prepared_at": times.prepared,
                "sent_at": times.sent,
                "confirmed_at": times.confirmed,
                "ended_at": times.ended,
            },
        )
        if state is version.state:
            await self._stand(version)

    async def _among_others(self, version: CheckedVersion, times: Times) -> tuple[Times, State]:
        """A version that says it is current, beside the one that is."""
        other = await self._one(
            "SELECT id, kos_uid, entry_uuid, report_id, confirmed_at FROM publication "
            "WHERE structure = %s AND study_uid = %s AND state = 'current' FOR UPDATE",
            (self._target.id, version.study_uid),
        )
        if other is None:
            return times, State.CURRENT
        linked = other["kos_uid"] == version.notes.replaces or (
            other["entry_uuid"] is not None and other["entry_uuid"] == version.replaces_entry
        )
        if other["report_id"] is not None and not linked:
            await self._tell_of_two(version)
        since = times.confirmed or times.prepared
        if linked or since >= (other["confirmed_at"] or since):
            await self._connection.execute(
                "UPDATE publication SET state = 'replaced', ended_at = %s WHERE id = %s", (since, other["id"])
            )
            return times, State.CURRENT
        return replace(times, ended=other["confirmed_at"]), State.REPLACED

    async def _tell_of_two(self, version: CheckedVersion) -> None:
        """This box published a KOS of the study itself: the DMP may hold two."""
        self._warnings.append("other-current")
        await self._incidents.open(
            self._connection,
            structure=self._target.id,
            study_uid=version.study_uid,
            code="archive-other-current",
            reason="La passerelle et l'archive importée ont chacune un KOS courant de l'examen : vérifiez au DMP qu'il "
            "n'y en a qu'un",
            severity="warning",
        )

    async def _stand(self, version: CheckedVersion) -> None:
        """The reports that stand on the study, as its newest version says; messages of this box's own know better."""
        if version.standing is None and version.state is not State.DEPUBLISHED:
            return
        await self._connection.execute(
            "INSERT INTO reported_study (structure, study_uid, documents) "
            "SELECT p.structure, p.study_uid, %(documents)s::text[] FROM publication p WHERE p.kos_uid = %(kos)s "
            "AND NOT EXISTS (SELECT 1 FROM publication newer WHERE newer.structure = p.structure "
            "AND newer.study_uid = p.study_uid AND newer.prepared_at > p.prepared_at) "
            "ON CONFLICT (structure, study_uid) DO UPDATE SET documents = EXCLUDED.documents "
            "WHERE reported_study.last_report_id IS NULL",
            {"documents": list(version.standing or ()), "kos": version.kos_uid},
        )

    async def _predecessor(self, version: CheckedVersion) -> int | None:
        """The version that this one replaced, when it is in the archive."""
        row = await self._one(
            "SELECT id FROM publication WHERE structure = %s AND study_uid = %s "
            "AND (kos_uid = %s OR entry_uuid = %s) ORDER BY id DESC LIMIT 1",
            (self._target.id, version.study_uid, version.notes.replaces, version.replaces_entry or None),
        )
        return int(row["id"]) if row else None

    def _times(self, version: CheckedVersion) -> Times:
        at = self._checked.at
        return version.notes.times or Times(at, at, at, None)

    def _identity(self, version: CheckedVersion, at: dt.datetime) -> Mapping[str, object]:
        target = self._target
        told = identity.from_notes(version.notes.identity)
        if told is not None:
            return identity.acting_for(told, target.structure, target.sector)
        made = identity.rebuilt(
            version.entry, self._checked.submission_set, self._checked.assertion, target.structure, target.sector, at
        )
        if not made.whole:
            self._warnings.append("identity")
        return made.identity

    async def _one(self, query: Any, values: Sequence[object]) -> dict[str, Any] | None:
        return await (await self._connection.execute(query, values)).fetchone()


_INSERT = """
INSERT INTO publication (structure, study_uid, kos_uid, state, kos, metadata, signature, submission_uid, entry_uuid,
    replaces, document_ids, pacs, ins, ins_oid, vihf_identity, visibility, fingerprint,
    prepared_at, sent_at, confirmed_at, ended_at)
VALUES (%(structure)s, %(study_uid)s, %(kos_uid)s, %(state)s, %(kos)s, %(metadata)s, %(signature)s, %(submission_uid)s,
    %(entry_uuid)s, %(replaces)s, %(document_ids)s, %(pacs)s, %(ins)s, %(ins_oid)s, %(vihf_identity)s, %(visibility)s,
    %(fingerprint)s, %(prepared_at)s, %(sent_at)s, %(confirmed_at)s, %(ended_at)s)
"""
