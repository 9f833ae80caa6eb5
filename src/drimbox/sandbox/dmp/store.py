"""What this DMP holds, in one SQLite file of its state folder: it survives restarts."""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drimbox.sandbox.dmp import vocabulary as v

_TABLES = """
CREATE TABLE IF NOT EXISTS entry (
    uuid TEXT PRIMARY KEY, logical_id TEXT NOT NULL, version INTEGER NOT NULL, status TEXT NOT NULL,
    unique_id TEXT NOT NULL UNIQUE, patient TEXT NOT NULL, structures TEXT NOT NULL, masked INTEGER NOT NULL,
    hash TEXT NOT NULL, mime TEXT NOT NULL, metadata BLOB NOT NULL, content BLOB NOT NULL,
    submission TEXT NOT NULL, registered TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS submission (
    uuid TEXT PRIMARY KEY, unique_id TEXT NOT NULL UNIQUE, patient TEXT NOT NULL, kind TEXT NOT NULL,
    metadata BLOB NOT NULL, registered TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS association (
    uuid TEXT PRIMARY KEY, kind TEXT NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL, metadata BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS seen (kind TEXT NOT NULL, id TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (kind, id));
CREATE TABLE IF NOT EXISTS authorisation (
    patient TEXT NOT NULL, professional TEXT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (patient, professional));
CREATE TABLE IF NOT EXISTS log (
    number INTEGER PRIMARY KEY, at TEXT NOT NULL, service TEXT NOT NULL, transaction_name TEXT NOT NULL,
    verdict TEXT NOT NULL, rule TEXT NOT NULL, code TEXT NOT NULL, detail TEXT NOT NULL, unit TEXT NOT NULL,
    message_id TEXT NOT NULL);
"""

_ENTRY = (
    "uuid, logical_id, version, status, unique_id, patient, structures, masked, hash, mime, metadata, submission, "
    "registered"
)
# A message or an assertion this old is refused for its age, so its identifier need not be remembered.
_REMEMBER = dt.timedelta(days=2)


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A document entry as registered; ``metadata`` is its ExtrinsicObject without status."""

    uuid: str
    logical_id: str
    version: int
    status: str
    unique_id: str
    patient: str
    structures: tuple[str, ...]
    masked: bool
    hash: str
    mime: str
    metadata: bytes
    submission: str
    registered: str

    def __repr__(self) -> str:
        return f"StoredEntry({self.uuid}, {self.status})"


@dataclass(frozen=True, slots=True)
class StoredSubmission:
    """A submission set as registered; ``kind`` is ``provide``, ``update`` or ``preload``."""

    uuid: str
    unique_id: str
    patient: str
    kind: str
    metadata: bytes
    registered: str

    def __repr__(self) -> str:
        return f"StoredSubmission({self.uuid}, {self.kind})"


@dataclass(frozen=True, slots=True)
class StoredAssociation:
    """An association as registered."""

    uuid: str
    kind: str
    source: str
    target: str
    metadata: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the journal: a request and what became of it. No health data."""

    at: str
    service: str
    transaction: str
    verdict: str
    rule: str = ""
    code: str = ""
    detail: str = ""
    unit: str = ""
    message_id: str = ""


class Store:
    """The registry and the repository. Every method is one transaction, safe between threads."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._base = sqlite3.connect(folder / "dmp.sqlite", check_same_thread=False, isolation_level=None)
        self._base.execute("PRAGMA journal_mode=WAL")
        # Safe against the death of the process; a sandbox need not outlive a power cut.
        self._base.execute("PRAGMA synchronous=NORMAL")
        self._base.executescript(f"BEGIN; {_TABLES} COMMIT;")

    def close(self) -> None:
        with self._lock:
            self._base.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block, or nothing of it."""
        with self._lock:
            if self._base.in_transaction:
                yield self._base
                return
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield self._base
            except BaseException:
                self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")

    def first_sight(self, kind: str, identifier: str, now: dt.datetime) -> bool:
        """Remember an identifier; False when it has been seen before."""
        with self.transaction() as base:
            base.execute("DELETE FROM seen WHERE at < ?", ((now - _REMEMBER).isoformat(),))
            added = base.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (kind, identifier, now.isoformat()))
            return added.rowcount == 1

    def register(
        self,
        submission: StoredSubmission,
        entries: Sequence[tuple[StoredEntry, bytes]],
        associations: Sequence[StoredAssociation],
        statuses: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Add a submission set with its entries, octets and associations, and set ``(uuid, status)`` of others."""
        with self.transaction() as base:
            s = submission
            base.execute(
                "INSERT INTO submission VALUES (?, ?, ?, ?, ?, ?)",
                (s.uuid, s.unique_id, s.patient, s.kind, s.metadata, s.registered),
            )
            for e, content in entries:
                base.execute(
                    f"INSERT INTO entry ({_ENTRY}, content) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (e.uuid, e.logical_id, e.version, e.status, e.unique_id, e.patient, "|".join(e.structures),
                     e.masked, e.hash, e.mime, e.metadata, e.submission, e.registered, content),
                )  # fmt: skip
            for a in associations:
                base.execute(
                    "INSERT INTO association VALUES (?, ?, ?, ?, ?)", (a.uuid, a.kind, a.source, a.target, a.metadata)
                )
            for uuid, status in statuses:
                base.execute("UPDATE entry SET status = ? WHERE uuid = ?", (status, uuid))

    def entries(self, patient: str | None = None) -> list[StoredEntry]:
        """All entries, of one patient or of all, oldest first."""
        where, values = ("WHERE patient = ?", (patient,)) if patient is not None else ("", ())
        return self._entries(where, values)

    def entries_that_say(self, text: str) -> list[StoredEntry]:
        """Entries whose metadata have these words somewhere, oldest first."""
        return self._entries("WHERE instr(metadata, CAST(? AS BLOB)) > 0", (text,))

    def entry(self, *, uuid: str = "", unique_id: str = "") -> StoredEntry | None:
        found = self._entries("WHERE uuid = ? OR unique_id = ?", (uuid, unique_id))
        return found[0] if found else None

    def content(self, unique_id: str) -> bytes | None:
        with self.transaction() as base:
            row = base.execute("SELECT content FROM entry WHERE unique_id = ?", (unique_id,)).fetchone()
        return bytes(row[0]) if row else None

    def has_submission(self, unique_id: str) -> bool:
        with self.transaction() as base:
            return base.execute("SELECT 1 FROM submission WHERE unique_id = ?", (unique_id,)).fetchone() is not None

    def submissions(self, patient: str | None = None) -> list[StoredSubmission]:
        where, values = ("WHERE patient = ?", (patient,)) if patient is not None else ("", ())
        with self.transaction() as base:
            rows = base.execute(f"SELECT * FROM submission {where} ORDER BY rowid", values).fetchall()
        return [StoredSubmission(*row) for row in rows]

    def associations(self, touching: Sequence[str] | None = None) -> list[StoredAssociation]:
        """Associations whose source or target is one of ``touching``; all for None."""
        with self.transaction() as base:
            rows = base.execute("SELECT * FROM association ORDER BY rowid").fetchall()
        every = [StoredAssociation(*row) for row in rows]
        return [a for a in every if touching is None or a.source in touching or a.target in touching]

    def authorisation(self, patient: str, professional: str) -> str | None:
        with self.transaction() as base:
            row = base.execute(
                "SELECT state FROM authorisation WHERE patient = ? AND professional = ?", (patient, professional)
            ).fetchone()
        return str(row[0]) if row else None

    def set_authorisation(self, patient: str, professional: str, state: str) -> None:
        with self.transaction() as base:
            base.execute("INSERT OR REPLACE INTO authorisation VALUES (?, ?, ?)", (patient, professional, state))

    def write(self, verdict: Verdict) -> None:
        with self.transaction() as base:
            w = verdict
            base.execute(
                "INSERT INTO log VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (w.at, w.service, w.transaction, w.verdict, w.rule, w.code, w.detail, w.unit, w.message_id),
            )

    def verdicts(self) -> list[Verdict]:
        with self.transaction() as base:
            rows = base.execute("SELECT * FROM log ORDER BY number").fetchall()
        return [Verdict(*row[1:]) for row in rows]

    def _entries(self, where: str, values: tuple[str, ...]) -> list[StoredEntry]:
        with self.transaction() as base:
            rows = base.execute(f"SELECT {_ENTRY} FROM entry {where} ORDER BY rowid", values).fetchall()
        return [_stored_entry(*row) for row in rows]


def _stored_entry(
    uuid: str, logical_id: str, version: int, status: str, unique_id: str, patient: str, structures: str, masked: int,
    digest: str, mime: str, metadata: bytes, submission: str, registered: str,
) -> StoredEntry:  # fmt: skip
    told = tuple(structures.split("|"))
    return StoredEntry(
        uuid, logical_id, version, status, unique_id, patient, told, bool(masked), digest, mime, metadata, submission,
        registered,
    )  # fmt: skip


def is_current(entry: StoredEntry) -> bool:
    """Is this entry Approved or Archived: neither replaced nor deleted?"""
    return entry.status in (v.APPROVED, v.ARCHIVED)
