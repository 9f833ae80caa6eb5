"""Each version of each KOS: what was sent, and what became of it (DB.SO.22).

Nothing that reached the DMP is ever erased. The methods that end something run in the caller's transaction, so that a
change, its line in the journal and its line in the operator's queue are one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, LiteralString

from psycopg.types.json import Jsonb

from drimbox.identity.ins import Ins
from drimbox.publication.kos import ArchivedKos, History, State
from drimbox.publication.ports import Submission
from drimbox.reports.report import Visibility
from drimbox.store.database import Connection, Pool, single

__all__ = ["Archive", "ArchivedKos", "History", "NewVersion", "State", "publishers"]


@dataclass(frozen=True, slots=True, repr=False)
class NewVersion:
    """A version to store before it is sent."""

    structure: str
    study_uid: str
    kos_uid: str
    kos: bytes
    submission: Submission
    replaces: int | None
    report_id: int | None
    document_ids: tuple[str, ...]
    pacs: str
    ins: Ins
    visibility: Visibility
    fingerprint: str
    cause: str = ""


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

    async def history(self, structure: str, study_uid: str, taken_away: str | None = None) -> History:
        """What the messages said of the study so far; ``taken_away`` is the document that the one in hand ends."""
        async with single(self._pool) as connection:
            row = await (
                await connection.execute(
                    "SELECT last_report_id, documents, reports FROM reported_study "
                    "WHERE structure = %s AND study_uid = %s",
                    (structure, study_uid),
                )
            ).fetchone()
            before = await self.before(connection, structure, taken_away) if taken_away else frozenset()
            gone = {taken_away, *before} if taken_away else set()
            received = bool(gone) and await self._received(connection, structure, study_uid, gone)
        if row is None:
            return History(before=before, received=received)
        return History(row["last_report_id"] or 0, tuple(row["documents"]), row["reports"], before, received)

    async def _received(
        self, connection: Connection, structure: str, study_uid: str, documents: Collection[str]
    ) -> bool:
        """Did a message of the structure bring one of these documents on this study?"""
        found = await connection.execute(
            "SELECT 1 FROM report WHERE document_id = ANY (%(documents)s::text[]) AND structure = %(structure)s "
            "AND operation <> 'delete' AND studies @> ARRAY[%(study)s::text] LIMIT 1",
            {"documents": list(documents), "structure": structure, "study": study_uid},
        )
        return await found.fetchone() is not None

    async def before(self, connection: Connection, structure: str, document: str) -> frozenset[str]:
        """The documents in whose place a document came, step by step, by the messages of one structure."""
        rows = await (
            await connection.execute(
                "WITH RECURSIVE before (document) AS (SELECT %(document)s::text UNION SELECT r.replaces FROM before "
                "JOIN report r ON r.document_id = before.document AND r.structure = %(structure)s "
                "WHERE r.replaces <> '') SELECT document FROM before WHERE document <> %(document)s",
                {"document": document, "structure": structure},
            )
        ).fetchall()
        return frozenset(row["document"] for row in rows)

    async def published_last(self, structure: str, study_uid: str) -> ArchivedKos | None:
        """The version that was in the DMP last, whether it still is or not."""
        return await self._one(
            "SELECT * FROM publication WHERE structure = %(structure)s AND study_uid = %(study)s "
            "AND state IN ('current', 'replaced', 'depublished') "
            "ORDER BY state = 'current' DESC, ended_at DESC NULLS LAST, id DESC LIMIT 1",
            {"structure": structure, "study": study_uid},
        )

    async def publishers(self, study_uid: str) -> tuple[str, ...]:
        """The structures for which there is something to look after, as ``publishers``."""
        async with self._pool.connection() as connection:
            return await publishers(connection, study_uid)

    # --- writing ---

    async def to_send(self, version: NewVersion, now: dt.datetime) -> int:
        """Store a version that is sent at once: ``prepare`` and ``sending`` in one commit; returns its id."""
        async with single(self._pool) as connection:
            return await self.prepare(connection, version, now, sent_at=now)

    async def prepare(
        self, transaction: Connection, version: NewVersion, now: dt.datetime, *, sent_at: dt.datetime | None = None
    ) -> int:
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
                    "cause": version.cause,
                    "prepared_at": now,
                    "sent_at": sent_at,
                },
            )
        ).fetchone()
        assert row is not None
        return int(row["id"])

    async def discard_unsent(self, structure: str, study_uid: str) -> None:
        """Forget a version that certainly was not sent: it is made again from what holds now."""
        async with single(self._pool) as connection:
            await connection.execute(
                "DELETE FROM publication "
                "WHERE structure = %s AND study_uid = %s AND state = 'prepared' AND sent_at IS NULL",
                (structure, study_uid),
            )

    async def sending(self, version_id: int, now: dt.datetime) -> None:
        """From now on the version may be in the DMP. Committed at once, before the first byte leaves."""
        async with single(self._pool) as connection:
            await connection.execute("UPDATE publication SET sent_at = %s WHERE id = %s", (now, version_id))

    async def not_sent(self, version_id: int) -> None:
        """The version certainly did not reach the DMP."""
        async with single(self._pool) as connection:
            await connection.execute(
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
        async with single(self._pool) as connection:
            await connection.execute("UPDATE publication SET entry_uuid = %s WHERE id = %s", (entry_uuid, version_id))

    async def end(
        self,
        transaction: Connection,
        version_id: int,
        state: State,
        now: dt.datetime,
        *,
        seen: Visibility | None = None,
    ) -> None:
        """The version is out of the DMP (``DEPUBLISHED``), or was refused by it (``ABANDONED``).

        ``seen`` is the visibility that it had there at the end, where the DMP told: one that somebody chose by hand is
        kept for the day when the study comes back (decision 6).
        """
        await transaction.execute(
            "UPDATE publication SET state = %s, ended_at = %s, "
            "visibility = visibility || coalesce(%s::jsonb, '{}'::jsonb) WHERE id = %s",
            (state.value, now, Jsonb(_shown(seen)) if seen else None, version_id),
        )

    async def note(
        self,
        transaction: Connection,
        structure: str,
        study_uid: str,
        report_id: int,
        documents: Sequence[str],
        document_id: str,
        *,
        gone: Iterable[str] = (),
    ) -> None:
        """A report was taken into account: ``documents`` stand now, ``document_id`` is behind the current KOS too.

        It spoke of its own document and of those that are ``gone`` by it. A report that stands says that there is a
        study: that ends a deletion declared before it came (OMI^O23), not one declared since.
        """
        stands = document_id in documents
        spoken = dict.fromkeys((document_id, *gone), report_id)
        await transaction.execute(
            "INSERT INTO reported_study (structure, study_uid, last_report_id, documents, reports) "
            "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (structure, study_uid) DO UPDATE "
            "SET last_report_id = greatest(reported_study.last_report_id, EXCLUDED.last_report_id), "
            "documents = EXCLUDED.documents, reports = reported_study.reports || (SELECT jsonb_object_agg(key, "
            "greatest(value::bigint, (reported_study.reports ->> key)::bigint)) "
            "FROM jsonb_each_text(EXCLUDED.reports))",
            (structure, study_uid, report_id, list(documents), Jsonb(spoken)),
        )
        if stands:
            await transaction.execute(
                "DELETE FROM withdrawn_study w USING report r WHERE w.study_uid = %s AND r.id = %s "
                "AND coalesce(w.message_id < r.message_id, w.withdrawn_at < r.received_at)",
                (study_uid, report_id),
            )
            await transaction.execute(
                "UPDATE publication SET document_ids = document_ids || %(document)s::text "
                "WHERE structure = %(structure)s AND study_uid = %(study)s AND state = 'current' "
                "AND NOT document_ids @> ARRAY[%(document)s::text]",
                {"document": document_id, "structure": structure, "study": study_uid},
            )

    async def left_out(
        self, transaction: Connection, structure: str, gone: Collection[str], named: Sequence[str]
    ) -> tuple[str, ...]:
        """The studies that reports which are ``gone`` stand on, or named, though their replacement names them no more.

        A report that named a study may not have been carried through on it yet: it must not be, after this.
        """
        rows = await (
            await transaction.execute(
                "SELECT study_uid FROM reported_study WHERE structure = %(structure)s AND documents && %(gone)s "
                "AND NOT study_uid = ANY (%(named)s) UNION SELECT study_uid FROM report, unnest(studies) AS study_uid "
                "WHERE structure = %(structure)s AND document_id = ANY (%(gone)s) AND operation <> 'delete' "
                "AND NOT study_uid = ANY (%(named)s) ORDER BY study_uid",
                {"structure": structure, "gone": list(gone), "named": list(named)},
            )
        ).fetchall()
        return tuple(row["study_uid"] for row in rows)

    # --- rows ---

    async def _one(self, query: LiteralString, values: dict[str, object]) -> ArchivedKos | None:
        return next(iter(await self._all(query, values)), None)

    async def _all(self, query: LiteralString, values: dict[str, object]) -> tuple[ArchivedKos, ...]:
        async with single(self._pool) as connection:
            # As octets, not as their hexadecimal text: the KOS of a large study weighs megabytes.
            cursor = await connection.execute(query, values, binary=True)
            return tuple(map(_version, await cursor.fetchall()))


async def publishers(connection: Connection, study_uid: str) -> tuple[str, ...]:
    """The structures for which there is something to look after on a study.

    That is: a version in the DMP or on its way to it, reports that stand, or reports that could not be carried through.
    """
    rows = await (
        await connection.execute(
            "SELECT structure FROM publication WHERE study_uid = %(study)s AND state IN ('current', 'prepared') UNION "
            "SELECT structure FROM reported_study WHERE study_uid = %(study)s AND documents <> '{}' UNION "
            "SELECT structure FROM incident WHERE study_uid = %(study)s AND closed_at IS NULL AND structure <> '' "
            "AND severity = 'error' AND report_id IS NOT NULL ORDER BY structure",
            {"study": study_uid},
        )
    ).fetchall()
    return tuple(row["structure"] for row in rows)


_INSERT = (
    "INSERT INTO publication (state, structure, study_uid, kos_uid, kos, metadata, signature, submission_uid, "
    "replaces, report_id, document_ids, pacs, ins, ins_oid, vihf_identity, visibility, fingerprint, cause, "
    "prepared_at, sent_at) VALUES ('prepared', %(structure)s, %(study_uid)s, %(kos_uid)s, %(kos)s, %(metadata)s, "
    "%(signature)s, %(submission_uid)s, %(replaces)s, %(report_id)s, %(document_ids)s, %(pacs)s, %(ins)s, %(ins_oid)s, "
    "%(vihf_identity)s, %(visibility)s, %(fingerprint)s, %(cause)s, %(prepared_at)s, %(sent_at)s) RETURNING id"
)


def _shown(visibility: Visibility) -> dict[str, object]:
    """What the DMP tells of a visibility; the secret connection is not in it."""
    return {name: value for name, value in asdict(visibility).items() if name != "secret_connection"}


def _version(row: dict[str, Any]) -> ArchivedKos:
    values = dict(row)
    ins = Ins.of(values.pop("ins"), values.pop("ins_oid"))
    for name in ("kos", "metadata", "signature"):
        values[name] = bytes(values[name])
    values["document_ids"] = tuple(values["document_ids"])
    values["visibility"] = Visibility(**values["visibility"])
    return ArchivedKos(ins=ins, **values)
