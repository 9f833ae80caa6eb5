"""Each version of each KOS: what was sent, and what became of it (DB.SO.22).

Nothing that reached the DMP is ever erased. The methods that end something run in the caller's transaction, so that a
change, its line in the journal and its line in the operator's queue are one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, LiteralString

from psycopg.types.json import Jsonb

from drimbox.identity.ins import Ins
from drimbox.publication.kos import ArchivedKos, History, State
from drimbox.publication.ports import Submission
from drimbox.reports.report import Visibility
from drimbox.store.database import Connection, Pool

__all__ = ["Archive", "ArchivedKos", "History", "NewVersion", "State"]


@dataclass(frozen=True, slots=True, repr=False)
class NewVersion:
    """A version to store before it is sent."""

    structure: str
    study_uid: str
    kos_uid: str
    kos: bytes
    submission: Submission
    replaces: int | None
    report_id: int
    document_ids: tuple[str, ...]
    pacs: str
    ins: Ins
    visibility: Visibility
    fingerprint: str


class Archive:
    """The table ``publication``, and ``reported_study`` beside it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One transaction, committed at the end."""
        async with self._pool.connection() as connection, connection.transaction():
            yield connection

    # --- reading ---

    async def current(self, study_uid: str, structure: str | None = None) -> ArchivedKos | None:
        """The version that stands in the DMP; of several structures, the one confirmed last."""
        return await self._one(
            "SELECT * FROM publication WHERE study_uid = %(study)s AND state = 'current' "
            "AND (%(structure)s::text IS NULL OR structure = %(structure)s) "
            "ORDER BY confirmed_at DESC, id DESC LIMIT 1",
            {"study": study_uid, "structure": structure},
        )

    async def by_kos_uid(self, kos_uid: str) -> ArchivedKos | None:
        """The version of that KOS, in any state."""
        return await self._one("SELECT * FROM publication WHERE kos_uid = %(kos)s", {"kos": kos_uid})

    async def pending(self, structure: str, study_uid: str) -> ArchivedKos | None:
        """The version that was prepared and whose end is not known."""
        return await self._one(
            "SELECT * FROM publication "
            "WHERE structure = %(structure)s AND study_uid = %(study)s AND state = 'prepared'",
            {"structure": structure, "study": study_uid},
        )

    async def versions(self, structure: str, study_uid: str) -> tuple[ArchivedKos, ...]:
        """All versions, oldest first."""
        return await self._all(
            "SELECT * FROM publication WHERE structure = %(structure)s AND study_uid = %(study)s ORDER BY id",
            {"structure": structure, "study": study_uid},
        )

    async def history(self, structure: str, study_uid: str) -> History:
        """What the messages said of the study so far."""
        async with self._pool.connection() as connection:
            row = await (
                await connection.execute(
                    "SELECT last_report_id, documents FROM reported_study WHERE structure = %s AND study_uid = %s",
                    (structure, study_uid),
                )
            ).fetchone()
        return History(row["last_report_id"] or 0, tuple(row["documents"])) if row else History()

    # --- writing ---

    async def prepare(self, transaction: Connection, version: NewVersion, now: dt.datetime) -> int:
        """Store a version before it is sent; returns its id. There must be no other one pending."""
        row = await (
            await transaction.execute(
                _INSERT,
                {
                    "structure": version.structure,
                    "study_uid": version.study_uid,
                    "kos_uid": version.kos_uid,
                    "kos": version.kos,
                    "metadata": version.submission.metadata,
                    "signature": version.submission.signature,
                    "submission_uid": version.submission.submission_uid,
                    "replaces": version.replaces,
                    "report_id": version.report_id,
                    "document_ids": list(version.document_ids),
                    "pacs": version.pacs,
                    "ins": version.ins.matricule,
                    "ins_oid": version.ins.oid,
                    "vihf_identity": Jsonb(dict(version.submission.identity)),
                    "visibility": Jsonb(asdict(version.visibility)),
                    "fingerprint": version.fingerprint,
                    "prepared_at": now,
                },
            )
        ).fetchone()
        assert row is not None
        return int(row["id"])

    async def discard_unsent(self, structure: str, study_uid: str) -> None:
        """Forget a version that certainly was not sent: it is made again from what holds now."""
        async with self.transaction() as transaction:
            await transaction.execute(
                "DELETE FROM publication "
                "WHERE structure = %s AND study_uid = %s AND state = 'prepared' AND sent_at IS NULL",
                (structure, study_uid),
            )

    async def sending(self, version_id: int, now: dt.datetime) -> None:
        """From now on the version may be in the DMP. Committed at once, before the first byte leaves."""
        async with self.transaction() as transaction:
            await transaction.execute("UPDATE publication SET sent_at = %s WHERE id = %s", (now, version_id))

    async def not_sent(self, version_id: int) -> None:
        """The version certainly did not reach the DMP."""
        async with self.transaction() as transaction:
            await transaction.execute(
                "UPDATE publication SET sent_at = NULL WHERE id = %s AND state = 'prepared'", (version_id,)
            )

    async def confirm(self, transaction: Connection, version_id: int, now: dt.datetime) -> None:
        """The version is in the DMP: it is the current one, and the one that was is replaced."""
        await transaction.execute(
            "UPDATE publication old SET state = 'replaced', ended_at = %s FROM publication new WHERE new.id = %s "
            "AND old.structure = new.structure AND old.study_uid = new.study_uid AND old.state = 'current'",
            (now, version_id),
        )
        await transaction.execute(
            "UPDATE publication SET state = 'current', confirmed_at = %s WHERE id = %s AND state = 'prepared'",
            (now, version_id),
        )

    async def set_entry_uuid(self, version_id: int, entry_uuid: str) -> None:
        """The entryUUID that the DMP gave to the version."""
        async with self.transaction() as transaction:
            await transaction.execute("UPDATE publication SET entry_uuid = %s WHERE id = %s", (entry_uuid, version_id))

    async def end(self, transaction: Connection, version_id: int, state: State, now: dt.datetime) -> None:
        """The version is out of the DMP (``DEPUBLISHED``), or was refused by it (``ABANDONED``)."""
        await transaction.execute(
            "UPDATE publication SET state = %s, ended_at = %s WHERE id = %s", (state.value, now, version_id)
        )

    async def note(
        self,
        transaction: Connection,
        structure: str,
        study_uid: str,
        report_id: int,
        documents: Sequence[str],
        document_id: str,
    ) -> None:
        """A report was taken into account: ``documents`` stand now, ``document_id`` is behind the current KOS too."""
        await transaction.execute(
            "INSERT INTO reported_study (structure, study_uid, last_report_id, documents) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (structure, study_uid) DO UPDATE "
            "SET last_report_id = greatest(reported_study.last_report_id, EXCLUDED.last_report_id), "
            "documents = EXCLUDED.documents",
            (structure, study_uid, report_id, list(documents)),
        )
        if document_id in documents:
            await transaction.execute(
                "UPDATE publication SET document_ids = document_ids || %(document)s::text "
                "WHERE structure = %(structure)s AND study_uid = %(study)s AND state = 'current' "
                "AND NOT document_ids @> ARRAY[%(document)s::text]",
                {"document": document_id, "structure": structure, "study": study_uid},
            )

    async def left_out(
        self, transaction: Connection, structure: str, document_id: str, named: Sequence[str]
    ) -> tuple[str, ...]:
        """The studies that a report still stands on, though its replacement no longer names them."""
        rows = await (
            await transaction.execute(
                "SELECT study_uid FROM reported_study WHERE structure = %s AND documents @> ARRAY[%s::text] "
                "AND NOT study_uid = ANY (%s) ORDER BY study_uid",
                (structure, document_id, list(named)),
            )
        ).fetchall()
        return tuple(row["study_uid"] for row in rows)

    # --- rows ---

    async def _one(self, query: LiteralString, values: dict[str, object]) -> ArchivedKos | None:
        return next(iter(await self._all(query, values)), None)

    async def _all(self, query: LiteralString, values: dict[str, object]) -> tuple[ArchivedKos, ...]:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, values)
            return tuple(map(_version, await cursor.fetchall()))


_INSERT = (
    "INSERT INTO publication (state, structure, study_uid, kos_uid, kos, metadata, signature, submission_uid, "
    "replaces, report_id, document_ids, pacs, ins, ins_oid, vihf_identity, visibility, fingerprint, prepared_at) "
    "VALUES ('prepared', %(structure)s, %(study_uid)s, %(kos_uid)s, %(kos)s, %(metadata)s, %(signature)s, "
    "%(submission_uid)s, %(replaces)s, %(report_id)s, %(document_ids)s, %(pacs)s, %(ins)s, %(ins_oid)s, "
    "%(vihf_identity)s, %(visibility)s, %(fingerprint)s, %(prepared_at)s) RETURNING id"
)


def _version(row: dict[str, Any]) -> ArchivedKos:
    values = dict(row)
    ins = Ins.of(values.pop("ins"), values.pop("ins_oid"))
    for name in ("kos", "metadata", "signature"):
        values[name] = bytes(values[name])
    values["document_ids"] = tuple(values["document_ids"])
    values["visibility"] = Visibility(**values["visibility"])
    return ArchivedKos(ins=ins, **values)
