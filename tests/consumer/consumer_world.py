"""The neighbours of the consumer as the tests play them, a browser, and the official test patients."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from lxml import html
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from starlette.types import ASGIApp

from drimbox.consumer.ports import ConsumerStructure
from drimbox.foundation.clock import Clock, FixedClock
from drimbox.foundation.errors import DrimboxError, IdentityMismatch, Refused, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient, Reply
from drimbox.foundation.uids import new_uid
from drimbox.identity.ins import Ins
from drimbox.images.client import SourceState
from drimbox.manifest.build import encode
from drimbox.manifest.manifest import Manifest, ManifestSeries
from drimbox.national.dmp.actor import Actor, VihfIdentity
from drimbox.national.dmp.codes import (
    KOS_CLASS,
    KOS_FORMAT,
    KOS_TYPE,
    MODALITIES,
    NORMAL,
    REFERENCE_ACCESSION,
    REFERENCE_STUDY,
    REPORT_CLASS,
    SNOMED_CT,
    Status,
)
from drimbox.national.dmp.existence import Authorisation, Existence, RecordStatus
from drimbox.national.dmp.metadata.datatypes import Cx, Dtm, Xcn, Xon
from drimbox.national.dmp.metadata.model import Author, DocumentEntry
from drimbox.national.dmp.query import Criteria
from drimbox.national.dmp.retrieve import RetrievedDocument
from drimbox.national.psc.client import LogoutNotice
from drimbox.national.psc.tokens import Tokens
from drimbox.national.psc.userinfo import Practice, UserInfo
from drimbox.pacs.patient import HeldStudy
from drimbox.pacs.study import Instance, Series
from drimbox.pacs.study import Study as PacsStudy
from drimbox.record.audit import Event
from drimbox.reports.report import Coded

# Milliseconds that a page may take on a machine that is busy with other things.
PATIENCE = 90_000
TEST_OID = "1.2.250.1.213.1.4.10"
STRUCTURE = "1750803447"
OTHER_STRUCTURE = "499700367909006"
DB_HOST = "db3.test.mesimagesmedicales.fr"
REPORT_TYPE = Coded("18748-4", "2.16.840.1.113883.6.1", "CR d'imagerie médicale")


@dataclass(frozen=True)
class TestPatient:
    """A patient of the official test data: the INS whose traits the samples give, or a bare test matricule."""

    __test__ = False

    matricule: str
    family: str
    given: str
    birth: str
    sex: str
    ipp: str

    @property
    def ins(self) -> Ins:
        return Ins.of(self.matricule, TEST_OID)

    def call(self, **more: str) -> dict[str, str]:
        """The fields of a contextual call, in the newest names."""
        return {
            "Patient.identifier.value": self.matricule,
            "Patient.identifier.system": TEST_OID,
            "Patient.name.family": self.family,
            "Patient.name.given": self.given,
            "Patient.gender": "female" if self.sex == "F" else "male",
            "Patient.birthDate": self.birth,
            "Address.district": "51215",
            "PatientID": self.ipp,
            "PatientIDIssuer": "IPP-B&1.2.250.1.999.2&ISO",
            "InformationEtConsentement": "yes",
            **more,
        }


DOMINIQUE = TestPatient("279035121518989", "PAT-TROIS", "DOMINIQUE", "19790328", "F", "IPP101")
# The same test identity name with other official test matricules: patients that must never be mixed with the first.
SECOND = TestPatient("207058575627097", "PAT-TROIS", "DOMINIQUE", "19790328", "F", "IPP102")
THIRD = TestPatient("248039263001064", "PAT-TROIS", "DOMINIQUE", "19790328", "F", "IPP103")


def practice(structure_id: str = STRUCTURE, name: str = "CENTRE DE RADIOLOGIE", sector: str = "SA05") -> Practice:
    return Practice(
        profession=Coded("10", "1.2.250.1.71.1.2.7", "Médecin"),
        speciality=Coded("SM44", "1.2.250.1.71.4.2.5", "Radio-diagnostic"),
        structure_id=structure_id,
        structure_name=name,
        sector=sector,
        label=f"{name} – Médecin, Radio-diagnostic",
    )


# The professionals of the official samples.
KIT = UserInfo("899700367909", "DOC0036790", "KIT", (practice(),), "f:1:899700367909")
KIT_TWO_PLACES = replace(KIT, practices=(practice(), practice(OTHER_STRUCTURE, "CABINET M DOC0036790", "SA07")))
OTHER = UserInfo("899700218896", "TOUBIB0021889", "PAUL", (practice(),), "f:1:899700218896")


class FakePsc:
    """A PSC whose login page sends straight back. ``next_user`` says who it will be."""

    def __init__(self, public_url: Callable[[], str], clock: Clock) -> None:
        self._public_url = public_url
        self._clock = clock
        self.next_user = KIT
        self.users: dict[str, UserInfo] = {}
        self.verifiers: dict[str, tuple[str, str]] = {}
        self.refreshed = 0
        self.down = False
        self.refuse_refresh = False
        self.revoked: list[str] = []
        self.life = dt.timedelta(minutes=2)

    def _check(self) -> None:
        if self.down:
            raise Unavailable("Pro Santé Connect ne répond pas", code="psc-unavailable")

    async def authorization_url(self, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        self._check()
        code = f"code{len(self.users)}"
        self.users[code] = self.next_user
        self.verifiers[code] = (nonce, verifier)
        return f"{redirect_uri}?{urlencode({'state': state, 'code': code})}"

    async def exchange(self, code: str, redirect_uri: str, verifier: str, nonce: str) -> Tokens:
        self._check()
        if self.verifiers.pop(code, None) != (nonce, verifier):
            raise Rejected("Jeton ou code refusé par Pro Santé Connect", code="psc-token")
        return self._tokens(self.users[code].subject, code)

    async def refresh(self, former: Tokens) -> Tokens:
        self._check()
        if self.refuse_refresh:
            raise Rejected("Jeton ou code refusé par Pro Santé Connect", code="psc-token")
        self.refreshed += 1
        return self._tokens(former.subject, former.session_id.removeprefix("session-"))

    async def userinfo(self, access_token: str, *, subject: str = "") -> UserInfo:
        self._check()
        return next(u for u in self.users.values() if u.subject == subject)

    async def logout_url(self, id_token: str, redirect: str) -> str:
        self._check()
        return f"{self._public_url()}/au-revoir"

    async def logout_notice(self, logout_token: str) -> LogoutNotice:
        if not logout_token.startswith("signed:"):
            raise Refused("jeton de déconnexion refusé", code="psc-jwt")
        return LogoutNotice("", logout_token.removeprefix("signed:"))

    async def issuer(self) -> str:
        return "https://psc.example/auth/realms/esante-wallet"

    async def check_issuer(self, told: str | None) -> None:
        if told not in (None, await self.issuer()):
            raise Refused("Réponse d'un autre fournisseur d'identité", code="psc-issuer")

    async def page_origins(self) -> tuple[str, ...]:
        return ("https://psc.example",)

    async def revoke(self, token: str) -> None:
        self.revoked.append(token)

    def _tokens(self, subject: str, code: str) -> Tokens:
        now = self._clock.now()
        number = f"{code}-{self.refreshed}"
        return Tokens(
            access_token=f"access-{number}",
            refresh_token=f"refresh-{number}",
            id_token=f"id-{number}",
            expires_at=now + self.life,
            refresh_expires_at=now + dt.timedelta(minutes=30),
            subject=subject,
            session_id=f"session-{code}",
            authenticated_at=now,
        )


@dataclass
class Record:
    """What the DMP holds of one patient."""

    status: RecordStatus = RecordStatus.ACTIVE
    authorisation: Authorisation = Authorisation.VALID
    entries: list[DocumentEntry] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)


class FakeDmp:
    """Answers by patient, and remembers who asked what."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.criteria: list[Criteria] = []
        self.grants: list[str] = []
        self.since: list[dt.datetime] = []
        self.emergencies: list[str] = []
        self.failing: dict[str, DrimboxError] = {}
        self.delay = 0.0
        self.failure: DrimboxError | None = None

    async def _answer(self, what: str, actor: Actor, patient: Ins) -> Record:
        self.asked.append((what, actor.identity.structure_id, patient.matricule))
        await asyncio.sleep(self.delay)
        if actor.emergency:
            self.emergencies.append(actor.emergency)
        if self.failure is not None:
            raise self.failure
        if what in self.failing:
            raise self.failing[what]
        return self.records.get(patient.matricule) or Record(RecordStatus.NONE, Authorisation.ABSENT)

    async def existence(self, actor: Actor, patient: Ins) -> Existence:
        record = await self._answer("TD0.2", actor, patient)
        return Existence(record.status, record.authorisation)

    async def authorise(self, actor: Actor, patient: Ins) -> None:
        record = await self._answer("TD0.3", actor, patient)
        record.authorisation = Authorisation.VALID
        self.grants.append(actor.identity.subject_id)

    async def withdraw(self, actor: Actor, patient: Ins) -> None:
        record = await self._answer("TD0.3-", actor, patient)
        record.authorisation = Authorisation.ABSENT

    async def registered_since(self, actor: Actor, patient: Ins, since: dt.datetime) -> frozenset[str]:
        record = await self._answer("since", actor, patient)
        self.since.append(since)
        return frozenset(record.fresh)

    async def find_documents(self, actor: Actor, patient: Ins, criteria: Criteria) -> tuple[DocumentEntry, ...]:
        record = await self._answer("TD3.1", actor, patient)
        self.criteria.append(criteria)
        return tuple(entry for entry in record.entries if criteria.matches(entry))

    async def retrieve(
        self, actor: Actor, patient: Ins, wanted: Sequence[DocumentEntry]
    ) -> tuple[RetrievedDocument, ...]:
        record = await self._answer("TD3.2", actor, patient)
        return tuple(RetrievedDocument(w.unique_id, w.mime_type, record.contents[w.unique_id]) for w in wanted)


@dataclass(frozen=True)
class Received:
    sop_instance_uid: str
    path: Path
    size: int


class FakeSources:
    """Other sites' DRIMboxes: the files of each series by its address."""

    def __init__(self) -> None:
        self.series: dict[str, list[Path]] = {}
        self.failures: dict[str, DrimboxError] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.delay = 0.0
        self.gate: asyncio.Event | None = None
        self.held: set[str] = set()
        self.state = SourceState.ALIVE

    @asynccontextmanager
    async def fetch_series(
        self,
        retrieve_url: str,
        *,
        tls: ssl.SSLContext,
        token: Callable[[], Awaitable[str]],
        kos_uid: str,
        accept: Sequence[str],
        expected: Collection[str],
        ins: Ins,
        folder: Path,
    ) -> AsyncIterator[AsyncIterator[Received]]:
        self.asked.append((retrieve_url, await token(), kos_uid))
        yield self._images(retrieve_url, ins, folder)

    async def probe(self, retrieve_url: str, *, tls: ssl.SSLContext) -> SourceState:
        return self.state

    async def _images(self, retrieve_url: str, ins: Ins, folder: Path) -> AsyncIterator[Received]:
        for number, path in enumerate(self.series[retrieve_url]):
            if self.gate is not None and (not self.held or retrieve_url in self.held):
                await self.gate.wait()
            await asyncio.sleep(self.delay)
            if number == len(self.series[retrieve_url]) // 2 and retrieve_url in self.failures:
                raise self.failures[retrieve_url]
            dataset = dcmread(path, stop_before_pixels=True)
            told = [item.PatientID for item in dataset.get("OtherPatientIDsSequence", [])]
            if ins.matricule not in told:
                raise IdentityMismatch("L'INS des images n'est pas celle du patient", code="ins-differs")
            target = folder / f"{number:05d}.dcm"
            shutil.copyfile(path, target)
            yield Received(str(dataset.SOPInstanceUID), target, target.stat().st_size)


class FakeJournal:
    def __init__(self) -> None:
        self.events: list[Event] = []

    async def write(self, connection: object, event: Event) -> None:
        self.events.append(event)

    def codes(self) -> list[str]:
        return [event.kind.code for event in self.events]


class FakeHosts:
    """The signed list, and the keeper that gives it."""

    def __init__(self) -> None:
        self.hosts = {DB_HOST}
        self.failure: DrimboxError | None = None

    async def current(self) -> FakeHosts:
        if self.failure is not None:
            raise self.failure
        return self

    def allows_host(self, host: str) -> bool:
        return host in self.hosts


class FakePacs:
    """A PACS of the site: which studies it holds, with how many images."""

    def __init__(self) -> None:
        self.studies: dict[str, int | None] = {}
        self.failure: DrimboxError | None = None
        self.asked: list[tuple[str, ...]] = []

    @property
    def id(self) -> str:
        return "pacs-b"

    async def held(self, study_uids: Sequence[str]) -> dict[str, int | None]:
        self.asked.append(tuple(study_uids))
        if self.failure is not None:
            raise self.failure
        return {uid: self.studies[uid] for uid in study_uids if uid in self.studies}


class FakeArchive:
    """A PACS of the site that gives its studies of a patient, by local number."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[PacsStudy, dict[str, list[Path]]]] = {}
        self.failure: DrimboxError | None = None
        self.asked: list[str] = []
        # Whom it says that a study is of, once it is asked for the study itself.
        self.later: dict[str, PacsStudy] = {}

    @property
    def id(self) -> str:
        return "pacs-b"

    def hold(self, study: Study, ipp: str, issuer: str = "1.2.250.1.999.2", **other: str) -> PacsStudy:
        manifest = study.manifest
        series = tuple(
            Series(s.series_uid, s.modality, s.number, s.description, "", s.instances) for s in manifest.series
        )
        made = PacsStudy(
            study_uid=manifest.study_uid,
            patient_id=ipp,
            patient_id_issuer=issuer,
            patient_name=manifest.patient_name,
            birth_date=manifest.birth_date,
            sex=manifest.sex,
            accession_number="ACN9",
            accession_issuer="",
            study_id="",
            study_date=manifest.study_date,
            study_time="",
            description="SCANNER DU JOUR",
            referring_physician="",
            series=series,
        )
        made = replace(made, **other)
        files = {s.series_uid: study.files[s.retrieve_url] for s in manifest.series}
        self.held[made.study_uid] = (made, files)
        return made

    async def studies(self, patient_id: str) -> tuple[HeldStudy, ...]:
        self.asked.append(patient_id)
        if self.failure is not None:
            raise self.failure
        return tuple(
            HeldStudy(replace(study, series=()), study.modalities, study.instance_count)
            for study, _ in self.held.values()
            if study.patient_id == patient_id
        )

    async def study(self, study_uid: str) -> PacsStudy | None:
        found = self.held.get(study_uid)
        return self.later.get(study_uid, found[0]) if found is not None else None

    @asynccontextmanager
    async def fetch_series(
        self, study: PacsStudy, series_uid: str, folder: Path
    ) -> AsyncIterator[AsyncIterator[Received]]:
        yield self._images(self.held[study.study_uid][1][series_uid], folder)

    async def _images(self, paths: Sequence[Path], folder: Path) -> AsyncIterator[Received]:
        for number, path in enumerate(paths):
            target = folder / f"{number:05d}.dcm"
            shutil.copyfile(path, target)
            yield Received(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID), target, target.stat().st_size)


def structure(identifier: str, name: str, *pacs: FakePacs, archives: tuple[FakeArchive, ...] = ()) -> ConsumerStructure:
    # The doubles neither connect nor sign: empty contexts and no certificate are enough.
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def actor(identity: VihfIdentity) -> Actor:
        return Actor(identity, tls, None)  # type: ignore[arg-type]

    return ConsumerStructure(name, name, (identifier,), tls, actor, pacs=pacs, archives=archives)


@dataclass
class Study:
    """One study as a site made it: its KOS entry, its report entry, its images on disk."""

    patient: TestPatient
    manifest: Manifest
    kos: DocumentEntry
    files: dict[str, list[Path]]


def make_study(
    folder: Path,
    patient: TestPatient,
    sources: Sequence[Sequence[Path]],
    *,
    day: str = "20240115",
    modality: str = "CT",
    region: Coded | None = None,
    accession: str = "ACN101",
    host: str = DB_HOST,
    image_patient: TestPatient | None = None,
    described_as: TestPatient | None = None,
) -> Study:
    """A study made of real images (one list of files per series), with its KOS and the entry that describes it.

    ``image_patient`` is whose INS the images carry, ``described_as`` whom the KOS names, when they are to be wrong.
    """
    study_uid, kos_uid = new_uid(), new_uid()
    shown = described_as or patient
    series, files = [], {}
    for number, originals in enumerate(sources, 1):
        series_uid = new_uid()
        url = f"https://{host}/dicom-web-rs/studies/{study_uid}/series/{series_uid}"
        instances, files[url] = [], []
        for index, original in enumerate(originals, 1):
            dataset = dcmread(original)
            target = folder / f"{series_uid}-{index:04d}.dcm"
            write_image(dataset, target, study_uid, series_uid, number, index, image_patient or patient, modality)
            instances.append(Instance(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), index))
            files[url].append(target)
        series.append(ManifestSeries(series_uid, url, modality, number, f"SERIE {number}", tuple(instances)))
    manifest = Manifest(
        kos_uid=kos_uid,
        study_uid=study_uid,
        study_date=day,
        description="EXAMEN DE TEST",
        ins=shown.ins,
        patient_name=f"{shown.family}^{shown.given}",
        birth_date=shown.birth,
        sex=shown.sex,
        birth_place="51215",
        requests=(),
        series=tuple(series),
        study_time="101500",
        series_uid=new_uid(),
        institution="CENTRE DE RADIOLOGIE",
        manufacturer="drimbox",
        created=dt.datetime(2024, 1, 15, 12, tzinfo=dt.UTC),
    )
    content = encode(manifest)
    kos = DocumentEntry(
        unique_id=kos_uid,
        patient_id=Cx(patient.matricule, TEST_OID, "NH"),
        mime_type="application/dicom",
        entry_id=f"urn:uuid:{kos_uid}",
        status=Status.APPROVED,
        repository_id="1.2.3",
        hash=hashlib.sha1(content, usedforsecurity=False).hexdigest(),
        size=len(content),
        creation_time=Dtm.parse(f"{day}120000"),
        service_start=Dtm.parse(f"{day}091500"),
        title="Reference d'Objets d'un Examen d'Imagerie",
        authors=(Author(None, (Xon.structure(STRUCTURE, "CENTRE DE RADIOLOGIE"),)),),
        legal_authenticator=Xcn.professional("899700367909", "DOC0036790", "KIT"),
        class_code=KOS_CLASS,
        type_code=KOS_TYPE,
        format_code=KOS_FORMAT,
        confidentiality=(NORMAL,),
        event_codes=(
            Coded(modality, MODALITIES, ""),
            region or Coded("67734004", SNOMED_CT, "segment thoracique du tronc"),
        ),
        references=(Cx(study_uid, "", REFERENCE_STUDY), Cx(accession, "1.2.250.1.999.3", REFERENCE_ACCESSION)),
    )
    return Study(patient, manifest, kos, files)


def write_image(
    dataset: Dataset,
    target: Path,
    study_uid: str,
    series_uid: str,
    series_number: int,
    index: int,
    patient: TestPatient,
    modality: str,
) -> None:
    """Give a real image the identifiers of the test: its INS stands in Other Patient IDs, as sources send it."""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, series_uid
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = new_uid()
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.Modality = series_number, index, modality
    dataset.PatientName, dataset.PatientID = f"{patient.family}^{patient.given}", "IPP-SOURCE"
    dataset.PatientBirthDate, dataset.PatientSex = patient.birth, patient.sex
    other = Dataset()
    other.PatientID, other.TypeOfPatientID, other.IssuerOfPatientID = patient.matricule, "TEXT", "ASIP-SANTE-INS-NIR"
    dataset.OtherPatientIDsSequence = DicomSequence([other])
    dataset.save_as(target, enforce_file_format=True)


def report_entry(study: Study, unique_id: str, **changes: Any) -> DocumentEntry:
    """The entry of a report on a study, as the RIS registered it."""
    entry = replace(
        study.kos,
        unique_id=unique_id,
        entry_id=f"urn:uuid:{unique_id}",
        mime_type="text/xml",
        title="SCANNER THORACIQUE",
        class_code=REPORT_CLASS,
        type_code=REPORT_TYPE,
        format_code=None,
        event_codes=(),
        hash="",
        size=None,
    )
    return replace(entry, **changes)


@dataclass
class Browser:
    """Keeps cookies, follows redirections inside the site, reads forms."""

    http: HttpClient
    origin: str
    tls: ssl.SSLContext
    cookies: dict[str, str] = field(default_factory=dict)
    visited: list[str] = field(default_factory=list)
    set_cookies: list[str] = field(default_factory=list)

    async def send(
        self, method: str, path: str, fields: dict[str, Any] | None = None, *, follow: bool = True, **headers: str
    ) -> Reply:
        url = path if path.startswith("https://") else f"{self.origin}{path}"
        body = urlencode(fields, doseq=True).encode() if fields is not None else None
        while True:
            sent = {"Accept": "text/html", **{name.replace("_", "-"): value for name, value in headers.items()}}
            if self.cookies:
                sent["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
            if body is not None:
                sent["Content-Type"] = "application/x-www-form-urlencoded"
            self.visited.append(url)
            reply = await self.http.send(method, url, tls=self.tls, headers=sent, body=body)
            self._keep(reply)
            if not follow or reply.status not in (302, 303):
                return reply
            target = reply.headers["Location"]
            url = target if target.startswith("https://") else f"{self.origin}{target}"
            method, body = "GET", None

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.send("GET", path, **headers)

    async def submit(self, page: Reply, to: str = "", **fields: Any) -> Reply:
        """Fill in and send the form of a page whose address ends in ``to``."""
        tree = html.fromstring(page.body)
        forms = tree.forms if to else tree.xpath("//main//form")
        form = next(f for f in forms if f.action.endswith(to))
        hidden = {e.name: e.value for e in form.xpath(".//input[@type='hidden']")}
        return await self.send("POST", form.action, {**hidden, **fields})

    @property
    def path(self) -> str:
        return urlsplit(self.visited[-1]).path

    def _keep(self, reply: Reply) -> None:
        for line in reply.headers.getall("Set-Cookie", []):
            self.set_cookies.append(line)
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value


@dataclass
class Site:
    """One consumer and everything around it."""

    origin: str
    app: ASGIApp
    clock: FixedClock
    psc: FakePsc
    dmp: FakeDmp
    sources: FakeSources
    journal: FakeJournal
    hosts: FakeHosts
    folder: Path
    trust: ssl.SSLContext
    http: HttpClient
    pacs: FakePacs = field(default_factory=FakePacs)
    archive: FakeArchive = field(default_factory=FakeArchive)

    def browser(self) -> Browser:
        return Browser(self.http, self.origin, self.trust)

    def hold(self, patient: TestPatient, *studies: Study) -> Record:
        """Put studies in the DMP, and their images at their sources."""
        record = self.dmp.records.setdefault(patient.matricule, Record())
        for study in studies:
            record.entries.append(study.kos)
            record.contents[study.kos.unique_id] = encode(study.manifest)
            self.sources.series.update(study.files)
        return record

    async def call(self, patient: TestPatient = DOMINIQUE, **more: str) -> str:
        """The RIS makes its call; gives the single-use address."""
        caller = self.browser()
        reply = await caller.send("POST", "/drim", patient.call(**more), follow=False)
        assert reply.status == 303, reply.body
        return reply.headers["Location"].removeprefix(self.origin)

    async def log_in(self, browser: Browser, patient: TestPatient = DOMINIQUE, **more: str) -> Reply:
        """From the call to the page that comes after the notice."""
        page = await browser.get(await self.call(patient, **more))
        if browser.path.startswith("/appel/") and b"/connexion" in page.body:
            page = await browser.get(f"{browser.path}/connexion")
        if b"/information" in page.body:
            page = await browser.submit(page, "/information", lu="oui")
        return page


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def text_of(reply: Reply) -> str:
    """What a person reads on a page."""
    tree = html.fromstring(reply.body)
    for unseen in tree.xpath("//script|//style|//head"):
        unseen.getparent().remove(unseen)
    return " ".join(tree.text_content().split())
