"""A site to publish from: stored messages, PACSs that can be down, and a DMP that behaves like a registry."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from drimbox.changes.decide import Change
from drimbox.changes.orders import take_order
from drimbox.changes.store import Kept, keep
from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import DrimboxError, OutcomeUnknown, Rejected, Unavailable
from drimbox.identity.ins import Ins
from drimbox.manifest.read import Manifest, read_manifest
from drimbox.pacs.study import Instance, Series, Study
from drimbox.portability.recollect import recollect
from drimbox.publication.archive import Archive
from drimbox.publication.changed import ChangedStudies
from drimbox.publication.incidents import Incident, Incidents
from drimbox.publication.kos import ArchivedKos
from drimbox.publication.ledger import PUBLISH_STUDY, Ledger, study_lock
from drimbox.publication.ports import (
    AlreadyRegistered,
    Draft,
    Entry,
    Identity,
    Received,
    Site,
    SitePacs,
    Sites,
    Submission,
)
from drimbox.publication.publish import Outcome, publish_study
from drimbox.publication.resync import resync_study
from drimbox.publication.services import Rules, Services
from drimbox.publication.triggers import Cause
from drimbox.record.audit import Actor as AuditActor
from drimbox.record.audit import Journal, Recorded, Search
from drimbox.record.pseudonym import PatientKey
from drimbox.reports import hl7
from drimbox.reports.intake import StoredReports
from drimbox.reports.orders import StoredOrders, read_order
from drimbox.reports.reading import read_report
from drimbox.reports.report import Report, Structure, Visibility
from drimbox.sandbox.ris import exams, letters
from drimbox.sandbox.ris.letters import Letter
from drimbox.sandbox.ris.orders import OrderLetter, omi
from drimbox.store import jobs
from drimbox.store.database import Pool

NOW = dt.datetime(2026, 7, 14, 9, 30, 12, tzinfo=dt.UTC)
BASE = "https://db1.test.mesimagesmedicales.fr/dicom-web-rs"
AMBROISE = Structure("1750803447", "Centre de radiologie Ambroise")
STUDY = "1.2.250.1.213.4.5.2.1.105"
CT = "1.2.840.10008.5.1.4.1.1.2"


def letter_of(letter: str = "E", control_id: str = "M1", **changes: object) -> Letter:
    """A letter of an official exam, with some fields changed."""
    return replace(Letter(exams.exam(letter), control_id), **changes)  # type: ignore[arg-type]


def read(letter: Letter) -> Report:
    return read_report(hl7.parse(letters.oru(letter, NOW)))


def report_of(letter: str = "E", **changes: object) -> Report:
    return replace(read(letter_of(letter)), **changes)  # type: ignore[arg-type]


def study_of(number: int = 105, images: int = 3, **changes: object) -> Study:
    """The study of an official exam as the PACS of the site tells it."""
    root = "1.2.250.1.213.4.5.2"
    instances = tuple(Instance(CT, f"{root}.3.{number}.201.3{i}", i + 1) for i in range(images))
    study = Study(
        study_uid=f"{root}.1.{number}",
        patient_id="IPP101",
        patient_id_issuer="1.2.250.1.213.4.5.2.4",
        patient_name="PAT-TROIS^DOMINIQUE",
        birth_date="19790328",
        sex="F",
        accession_number=f"ACN{number}",
        accession_issuer="1.2.250.1.925.994044.27",
        study_id=f"EX{number}",
        study_date="20210108",
        study_time="102500",
        description="Tête",
        referring_physician="",
        series=(Series(f"{root}.2.{number}.201", "CT", 1, "Axial", "HEAD", instances),) if images else (),
    )
    return replace(study, **changes)  # type: ignore[arg-type]


@dataclass
class FakePacs:
    """Holds studies; ``error`` is what it answers instead, ``asked`` how often it was asked."""

    studies: dict[str, Study] = field(default_factory=dict)
    error: DrimboxError | None = None
    asked: int = 0
    before: Callable[[], object] | None = None

    def hold(self, *studies: Study) -> None:
        self.studies |= {study.study_uid: study for study in studies}

    async def find(self, study_uid: str) -> Study | None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.studies.get(study_uid)


@dataclass
class Held:
    """A document of the fake DMP."""

    entry_uuid: str
    ins: Ins
    kos: bytes
    visibility: Visibility
    status: str = "Approved"

    @property
    def manifest(self) -> Manifest:
        return read_manifest(self.kos)


@dataclass
class FakeDmp:
    """A registry: unique ids, replacement of what stands only, patients apart.

    ``faults`` are taken one by each call of ``provide`` or ``delete``: an error is raised before anything is done;
    ``"cut"`` does it, then loses the answer; ``"partial"`` takes the signature and not the KOS. ``down`` fails all.
    """

    documents: dict[str, Held] = field(default_factory=dict)
    faults: list[DrimboxError | str | None] = field(default_factory=list)
    down: DrimboxError | None = None
    tells_visibility: bool = True
    provided: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    identities: list[Identity] = field(default_factory=list)
    delay: float = 0
    running: int = 0
    most_running: int = 0

    def identity(self, site: Site, report: Report, now: dt.datetime) -> Identity:
        return {"subject": report.signatory.identifier, "structure": site.structure.identifier}

    def identity_again(self, site: Site, archived: Identity) -> Identity:
        return {**archived, "structure": site.in_vihf.identifier}

    def prepare(self, draft: Draft, identity: Identity, replaces: str | None) -> Submission:
        metadata = {
            "unique_id": draft.kos_uid,
            "ins": draft.report.patient.ins.matricule,
            "oid": draft.report.patient.ins.oid,
            "replaces": replaces,
            "visibility": [
                draft.report.visibility.masked_to_professionals,
                draft.report.visibility.hidden_from_patient,
                draft.report.visibility.hidden_from_representatives,
            ],
        }
        return Submission(f"{draft.kos_uid}.1", json.dumps(metadata).encode(), b"<Signature/>", identity)

    async def provide(self, site: Site, ins: Ins, kos: bytes, submission: Submission) -> Received:
        await self._reached(submission.identity)
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, DrimboxError):
            raise fault
        metadata = json.loads(submission.metadata)
        self.provided.append(metadata["unique_id"])
        assert Ins.of(metadata["ins"], metadata["oid"]) == ins
        if fault == "partial":
            return Received(True, ("XDSRepositoryMetadataError",))
        if metadata["unique_id"] in self.documents:
            raise AlreadyRegistered("déjà là", code="dmp-rejected", peer_code="XDSDuplicateUniqueIdInRegistry")
        old = self._by_uuid(metadata["replaces"])
        if metadata["replaces"] and (old is None or old.status != "Approved" or old.ins != ins):
            raise Rejected("remplacement refusé", code="dmp-rejected", peer_code="XDSReplaceFailed")
        if old is not None:
            old.status = "Deprecated"
        uuid = f"urn:uuid:{len(self.documents) + 1}"
        self.documents[metadata["unique_id"]] = Held(uuid, ins, kos, Visibility(*metadata["visibility"]))
        if fault == "cut":
            raise OutcomeUnknown("réponse perdue", code="dmp-cut")
        return Received()

    async def find(self, site: Site, ins: Ins, identity: Identity, kos_uid: str) -> Entry | None:
        await self._reached(identity)
        held = self.documents.get(kos_uid)
        return Entry(held.entry_uuid) if held and held.ins == ins else None

    async def inspect(self, site: Site, ins: Ins, identity: Identity, kos_uid: str) -> Entry | None:
        await self._reached(identity)
        held = self.documents.get(kos_uid)
        if held is None or held.ins != ins:
            return None
        visibility = held.visibility if self.tells_visibility else None
        return Entry(held.entry_uuid, held.status == "Approved", visibility=visibility)

    async def delete(self, site: Site, ins: Ins, identity: Identity, entry: Entry, report: Report) -> None:
        await self._reached(identity)
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, DrimboxError):
            raise fault
        held = self._by_uuid(entry.entry_uuid)
        assert held is not None
        assert held.ins == ins
        if held.status != "Approved":
            raise Rejected("statut", code="dmp-rejected", peer_code="XDSMetadataUpdateError")
        held.status = "Deleted"
        self.deleted.append(entry.entry_uuid)
        if fault == "cut":
            raise OutcomeUnknown("réponse perdue", code="dmp-cut")

    async def _reached(self, identity: Identity) -> None:
        self.identities.append(identity)
        if self.delay:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            await asyncio.sleep(self.delay)
            self.running -= 1
        if self.down is not None:
            raise self.down

    def _by_uuid(self, entry_uuid: str | None) -> Held | None:
        return next((d for d in self.documents.values() if d.entry_uuid == entry_uuid), None)

    def standing(self, study_uid: str) -> list[Held]:
        """What a reader of the DMP sees of a study."""
        return [d for d in self.documents.values() if d.status == "Approved" and d.manifest.study_uid == study_uid]


@dataclass
class World:
    """Everything together."""

    pool: Pool
    pacs: FakePacs
    vna: FakePacs
    dmp: FakeDmp
    archive: Archive
    incidents: Incidents
    journal: Journal
    services: Services
    clock: FixedClock

    async def receive(self, letter: Letter, *, deferred: bool = False) -> int:
        """Store a message as the intake does; the id of its report. Its jobs too when ``deferred``."""
        raw = letters.oru(letter, NOW)
        report = read_report(hl7.parse(raw))
        async with self.pool.connection() as connection, connection.transaction():
            message = await (
                await connection.execute(
                    "INSERT INTO message (sender, control_id, digest, raw, answer, accepted) "
                    "VALUES ('RIS', gen_random_uuid()::text, '', %s, '', true) RETURNING id",
                    (raw,),
                )
            ).fetchone()
            assert message is not None
            row = await (
                await connection.execute(
                    "INSERT INTO report (message_id, structure, document_id, operation, replaces, studies) "
                    "VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
                    (
                        message["id"],
                        "ambroise",
                        report.document_id,
                        report.operation.value,
                        report.replaces or "",
                        list(report.study_uids()),
                    ),
                )
            ).fetchone()
            assert row is not None
            for study_uid in report.study_uids() if deferred else ():
                await jobs.defer(
                    connection,
                    PUBLISH_STUDY,
                    args={"report_id": row["id"], "study_uid": study_uid},
                    lock=study_lock(study_uid),
                )
        return int(row["id"])

    async def run(self, letter: Letter) -> Outcome:
        """Receive a message about one study, and carry it through in one try."""
        report_id = await self.receive(letter)
        self.clock.advance(60)
        return await publish_study(self.services, report_id, letter.exam.studies[0])

    async def note(self, uid: str, title: str, *instances: str, study_uid: str = STUDY) -> None:
        """A Key Object Selection comes from the PACS: ``title`` says why, ``instances`` are what it rejects."""
        change = Change(uid, study_uid, title, (study_uid,), {study_uid: instances} if instances else {})
        async with self.pool.connection() as connection, connection.transaction():
            assert await keep(connection, change, caller="PACS", file=b"") is Kept.NEW

    async def order(self, control: str = "CA", letter: str = "E", **changes: object) -> None:
        """An OMI^O23 comes about the studies of an exam; ``control`` is ORC-1."""
        raw = omi(OrderLetter((exams.exam(letter),), "O", control, **changes), NOW)  # type: ignore[arg-type]
        async with self.pool.connection() as connection, connection.transaction():
            row = await (
                await connection.execute(
                    "INSERT INTO message (sender, control_id, digest, raw, answer, accepted) "
                    "VALUES ('RIS', gen_random_uuid()::text, '', %s, '', true) RETURNING id",
                    (raw,),
                )
            ).fetchone()
            assert row is not None
            await take_order(connection, row["id"], read_order(hl7.parse(raw)))

    async def resync(self, cause: Cause = Cause.NOTE, study_uid: str = STUDY, structure: str = "") -> Outcome:
        """Compare a study in one try."""
        self.clock.advance(60)
        return await resync_study(self.services, study_uid, cause, structure)

    async def queue(self) -> tuple[Incident, ...]:
        """The operator's queue, oldest first."""
        return tuple(reversed(await self.incidents.list()))

    async def current(self, number: int = 105) -> ArchivedKos | None:
        return await self.archive.current(f"1.2.250.1.213.4.5.2.1.{number}")

    async def states(self, number: int = 105) -> list[str]:
        versions = await self.archive.versions("ambroise", f"1.2.250.1.213.4.5.2.1.{number}")
        return [version.state for version in versions]

    async def traced(self) -> list[Recorded]:
        """The journal, oldest first."""
        found = await self.journal.search(Search(), AuditActor(person="test"))
        return [r for r in reversed(found) if r.event.kind.name != "AUDIT_READ"]


def world_on(pool: Pool, **rules: object) -> World:
    """A world on an empty database; ``rules`` change the configuration."""
    clock = FixedClock(NOW)
    pacs, vna, dmp = FakePacs(), FakePacs(), FakeDmp()
    archive, incidents = Archive(pool), Incidents(pool, clock)
    journal = Journal(pool, PatientKey(b"k" * 32))
    sites = Sites(
        [
            (Site("ambroise", AMBROISE, (SitePacs("pacs", pacs), SitePacs("vna", vna))), ["1750803447"]),
            (Site("other", Structure("1690000017", "Autre"), (SitePacs("pacs", pacs),)), ["690000017"]),
        ]
    )
    settings: Mapping[str, object] = {"ins_range": "test", "retrieve_base": BASE, **rules}
    services = Services(
        reports=StoredReports(pool),
        orders=StoredOrders(pool),
        changes=ChangedStudies(pool),
        recollect=recollect,
        sites=sites,
        registry=dmp,
        archive=archive,
        ledger=Ledger(archive, incidents, journal, clock),
        clock=clock,
        rules=Rules(**settings),  # type: ignore[arg-type]
    )
    return World(pool, pacs, vna, dmp, archive, incidents, journal, services, clock)


def down(code: str = "pacs-unreachable") -> Unavailable:
    return Unavailable("PACS injoignable", code=code)
