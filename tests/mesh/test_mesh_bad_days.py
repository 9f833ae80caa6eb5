"""The radiologist's bad days, as the screen shows them: sources that fail or lie, KOS that are none, a second login.

A patient of their own at the DMP, and sources that speak WADO-RS over mutual TLS as badly as they are told to.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import random
import re
import shutil
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from mesh_world import World
from playwright.async_api import Locator, Page, expect
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.sequence import Sequence
from test_mesh_list import (  # noqa: F401 - fixtures
    Desk,
    Order,
    chromium,
    desk,
    kos_document,
    manifest,
    pictured,
    settled,
)

from consumer.bad_source import BadSource
from drimbox.demo.mesh import PATIENT_AT_B
from drimbox.foundation.uids import new_uid
from drimbox.identity.ins import Ins
from drimbox.manifest.build import encode
from drimbox.manifest.manifest import Manifest, ManifestSeries
from drimbox.pacs.study import Instance
from drimbox.sandbox.pki import Profile

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]


def matricule(number: int) -> str:
    """A matricule that nobody else of these tests has; its last two digits are the key of the others."""
    body = 2790351216000 + number
    return f"{body}{97 - body % 97:02d}"


FRESH = random.randrange(900)
PATIENT = replace(PATIENT_AT_B, ins=matricule(FRESH), ipp="IPP-B-4713")
NEIGHBOUR = replace(PATIENT_AT_B, ins=matricule(FRESH + 1), ipp="IPP-B-4714")
CT = Path(get_testdata_file("CT_small.dcm"))
IMAGES = 3


@dataclass
class Exam:
    """One exam of the patient: the day by which its row is known, and its images by the path of their series."""

    day: dt.datetime
    manifest: Manifest
    files: dict[str, list[Path]]

    def row(self, page: Page) -> Locator:
        mark = page.locator(f"time[datetime='{self.day:%Y-%m-%d}']")
        return page.locator("table.exams tbody tr", has=mark)


@dataclass
class Sources:
    """The sources of the patient's exams, each on a port of its own."""

    folder: Path
    tls: ssl.SSLContext
    ports: list[int] = field(default_factory=list)
    servers: list[BadSource] = field(default_factory=list)
    listening: list[asyncio.Server] = field(default_factory=list)
    days: Iterator[int] = field(default_factory=lambda: iter(()))

    async def add(self) -> None:
        source = BadSource()
        listening = await asyncio.start_server(source.answer, "127.0.0.1", 0, ssl=self.tls)
        self.servers.append(source)
        self.listening.append(listening)
        self.ports.append(listening.sockets[0].getsockname()[1])

    async def stop(self, number: int) -> None:
        """Nobody answers at its port any more."""
        self.listening[number].close()
        self.servers[number].close()

    async def start(self, number: int) -> None:
        """It is back, where it was."""
        self.listening[number] = await asyncio.start_server(
            self.servers[number].answer, "127.0.0.1", self.ports[number], ssl=self.tls
        )

    def exam(self, *ways: str, source: int = 0, host: str = "", whose: str = PATIENT.ins, images: int = IMAGES) -> Exam:
        """An exam of one series for each way in which its source misbehaves; ``whose`` INS its images carry."""
        day = dt.datetime(2001, 1, 1, 9, tzinfo=dt.UTC) + dt.timedelta(days=next(self.days))
        study, series, files = new_uid(), [], {}
        for number, way in enumerate(ways, 1):
            uid = new_uid()
            url = f"https://{host or f'localhost:{self.ports[source]}'}/dicom-web-rs/studies/{study}/series/{uid}"
            paths = [self._image(study, uid, number, index, whose) for index in range(1, images + 1)]
            instances = tuple(Instance(str(CT_CLASS), path.stem, n) for n, path in enumerate(paths, 1))
            series.append(ManifestSeries(uid, url, "CT", number, f"SERIE {number}", instances))
            files[urlsplit(url).path] = paths
            self.servers[source].files[urlsplit(url).path] = paths
            self.servers[source].ways[urlsplit(url).path] = way
        whole = replace(
            manifest(1, host="localhost"),
            kos_uid=new_uid(),
            study_uid=study,
            study_date=f"{day:%Y%m%d}",
            ins=Ins.of(PATIENT.ins, PATIENT.ins_oid),
            series=tuple(series),
            series_uid=new_uid(),
        )
        return Exam(day, whole, files)

    def _image(self, study: str, series: str, number: int, index: int, whose: str) -> Path:
        one = dcmread(CT)
        one.StudyInstanceUID, one.SeriesInstanceUID = study, series
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = new_uid()
        one.SeriesNumber, one.InstanceNumber = number, index
        one.PatientName, one.PatientID = f"{PATIENT.family}^{PATIENT.given}", "IPP-SOURCE"
        one.PatientBirthDate, one.PatientSex = PATIENT.birth_date, PATIENT.sex
        other = Dataset()
        other.PatientID, other.TypeOfPatientID, other.IssuerOfPatientID = whose, "TEXT", "ASIP-SANTE-INS-NIR"
        one.OtherPatientIDsSequence = Sequence([other])
        path = self.folder / f"{one.SOPInstanceUID}.dcm"
        one.save_as(path, enforce_file_format=True)
        return path


CT_CLASS = dcmread(CT, stop_before_pixels=True).SOPClassUID


@pytest.fixture(scope="module")
def days() -> Iterator[int]:
    """A day of its own for each exam: its row in the list is known by it."""
    return itertools.count(random.randrange(6000))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "images").mkdir()
    yield tmp_path / "images"
    shutil.rmtree(tmp_path / "images", ignore_errors=True)


@pytest_asyncio.fixture(loop_scope="session")
async def sources(world: World, folder: Path, days: Iterator[int]) -> AsyncIterator[Sources]:
    pair = world.authority.issue(
        Profile.SSL_SERV, "bad-source", common_name="localhost", unit="1", organisation="TEST", hosts=["localhost"]
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.certificate, pair.key)
    sources = Sources(folder, tls, days=days)
    for _ in range(5):
        await sources.add()
    yield sources
    for number in range(5):
        await sources.stop(number)


@pytest_asyncio.fixture(loop_scope="session")
async def record(world: World) -> AsyncIterator[Order]:
    """The DMP of the patient of these tests, open and allowed."""
    order = Order(world, PATIENT)
    await order.patient()
    await order.authorisation("VALIDE")
    yield order
    await world.view("/faults", "DELETE")


async def published(record: Order, *exams: Exam, contents: dict[str, bytes] | None = None) -> None:
    """Each exam at the DMP; ``contents`` instead of the KOS of some, by its UID."""
    given = contents or {}
    told = [kos_document(one.manifest, one.day, given.get(one.manifest.kos_uid)) for one in exams]
    await record.holds(*(one | {"patient": record.cx} for one in told))


async def at_the_list(desk: Desk) -> Page:  # noqa: F811
    page = await desk.page(PATIENT)
    await settled(page)
    await expect(page.locator("#liste")).not_to_contain_text("vérification…")
    return page


async def opened(page: Page, exam: Exam) -> None:
    await exam.row(page).get_by_role("link", name="Ouvrir les images").click()
    await expect(page.locator("#avancement, main [role=alert]").first).to_be_attached()


def failure(page: Page, series: int) -> Locator:
    """The line of a series that did not come."""
    return page.locator("#pannes li", has_text=re.compile(rf"^Série {series}\b"))


@pytest.mark.requirement("DB.VI-CO.27", "DB.CO.112")
async def test_two_of_five_sources_are_down_and_one_is_slow(
    desk: Desk,  # noqa: F811
    record: Order,
    sources: Sources,
) -> None:
    exams = [sources.exam(way, source=n) for n, way in enumerate(("good", "good", "slow", "good", "good"))]
    down, slow, fine = exams[:2], exams[2], exams[3:]
    for n in (0, 1):
        await sources.stop(n)
    await published(record, *exams)
    page = await at_the_list(desk)
    for one in down:
        await expect(one.row(page)).to_contain_text("la source ne répond pas")
    for one in (slow, *fine):
        await expect(one.row(page)).not_to_contain_text("ne répond pas")
    await pictured(page, "bad-day-list")
    await desk.looked_at(page)
    for one in fine:
        await opened(page, one)
        await expect(page.locator("#avancement .figure")).to_contain_text("3 / 3 images")
        await page.go_back()
    await opened(page, slow)
    await expect(page.locator("#avancement .figure")).to_contain_text("1 / 3 images")
    await pictured(page, "bad-day-slow")
    sources.servers[2].gate.set()
    await expect(page.locator("#avancement .figure")).to_contain_text("3 / 3 images")
    await page.go_back()
    await opened(page, down[0])
    await expect(failure(page, 1)).to_contain_text("DRIMbox source injoignable : elle est peut-être arrêtée")
    await desk.looked_at(page)
    await pictured(page, "bad-day-down")
    # It is back: one press, and the exam is there.
    await sources.start(0)
    await page.get_by_role("button", name="Réessayer").click()
    await expect(page.locator("#avancement .figure")).to_contain_text("3 / 3 images")
    await expect(page.locator("#pannes")).to_be_hidden()


# How a source answers for each series of one exam, what is kept of it on the screen, and what is said.
ANSWERS = (
    ("good", 3, ""),
    ("truncated", 1, "Récupération des images interrompue"),
    ("short", 2, "n'a pas envoyé toutes les images annoncées"),
    ("page", 0, "a répondu autre chose que des images"),
    ("enormous", 0, "annonce plus que la taille permise"),
    ("multiplying", 0, "inattendue"),
    ("good", 0, "ne porte pas l'INS du patient"),
    ("good", 0, "autre examen"),
    ("401", 0, "refuse le jeton d'accès"),
    ("403", 0, "profession non habilitée"),
    ("404", 0, "ne connaît pas ces images"),
    ("503", 0, "occupée"),
)


@pytest.mark.requirement("DB.VI-CO.27", "DB.CO.68", "DB.CO.112", "D23")
async def test_each_wrong_answer_has_its_sentence_and_the_good_series_is_shown(
    desk: Desk,  # noqa: F811
    record: Order,
    sources: Sources,
) -> None:
    exam = sources.exam(*(way for way, _, _ in ANSWERS))
    of_another_patient, of_another_exam = (exam.manifest.series[n].retrieve_url for n in (6, 7))
    one = exam.files[urlsplit(of_another_patient).path][1]
    image = dcmread(one)
    image.OtherPatientIDsSequence[0].PatientID = NEIGHBOUR.ins
    image.save_as(one)
    stranger = exam.files[urlsplit(of_another_exam).path][1]
    image = dcmread(stranger)
    image.StudyInstanceUID = new_uid()
    image.save_as(stranger)
    await published(record, exam)
    page = await at_the_list(desk)
    await opened(page, exam)
    for number, (_, kept, words) in enumerate(ANSWERS, 1):
        if words:
            line = failure(page, number)
            await expect(line).to_contain_text(words)
            if kept:
                await expect(line).to_contain_text(f"({kept} image")
    assert await failure(page, 1).count() == 0
    await expect(page.locator("#pannes").get_by_role("button", name="Réessayer")).to_be_visible()
    await expect(page.locator("#pannes .count")).to_have_text("11 séries sur 12 ne sont pas venues, ou pas en entier :")
    # What is missing counts: a part is never said to be all.
    await expect(page.locator("#avancement .figure")).to_have_text("16 % – 6 / 36 images")
    # The whole series and what came of the two others are there to be looked at, and nothing else.
    shown = page.frame_locator("iframe.viewer").locator("[data-cy='study-browser-thumbnail']")
    await expect(shown).to_have_count(3)
    await desk.looked_at(page)
    await pictured(page, "bad-day-answers")
    # Of the liar nothing can be fetched; of the good series everything.
    view = await page.locator("#avancement").get_attribute("data-source")
    assert view is not None
    base = f"{view.removesuffix('/etat')}/dicomweb/studies/{exam.manifest.study_uid}/series"
    for number, (way, kept, _) in enumerate(ANSWERS):
        series = exam.manifest.series[number]
        told = await page.evaluate(
            "async address => (await (await fetch(address)).json()).length",
            f"{base}/{series.series_uid}/arrivees?depuis=0",
        )
        assert told == kept, way
    # What was taken off the screen while the viewer was asking for it is told in its console.
    desk.errors[:] = [told for told in desk.errors if not told.endswith("/frames/1")]


@pytest.mark.requirement("DB.CO.57", "D15")
async def test_what_is_no_kos_is_said_in_its_row_and_opens_as_a_page_of_its_own(
    desk: Desk,  # noqa: F811
    record: Order,
    sources: Sources,
) -> None:
    good = sources.exam("good")
    elsewhere = sources.exam("good", host="ailleurs.example")
    pdf, cut, xml, short = (sources.exam("good") for _ in range(4))
    whole = encode(cut.manifest)
    contents = {
        pdf.manifest.kos_uid: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(2000) + b"%%EOF",
        cut.manifest.kos_uid: whole[: len(whole) // 2],
        xml.manifest.kos_uid: b"<?xml version='1.0'?><ClinicalDocument xmlns='urn:hl7-org:v3'/>",
        short.manifest.kos_uid: whole[:140],
    }
    await published(record, good, elsewhere, pdf, cut, xml, short, contents=contents)
    page = await at_the_list(desk)
    await expect(elsewhere.row(page)).to_contain_text("n'est pas dans la liste blanche des DRIMbox")
    for one in (pdf, cut, xml, short):
        await expect(one.row(page).locator(".state.bad")).to_contain_text("Images :")
        await expect(one.row(page).locator(".state.bad")).to_contain_text(re.compile("KOS|DICOM"))
    assert await good.row(page).locator(".state.bad").count() == 0
    await good.row(page).scroll_into_view_if_needed()
    await pictured(page, "bad-day-kos")
    await desk.looked_at(page)
    for number, one in enumerate((elsewhere, pdf, cut, xml, short)):
        await opened(page, one)
        await expect(page.locator("[role=alert]").first).to_contain_text(re.compile("liste blanche|KOS|DICOM"))
        await pictured(page, f"bad-day-kos-{number}")
        await page.go_back()
    # None of the sources was asked for an image; the good exam opens as ever.
    assert sources.servers[0].asked == []
    await opened(page, good)
    await expect(page.locator("#avancement .figure")).to_contain_text("3 / 3 images")


@pytest.mark.requirement("DB.CO.82", "DB.SO.46")
async def test_nothing_of_it_is_in_the_log_and_nothing_failed_without_a_word(world: World) -> None:
    """After all of the above: who the patient is stands nowhere, nor a traceback."""
    log = (world.mesh.state / "logs" / "site-b.log").read_text("utf-8", "replace")
    for word in (PATIENT.ins, NEIGHBOUR.ins, PATIENT.ipp, PATIENT.family, PATIENT.given, PATIENT.birth_date):
        assert word not in log
    assert "Traceback" not in log
