"""A stage for the stories of the official exams: a whole box, its PACSs, and a DMP that judges each message.

The box is the real one, from its TOML file on: MLLP and DICOM listeners, PostgreSQL, the worker, the client of the DMP
over mutual TLS. The PACSs are stand-ins that share nothing with it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from drimbox.box import services as box_services
from drimbox.box import source
from drimbox.box.config import load
from drimbox.box.structures import served
from drimbox.console.acts import Acts
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.http_server import serving
from drimbox.manifest.manifest import Manifest
from drimbox.manifest.read import read_manifest
from drimbox.publication.incidents import Incident, Incidents
from drimbox.record.audit import Actor, Journal
from drimbox.sandbox.dmp import Dmp, KnownPatient, KnownStructure, dmp_app
from drimbox.sandbox.dmp.store import StoredEntry
from drimbox.sandbox.pacs.embedded import EmbeddedConfig, Faults, embedded_pacs
from drimbox.sandbox.pacs.peer import Destination
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.sandbox.ris import wire
from drimbox.store.database import Pool
from drimbox.trust.keystore import load_credential
from drimbox.trust.tls import load_trust, server_context
from official_messages import Official

EG, SECOND = "1750803447", "1690000017"
CT = "1.2.840.10008.5.1.4.1.1.2"
KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"


@dataclass(frozen=True)
class Person:
    """A patient as the PACS knows them, and their INS."""

    family: str = "PAT-TROIS"
    given: str = "DOMINIQUE"
    birth_date: str = "19790328"
    sex: str = "F"
    ipp: str = "IPP101"
    ins: str = "279035121518989"


OFFICIAL = Person()
ANOTHER = Person("PAT-DEUX", "ALAIN", "19560214", "M", "77-00412", "162018885045327")


@dataclass(frozen=True)
class Exam:
    """A study to put in a PACS."""

    study_uid: str
    accession: str
    images: int = 3
    patient: Person = OFFICIAL
    modality: str = "CT"

    def instance(self, number: int) -> str:
        return f"{self.study_uid}.1.{number}"

    @property
    def instances(self) -> set[str]:
        return {self.instance(n) for n in range(1, self.images + 1)}


@dataclass
class Pacs:
    """One PACS. ``box`` is the port to move to; ``hidden`` the instances that it does not tell of any more."""

    id: str
    ae_title: str
    folder: Path
    box: int
    faults: Faults = field(default_factory=Faults)
    hidden: set[str] = field(default_factory=set)
    port: int = 0
    _running: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        self.faults.find_changes = self._shown
        config = EmbeddedConfig(self.folder, self.ae_title, self.port, [Destination("DRIMBOX", "127.0.0.1", self.box)])
        self.port = self._running.enter_context(embedded_pacs(config, self.faults)).port

    def stop(self) -> None:
        self._running.close()

    def hold(self, *exams: Exam) -> None:
        """More studies, as its modalities store them."""
        images = [_image(exam, number) for exam in exams for number in range(1, exam.images + 1)]
        assert set(_stored(images, self.port, self.ae_title, "DRIMBOX")) == {0}

    def _shown(self, answer: Dataset) -> Dataset | None:
        if not self.hidden:
            return answer
        if answer.QueryRetrieveLevel == "IMAGE":
            return None if answer.SOPInstanceUID in self.hidden else answer
        # What it counts it does not hold any more.
        for keyword in ("NumberOfSeriesRelatedInstances", "NumberOfStudyRelatedSeries"):
            if keyword in answer:
                setattr(answer, keyword, None)
        return answer

    def forget(self, exam: Exam) -> None:
        """The study is gone."""
        self._without(f"{exam.study_uid}.*.dcm")

    def empty(self) -> None:
        """It holds nothing, and does what it should."""
        self.hidden.clear()
        self.faults.repair()
        self._without("*.dcm")

    def _without(self, pattern: str) -> None:
        if not any(self.folder.glob(pattern)):
            return
        self.stop()
        for path in self.folder.glob(pattern):
            path.unlink()
        self.start()


@dataclass
class Stage:
    """The running box and everything around it."""

    judge: Dmp
    pool: Pool
    pacs: dict[str, Pacs]
    mllp: int
    iocm: int

    # --- what the site does -------------------------------------------------------------------------------------------

    async def send(self, *messages: Official | bytes) -> list[bytes]:
        """Send over MLLP on one connection, and wait until the box is done with what follows; the answers."""
        octets = [m.wire() if isinstance(m, Official) else m for m in messages]
        answers = await wire.send("127.0.0.1", self.mllp, octets)
        await self.at_rest()
        return answers

    async def accepted(self, *messages: Official) -> None:
        for answer in await self.send(*messages):
            assert wire.verdict(answer) == "AA", answer.decode()

    async def note(self, note: Dataset) -> int:
        """Store a note as a PACS does (RAD-66); the status of the answer."""
        [status] = await asyncio.to_thread(_stored, [note], self.iocm, "DRIMBOX", "PACS_A")
        await self.at_rest()
        return status

    async def at_rest(self, patience: float = 20.0) -> None:
        """Until no work is left but what waits for a later try."""
        deadline = time.monotonic() + patience
        while await self.rows(
            "SELECT 1 FROM procrastinate_jobs WHERE status = 'doing' "
            "OR (status = 'todo' AND (scheduled_at IS NULL OR scheduled_at <= now()))"
        ):
            assert time.monotonic() < deadline, "the work does not end"
            await asyncio.sleep(0.02)

    async def retry(self, incident: Incident) -> None:
        acts = Acts(self.pool, self.incidents, Journal(self.pool))
        await acts.retry(incident.id, Actor(person="test"))
        await self.at_rest()

    # --- what is there now --------------------------------------------------------------------------------------------

    @property
    def incidents(self) -> Incidents:
        return Incidents(self.pool, SystemClock())

    async def queue(self, study_uid: str = "") -> list[Incident]:
        """What is open, oldest first; of one study, or all."""
        return [i for i in reversed(await self.incidents.list()) if study_uid in ("", i.study_uid)]

    async def codes(self, study_uid: str = "") -> list[str]:
        return [i.code for i in await self.queue(study_uid)]

    async def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        async with self.pool.connection() as connection:
            return await (await connection.execute(query, values)).fetchall()  # type: ignore[arg-type]

    def entries(self, study_uid: str) -> list[tuple[StoredEntry, Manifest]]:
        """Every KOS of a study that the DMP ever registered, in order."""
        found = []
        for entry in self.judge.store.entries():
            content = self.judge.store.content(entry.unique_id)
            if entry.mime == "application/dicom" and content is not None:
                manifest = read_manifest(content)
                if manifest.study_uid == study_uid:
                    found.append((entry, manifest))
        return found

    def statuses(self, study_uid: str) -> list[str]:
        return [entry.status.rpartition(":")[2] for entry, _ in self.entries(study_uid)]

    def current(self, study_uid: str) -> tuple[StoredEntry, Manifest]:
        """The one that stands."""
        [one] = [(e, m) for e, m in self.entries(study_uid) if e.status.endswith(":Approved")]
        return one

    def hidden_from(self, study_uid: str) -> set[str]:
        """The confidentiality codes of the one that stands, but for ``N``."""
        metadata = self.current(study_uid)[0].metadata.decode("utf-8")
        codes = ("MASQUE_PS", "INVISIBLE_PATIENT", "INVISIBLE_REPRESENTANTS_LEGAUX")
        return {code for code in codes if f'"{code}"' in metadata}

    def refusals(self) -> list[str]:
        return [f"{v.rule} {v.detail}" for v in self.judge.store.verdicts() if v.verdict != "accepted"]

    def sent(self) -> int:
        """How many publications and deletions the DMP was asked for."""
        return sum(
            v.transaction in ("ITI-41", "ITI-57") or "Provide" in v.transaction or "Update" in v.transaction
            for v in self.judge.store.verdicts()
        )

    async def archived(self, study_uid: str) -> list[dict[str, Any]]:
        """The versions of the archive, oldest first."""
        return await self.rows("SELECT * FROM publication WHERE study_uid = %s ORDER BY id", study_uid)


def instances(manifest: Manifest) -> set[str]:
    return {i.sop_instance_uid for s in manifest.series for i in s.instances}


# --- setting the stage --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Keys:
    """All certificates, made once."""

    authority: TestAuthority
    pairs: Mapping[str, PemPair]


def made_keys(authority: TestAuthority) -> Keys:
    def issue(profile: Profile, name: str, unit: str) -> PemPair:
        hosts = ("127.0.0.1", "localhost") if profile is Profile.SSL_SERV else ()
        return authority.issue(
            profile, f"stories-{name}", common_name="DRIMbox", unit=unit, organisation="SITE", hosts=hosts
        )

    return Keys(
        authority,
        {
            "auth": issue(Profile.ORG_AUTH_CLI, "auth", EG),
            "sign": issue(Profile.ORG_SIGN, "sign", EG),
            "auth-2": issue(Profile.ORG_AUTH_CLI, "auth-2", SECOND),
            "sign-2": issue(Profile.ORG_SIGN, "sign-2", SECOND),
            "server": issue(Profile.SSL_SERV, "server", EG),
        },
    )


@contextmanager
def two_pacs(folder: Path) -> Iterator[dict[str, Pacs]]:
    """The site's PACS, which is its RIS's own, and the archive behind it."""
    [box] = free_ports(1)
    with ExitStack() as stack:
        made = {}
        for name, title in (("pacs", "PACS_A"), ("vna", "VNA_A")):
            (folder / name).mkdir()
            made[name] = Pacs(name, title, folder / name, box)
            made[name].start()
            stack.callback(made[name].stop)
        yield made


@asynccontextmanager
async def dmp_for(keys: Keys, schemas: Path, folder: Path) -> AsyncIterator[tuple[Dmp, int]]:
    """The judge, and its port."""
    app = dmp_app(
        state=folder / "dmp",
        trust_roots=[keys.authority.roots],
        revocation_lists=keys.authority.revocation_lists,
        schema_dir=schemas,
        structures=[KnownStructure(EG, "Centre de radiologie Ambroise"), KnownStructure(SECOND, "Clinique")],
        patients=[KnownPatient(p.ins, "1.2.250.1.213.1.4.10", p.family, p.given) for p in (OFFICIAL, ANOTHER)],
    )
    server = keys.pairs["server"]
    trust = load_trust([keys.authority.roots], keys.authority.revocation_lists)
    tls = server_context(load_credential(server.certificate, server.key), trust)
    async with serving(app, host="127.0.0.1", port=0, tls=tls) as port:
        yield app.state.dmp, port
    app.state.dmp.close()


@asynccontextmanager
async def box_on(
    keys: Keys, dsn: str, pool: Pool, pacs: dict[str, Pacs], dmp: tuple[Dmp, int], folder: Path, **pairs: PemPair
) -> AsyncIterator[Stage]:
    """A box of two structures on that database; ``pairs`` are given to them in the place of the right ones."""
    mllp, iocm, wado = free_ports(3)
    dicom = pacs["pacs"].box
    file = folder / "box.toml"
    file.write_text(_configuration(keys, {**keys.pairs, **pairs}, pacs, dmp[1], (mllp, dicom, iocm, wado), folder))
    settings = load(file, {})
    assert settings.source is not None
    settings.box.state_dir.mkdir(exist_ok=True)
    async with box_services.opened(settings, pool) as common:
        structures = served(common)
        async with source.running(common, settings.source, structures, dsn):
            yield Stage(dmp[0], pool, pacs, mllp, iocm)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _configuration(
    keys: Keys, pairs: Mapping[str, PemPair], pacs: Mapping[str, Pacs], dmp: int, ports: Sequence[int], folder: Path
) -> str:
    def pair(name: str) -> str:
        return f'{{ certificate = "{pairs[name].certificate}", key = "{pairs[name].key}" }}'

    mllp, dicom, iocm, wado = ports
    base = f"https://127.0.0.1:{dmp}/si-dmp-server/v2/services"
    lists = json.dumps([str(path) for path in keys.authority.revocation_lists])
    return f"""
[box]
name = "story"
state_dir = "{folder / "state"}"
device_id = "3{EG}/drimbox-1"
homologation_number = "DRB-000000-tmp1"
[trust]
roots = ["{keys.authority.roots}"]
revocation_lists = {lists}
[[structures]]
id = "ambroise"
name = "Centre de radiologie Ambroise"
identifier = "{EG}"
also_known_as = ["1101235555", "1300017985"]
sector = "SA08"
auth = {pair("auth")}
sign = {pair("sign")}
[[structures]]
id = "clinique"
name = "Clinique"
identifier = "{SECOND}"
sector = "SA08"
auth = {pair("auth-2")}
sign = {pair("sign-2")}
[[pacs]]
id = "vna"
host = "127.0.0.1"
port = {pacs["vna"].port}
ae_title = "VNA_A"
answer_timeout = 5
[[pacs]]
id = "pacs"
host = "127.0.0.1"
port = {pacs["pacs"].port}
ae_title = "PACS_A"
senders = ["RIS-A"]
answer_timeout = 5
[source]
[source.hl7]
port = {mllp}
[source.dicom]
port = {dicom}
[source.iocm]
port = {iocm}
[source.wado]
port = {wado}
public_url = "https://db.example.test"
tls = {pair("server")}
[dmp]
repository = "{base}/repository"
registry = "{base}/registry"
patients = "{base}/patients"
habilitations = "{base}/habilitations"
source_id = "1.2.250.1.999.1.1.9000"
timeout = 10
[psc]
discovery = "https://127.0.0.1:9/psc"
client_id = "drimbox"
[whitelist]
url = "https://127.0.0.1:9/list"
"""


# --- DICOM --------------------------------------------------------------------------------------------------------


def _header(study_uid: str, series_uid: str, sop_class: str, sop_uid: str, patient: Person) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = sop_uid
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, sop_uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, series_uid
    dataset.PatientName = f"{patient.family}^{patient.given}"
    dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex = patient.ipp, patient.birth_date, patient.sex
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.ReferringPhysicianName = "20210108", "1025", "1", ""
    return dataset


def _image(exam: Exam, number: int) -> Dataset:
    dataset = _header(exam.study_uid, f"{exam.study_uid}.1", CT, exam.instance(number), exam.patient)
    dataset.AccessionNumber, dataset.StudyDescription = exam.accession, "Examen"
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = exam.modality, 1, number
    return dataset


def note_on(exam: Exam, title: tuple[str, str], rejected: Sequence[str], uid: str) -> Dataset:
    """A Key Object Selection of that title on instances of a study (PS3.3 A.35.4; TID 2010)."""
    dataset = _header(exam.study_uid, f"{exam.study_uid}.9", KEY_OBJECT_SELECTION, uid, exam.patient)
    dataset.AccessionNumber, dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = exam.accession, "KO", 9, 1
    dataset.ContentDate, dataset.ContentTime = f"{dt.date.today():%Y%m%d}", "101500"  # noqa: DTZ011 - a label
    dataset.Manufacturer, dataset.ReferencedPerformedProcedureStepSequence = "PACS", []
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    name, template = Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = title[0], "DCM", title[1]
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    dataset.ConceptNameCodeSequence, dataset.ContentTemplateSequence = [name], [template]
    references, items = [], []
    for one in rejected:
        reference, item = Dataset(), Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, one
        item.RelationshipType, item.ValueType, item.ReferencedSOPSequence = "CONTAINS", "IMAGE", [reference]
        references.append(reference)
        items.append(item)
    dataset.ContentSequence = items
    series, study = Dataset(), Dataset()
    series.SeriesInstanceUID, series.ReferencedSOPSequence = f"{exam.study_uid}.1", references
    study.StudyInstanceUID, study.ReferencedSeriesSequence = exam.study_uid, [series]
    dataset.CurrentRequestedProcedureEvidenceSequence = [study]
    return dataset


def _stored(datasets: Sequence[Dataset], port: int, called: str, calling: str) -> list[int]:
    sender = AE(ae_title=calling)
    for sop_class in {dataset.SOPClassUID for dataset in datasets}:
        sender.add_requested_context(sop_class, ExplicitVRLittleEndian)
    association = sender.associate("127.0.0.1", port, ae_title=called)
    assert association.is_established
    try:
        return [int(association.send_c_store(dataset).Status) for dataset in datasets]
    finally:
        association.release()
