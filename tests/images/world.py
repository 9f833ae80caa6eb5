"""A source box in small: real mTLS, real files, a PACS that does what a test says."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from files import named
from starlette.applications import Starlette

from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import DrimboxError, Misconfigured, Unavailable
from drimbox.foundation.http_server import serving
from drimbox.foundation.uids import new_uid
from drimbox.identity.ins import Ins, key
from drimbox.images.accept import Policy
from drimbox.images.ports import Access, ArchivedKos
from drimbox.images.retrieval import Limits
from drimbox.images.wado import wado_app
from drimbox.images.workers import Transcoder
from drimbox.manifest.build import encode
from drimbox.manifest.manifest import Manifest, ManifestSeries
from drimbox.manifest.read import read_manifest
from drimbox.national.psc.introspection import INACTIVE, Introspection
from drimbox.national.whitelist import Domain, Whitelist
from drimbox.pacs.study import Instance, Series, Study
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust.keystore import load_credential
from drimbox.trust.names import written
from drimbox.trust.tls import client_context, load_trust, server_context

INS = Ins.of("279035121518989", "1.2.250.1.213.1.4.10")
NOW = dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC)
CT = "1.2.840.10008.5.1.4.1.1.2"


async def until(condition: Callable[[], object], seconds: float = 8.0) -> None:
    """Wait for what happens on the other side of a connection."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


def another_ins(number: int) -> Ins:
    thirteen = f"2790351215{number:03d}"
    return Ins.of(thirteen + key(thirteen), INS.oid)


@dataclass(frozen=True)
class Stored:
    """What ``pacs.retrieve`` gives of one instance."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path
    size: int


@dataclass(frozen=True)
class Kos:
    """What ``publication.archive`` gives of one KOS."""

    structure: str
    study_uid: str
    kos_uid: str
    state: str
    ins: Ins
    pacs: str
    kos: bytes


@dataclass
class Exam:
    """One study in the PACS, and its KOS."""

    ins: Ins
    study_uid: str
    kos_uid: str
    series: dict[str, list[Stored]]

    @property
    def instances(self) -> list[Stored]:
        return [i for series in self.series.values() for i in series]

    @property
    def first_series(self) -> str:
        return next(iter(self.series))

    def kos(self, state: str = "current") -> Kos:
        def listed(instances: list[Stored]) -> tuple[Instance, ...]:
            return tuple(Instance(i.sop_class_uid, i.sop_instance_uid, n + 1) for n, i in enumerate(instances))

        base = f"https://db.example/studies/{self.study_uid}/series"
        series = tuple(
            ManifestSeries(uid, f"{base}/{uid}", "CT", 1, "", listed(images)) for uid, images in self.series.items()
        )
        manifest = Manifest(
            kos_uid=self.kos_uid,
            study_uid=self.study_uid,
            study_date="20260504",
            description="SCANNER",
            ins=self.ins,
            patient_name="PAT-TROIS^DOMINIQUE",
            birth_date="19790328",
            sex="F",
            birth_place="63220",
            requests=(),
            series=series,
            series_uid=new_uid(),
            created=NOW,
        )
        return Kos("site-a", self.study_uid, self.kos_uid, state, self.ins, "pacs", encode(manifest))

    def study(self) -> Study:
        series = tuple(
            Series(uid, "CT", 1, "", "", tuple(Instance(i.sop_class_uid, i.sop_instance_uid) for i in images))
            for uid, images in self.series.items()
        )
        return Study(self.study_uid, "IPP", "", "", "", "", "", "", "", "", "", "", "", series)


def make_exam(folder: Path, *, series: int = 1, images: int = 3, ins: Ins = INS, source: str = "CT_small.dcm") -> Exam:
    """A study of real images; the pixels of each are its own, so that a mix-up shows."""
    study_uid = new_uid()
    folder = folder / study_uid
    folder.mkdir(parents=True)
    made: dict[str, list[Stored]] = {}
    for _ in range(series):
        series_uid = new_uid()
        made[series_uid] = [make_image(folder, study_uid, series_uid, source) for _ in range(images)]
    return Exam(ins, study_uid, new_uid(), made)


def make_image(folder: Path, study_uid: str, series_uid: str, source: str = "CT_small.dcm") -> Stored:
    dataset = pydicom.dcmread(named(source))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = study_uid, series_uid, new_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    if "OtherPatientIDsSequence" in dataset:
        del dataset.OtherPatientIDsSequence
    if not dataset.file_meta.TransferSyntaxUID.is_compressed and dataset.BitsAllocated == 16:
        cells = np.frombuffer(dataset.PixelData, "<u2") ^ (zlib.crc32(dataset.SOPInstanceUID.encode()) & 0xFF)
        dataset.PixelData = cells.astype("<u2").tobytes()
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path)
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    return Stored(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), syntax, path, path.stat().st_size)


@dataclass
class Pacs:
    """``SeriesSource`` and ``StudyFinder`` of a PACS that fails as told.

    ``fail_at``: before which image ``failure`` comes; ``gate``: waited for before each image after the first.
    """

    exams: list[Exam]
    fail_at: int | None = None
    failure: DrimboxError = field(default_factory=lambda: Unavailable("Le PACS ne répond pas", code="pacs-cut"))
    find_failure: DrimboxError | None = None
    lost: set[str] = field(default_factory=set)
    extra: list[Stored] = field(default_factory=list)
    gate: asyncio.Event | None = None
    asked: list[tuple[str, str | None, frozenset[str]]] = field(default_factory=list)
    given: int = 0
    running: int = 0
    most: int = 0
    cancelled: int = 0

    @asynccontextmanager
    async def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str]
    ) -> AsyncIterator[AsyncIterator[Stored]]:
        self.asked.append((study_uid, series_uid, frozenset(expected)))
        self.running += 1
        self.most = max(self.most, self.running)
        whole = asyncio.Event()
        try:
            yield self._images(study_uid, series_uid, expected, whole)
        finally:
            self.running -= 1
            self.cancelled += not whole.is_set()

    async def _images(
        self, study_uid: str, series_uid: str | None, expected: Collection[str], whole: asyncio.Event
    ) -> AsyncIterator[Stored]:
        exam = next(e for e in self.exams if e.study_uid == study_uid)
        images = [i for uid, s in exam.series.items() if series_uid in (None, uid) for i in s]
        for index, image in enumerate([*self.extra, *images]):
            if self.fail_at is not None and index >= self.fail_at:
                raise self.failure
            if self.gate is not None and index:
                await self.gate.wait()
            if image in self.extra or image.sop_instance_uid in set(expected) - self.lost:
                self.given += 1
                yield image
        if self.lost & set(expected):
            raise Unavailable("Le PACS n'a pas tout envoyé", code="pacs-instances-missing")
        whole.set()

    async def find(self, study_uid: str) -> Study | None:
        if self.find_failure is not None:
            raise self.find_failure
        study = next((e.study() for e in self.exams if e.study_uid == study_uid), None)
        if study is None or not self.lost:
            return study
        series = tuple(
            replace(s, instances=tuple(i for i in s.instances if i.sop_instance_uid not in self.lost))
            for s in study.series
        )
        return replace(study, series=series)


@dataclass
class Archive:
    """``publication.archive.Archive``, as far as it is asked."""

    held: dict[str, Kos]
    down: bool = False

    async def by_kos_uid(self, kos_uid: str) -> Kos | None:
        if self.down:
            raise Unavailable("Base injoignable", code="database")
        return self.held.get(kos_uid)


@dataclass
class Psc:
    """Introspection at Pro Sante Connect."""

    tokens: dict[str, Introspection]
    down: bool = False

    async def introspect(self, token: str) -> Introspection:
        if self.down:
            raise Unavailable("PSC injoignable", code="psc")
        return self.tokens.get(token, INACTIVE)


@dataclass(frozen=True)
class Keys:
    """The certificates of both sides."""

    authority: TestAuthority
    server: PemPair
    peer: PemPair
    stranger: PemPair

    @cache  # noqa: B019 - the keys live as long as the test run
    def client(self, pair: PemPair | None = None) -> ssl.SSLContext:
        chosen = pair or self.peer
        trust = load_trust([self.authority.roots], self.authority.revocation_lists)
        return client_context(trust, load_credential(chosen.certificate, chosen.key))

    def listener(self) -> ssl.SSLContext:
        trust = load_trust([self.authority.roots], self.authority.revocation_lists)
        return server_context(load_credential(self.server.certificate, self.server.key), trust)

    def der(self, pair: PemPair) -> bytes:
        return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).public_bytes(Encoding.DER)

    def whitelist(self) -> Whitelist:
        peer = x509.load_pem_x509_certificate(self.peer.certificate.read_bytes())
        return Whitelist(NOW, (Domain("7", "db7.example", "vi7.example", "SITE B", written(peer.subject)),))


def make_keys(authority: TestAuthority) -> Keys:
    def issue(profile: Profile, name: str, common_name: str, hosts: tuple[str, ...] = ()) -> PemPair:
        return authority.issue(
            profile, name, common_name=common_name, unit="318751275100020", organisation="SITE", hosts=hosts
        )

    return Keys(
        authority,
        issue(Profile.SSL_SERV, "wado-server", "db3.example", ("localhost", "127.0.0.1")),
        issue(Profile.ORG_AUTH_CLI, "wado-peer", "db7.example"),
        issue(Profile.ORG_AUTH_CLI, "wado-stranger", "db9.example"),
    )


@dataclass
class Box:
    """A source box that listens."""

    keys: Keys
    pacs: Pacs
    archive: Archive
    psc: Psc
    transcoder: Transcoder
    scratch: Path
    whitelist_down: bool = False
    checks: Mapping[str, bool] = field(default_factory=lambda: {"pacs": True})
    accesses: list[Access] = field(default_factory=list)
    port: int = 0
    base: str = "/dicom-web-rs"
    told_by_userinfo: Mapping[str, tuple[str, ...]] | None = None
    unknown_pacs: bool = False

    def app(
        self, *, policy: Policy = Policy.QUALITY, limits: Limits | None = None, max_parallel: int = 32
    ) -> Starlette:
        async def whitelist() -> Whitelist:
            if self.whitelist_down:
                raise Unavailable("Liste blanche trop ancienne", code="whitelist-old")
            return self.keys.whitelist()

        async def journal(access: Access) -> None:
            self.accesses.append(access)

        async def health() -> Mapping[str, bool]:
            return self.checks

        async def professions_of(token: str) -> tuple[str, ...]:
            assert self.told_by_userinfo is not None
            return self.told_by_userinfo[token]

        def choose(kos: ArchivedKos) -> Pacs:
            if self.unknown_pacs:
                raise Misconfigured("PACS inconnu", code="pacs-unknown")
            return self.pacs

        return wado_app(
            base_path=self.base,
            archive=self.archive,
            read_manifest=read_manifest,
            choose_source=choose,
            choose_finder=choose,
            professions_of=professions_of if self.told_by_userinfo is not None else None,
            introspect=self.psc.introspect,
            whitelist=whitelist,
            professions=("10", "21"),
            journal=journal,
            health=health,
            transcoder=self.transcoder,
            scratch=self.scratch,
            clock=SystemClock(),
            policy=policy,
            limits=limits,
            max_parallel=max_parallel,
        )

    @property
    def root(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def url(self) -> str:
        return self.root + self.base

    def series_url(self, exam: Exam) -> str:
        return f"{self.url}/studies/{exam.study_uid}/series/{exam.first_series}"

    def headers(self, exam: Exam, **other: str) -> dict[str, str]:
        own = {"Authorization": "Bearer good", "KOS-SOPInstanceUID": exam.kos_uid}
        return own | {name.replace("_", "-"): value for name, value in other.items()}

    def add(self, exam: Exam, state: str = "current") -> Exam:
        self.pacs.exams.append(exam)
        self.archive.held[exam.kos_uid] = exam.kos(state)
        return exam


def make_box(keys: Keys, transcoder: Transcoder, scratch: Path) -> Box:
    doctor = Introspection(active=True, national_id="899700218896", profession="10")
    tokens = {
        "good": doctor,
        "bound": replace(doctor, confirmation=_thumbprint(keys.der(keys.peer))),
        "bound-elsewhere": replace(doctor, confirmation=_thumbprint(keys.der(keys.stranger))),
        "baker": replace(doctor, profession="99"),
        "unknown-profession": replace(doctor, profession=None),
    }
    return Box(keys, Pacs([]), Archive({}), Psc(tokens), transcoder, scratch)


@asynccontextmanager
async def listening(
    box: Box, *, policy: Policy = Policy.QUALITY, limits: Limits | None = None, max_parallel: int = 32
) -> AsyncIterator[Box]:
    app = box.app(policy=policy, limits=limits, max_parallel=max_parallel)
    async with AsyncExitStack() as stack:
        box.port = await stack.enter_async_context(serving(app, host="127.0.0.1", port=0, tls=box.keys.listener()))
        yield box


def _thumbprint(der: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
