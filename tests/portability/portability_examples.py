"""Boxes with an archive: real KOS, real submission sets, in a real database."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from publication_examples import AMBROISE, BASE, letter_of, read, study_of

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.uids import new_uid
from drimbox.foundation.xml import parse
from drimbox.manifest.build import build_manifest
from drimbox.national.dmp.actor import INDIRECT, VihfIdentity
from drimbox.national.dmp.metadata import Device, kos_entry, read_objects, submission_draft
from drimbox.national.dmp.provide import KosDocument, prepare
from drimbox.pacs.study import Study
from drimbox.portability.export import Choice, Emitter, ExportReport, export_archive
from drimbox.portability.importing import ImportReport, Target, import_archive
from drimbox.portability.metadata import Filed, write_metadata
from drimbox.publication.archive import Archive, NewVersion
from drimbox.publication.checks import orders_of
from drimbox.publication.fingerprint import fingerprint
from drimbox.publication.incidents import Incident, Incidents
from drimbox.publication.kos import State
from drimbox.publication.ports import Submission
from drimbox.reports.report import Coded, Report, Structure, Visibility
from drimbox.store.database import Pool
from drimbox.trust.keystore import Credential

NOW = dt.datetime(2026, 7, 14, 9, 30, 12, 345678, tzinfo=dt.UTC)
EMITTER = Emitter("Boîte d'essai", [AMBROISE], "04 73 00 00 00", version="0.1.0")
TARGET = Target("ambroise", AMBROISE, "SA08", ("1750803447",), ("pacs", "vna"))
ONE_PACS = replace(TARGET, pacs=("pacs",))
# The structure of the official sample.
BCOM = Target("bcom", Structure("499700367909006", "BCOM"), "SA25", ("499700367909006",), ("pacs",))
STUDY = "1.2.250.1.213.4.5.2.1.105"


@dataclass
class Maker:
    """Makes versions as the publication does, signed."""

    sign: Credential

    def report(self, **changes: object) -> Report:
        return replace(read(letter_of("E")), **changes)  # type: ignore[arg-type]

    def identity(self) -> Mapping[str, object]:
        identity = VihfIdentity(
            subject_id="801234560801",
            subject_name="Jacques BIDEAULT",
            profession=Coded("10", "1.2.250.1.71.1.2.7", "Médecin"),
            speciality=Coded("SM44", "1.2.250.1.71.4.2.5", "Radiodiagnostic"),
            structure_id=AMBROISE.identifier,
            structure_name=AMBROISE.name,
            sector="SA08",
            mode=INDIRECT,
            authenticated_at=NOW,
            authn_context="urn:oasis:names:tc:SAML:2.0:ac:classes:unspecified",
        )
        return {**identity.to_json(), "secret_connection": False}

    def version(
        self, report: Report, study: Study, now: dt.datetime, *, report_id: int, replaces: tuple[int, str] | None
    ) -> NewVersion:
        kos_uid = new_uid()
        orders = orders_of(report, study)
        kos = build_manifest(
            report,
            study,
            orders=orders,
            retrieve_base=BASE,
            kos_uid=kos_uid,
            series_uid=new_uid(),
            created=now,
            manufacturer="drimbox",
            structure=AMBROISE,
        )
        entry = kos_entry(
            report=report,
            study=study,
            orders=orders,
            kos_uid=kos_uid,
            kos_bytes=kos,
            created=now,
            device=Device("31750803447/drimbox-1", "drimbox"),
            structure=AMBROISE,
        )
        prepared = prepare(
            report.patient.ins,
            [KosDocument(entry, kos, replaces[1] if replaces else None)],
            submission_draft(report, structure=AMBROISE),
            source_id="1.2.250.1.999.1.1.9000",
            credential=self.sign,
            algorithm="rsa-sha256",
            clock=FixedClock(now),
        )
        identity = {**self.identity(), "secret_connection": report.visibility.secret_connection}
        return NewVersion(
            structure="ambroise",
            study_uid=study.study_uid,
            kos_uid=kos_uid,
            kos=kos,
            submission=Submission(prepared.submission_uid, prepared.metadata, prepared.signature, identity),
            replaces=replaces[0] if replaces else None,
            report_id=report_id,
            document_ids=(report.document_id,),
            pacs="vna",
            ins=report.patient.ins,
            visibility=report.visibility,
            fingerprint=fingerprint(report, study, AMBROISE),
        )


@dataclass
class Box:
    """A box whose archive grows by ``publish`` and ``depublish``."""

    pool: Pool
    maker: Maker
    clock: FixedClock = field(default_factory=lambda: FixedClock(NOW))

    @property
    def archive(self) -> Archive:
        return Archive(self.pool)

    @property
    def incidents(self) -> Incidents:
        return Incidents(self.pool, self.clock)

    async def publish(
        self,
        number: int = 105,
        *,
        documents: Sequence[str] = (),
        images: int = 3,
        visibility: Visibility | None = None,
        study: Study | None = None,
    ) -> str:
        """A version of a study, in the place of the one that is current; its KOS UID."""
        study = study or study_of(number, images, accession_number="ACN105")
        # The letter speaks of the study of exam E: the same report, for another study.
        acts = [replace(act, study_uids=(study.study_uid,)) for act in self.maker.report().acts]
        report = self.maker.report(acts=tuple(acts), visibility=visibility or Visibility())
        current = await self.archive.current(study.study_uid)
        row = await self._execute(
            "WITH m AS (INSERT INTO message (sender, control_id, digest, raw, answer, accepted) "
            "VALUES ('RIS', gen_random_uuid()::text, '', '', '', true) RETURNING id) "
            "INSERT INTO report (message_id, structure, document_id, operation) "
            "SELECT id, 'ambroise', 'd', 'new' FROM m RETURNING id"
        )
        replaces = (current.id, current.entry_uuid or "") if current else None
        self.clock.advance(61.5)
        version = self.maker.version(report, study, self.clock.now(), report_id=row["id"], replaces=replaces)
        version = replace(version, document_ids=tuple(documents) or version.document_ids)
        async with self.archive.transaction() as transaction:
            version_id = await self.archive.prepare(transaction, version, self.clock.now())
        self.clock.advance(1)
        await self.archive.sending(version_id, self.clock.now())
        self.clock.advance(1)
        async with self.archive.transaction() as transaction:
            await self.archive.confirm(transaction, version_id, self.clock.now())
            await self.archive.note(
                transaction, "ambroise", study.study_uid, row["id"], version.document_ids, version.document_ids[-1]
            )
        await self.archive.set_entry_uuid(version_id, f"urn:uuid:{uuid.uuid4()}")
        return version.kos_uid

    async def depublish(self, study: int | str = 105) -> None:
        uid = study if isinstance(study, str) else f"1.2.250.1.213.4.5.2.1.{study}"
        current = await self.archive.current(uid)
        assert current is not None
        self.clock.advance(10)
        async with self.archive.transaction() as transaction:
            await self.archive.end(transaction, current.id, State.DEPUBLISHED, self.clock.now())
            await transaction.execute(
                "UPDATE reported_study SET documents = '{}' WHERE study_uid = %s", (current.study_uid,)
            )

    async def export(self, target: Path, **options: Any) -> ExportReport:
        choice = options.pop("choice", Choice())
        self.clock.advance(3600)
        return await export_archive(self.pool, target, emitter=EMITTER, clock=self.clock, choice=choice, **options)

    async def import_(self, source: Path, **options: Any) -> ImportReport:
        options.setdefault("targets", [TARGET])
        options.setdefault("ins_range", "test")
        return await import_archive(self.pool, source, incidents=self.incidents, clock=self.clock, **options)

    async def rows(self) -> list[dict[str, Any]]:
        """The archive, but for what belongs to one database: row numbers, and the messages behind the versions."""
        async with self.pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT p.*, old.kos_uid AS replaced FROM publication p "
                "LEFT JOIN publication old ON old.id = p.replaces "
                "ORDER BY p.prepared_at, p.kos_uid"
            )
            rows = await cursor.fetchall()
        return [{k: v for k, v in row.items() if k not in ("id", "report_id", "replaces")} for row in rows]

    async def states(self, number: int = 105) -> list[str]:
        versions = await self.archive.versions("ambroise", f"1.2.250.1.213.4.5.2.1.{number}")
        return [version.state for version in versions]

    async def standing(self, number: int = 105) -> tuple[str, ...]:
        history = await self.archive.history("ambroise", f"1.2.250.1.213.4.5.2.1.{number}")
        return history.documents

    async def queue(self) -> list[Incident]:
        return list(reversed(await self.incidents.list()))

    async def _execute(self, query: Any) -> dict[str, Any]:
        async with self.pool.connection() as connection:
            row = await (await connection.execute(query)).fetchone()
        assert row is not None
        return row


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of an archive by its path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


async def lot_of_two(box: Box, target: Path) -> None:
    """An archive of another product: one submission set with two KOS, as a report on two studies may give."""
    report = box.maker.report()
    kos = []
    for number in (301, 302):
        study = study_of(number, accession_number="ACN105")
        one = replace(report, acts=tuple(replace(act, study_uids=(study.study_uid,)) for act in report.acts))
        version = box.maker.version(one, study, NOW, report_id=0, replaces=None)
        [entry, _] = read_objects(parse(version.submission.metadata)).entries
        kos.append(KosDocument(entry, version.kos))
    prepared = prepare(
        report.patient.ins,
        kos,
        submission_draft(report, structure=AMBROISE),
        source_id="1.2.3",
        credential=box.maker.sign,
        algorithm="rsa-sha1",
        clock=FixedClock(NOW),
    )
    folder = target / "KA202607" / "IHE_XDM" / "SS000001"
    folder.mkdir(parents=True)
    files = {f"KOS_1_{n}.DCM": document.content for n, document in enumerate(kos, 1)}
    filed = {d.entry.unique_id: Filed(f"SS000001/KOS_1_{n}.DCM") for n, d in enumerate(kos, 1)}
    files |= {"SIGN_1.XML": prepared.signature, "METADATA.XML": write_metadata(prepared.metadata, filed)}
    files["CR.TXT"] = f"1.2.9.1;;{report.patient.ins.matricule};{report.patient.ins.oid};;".encode()
    for name, content in files.items():
        (folder / name).write_bytes(content)
