"""Sources on their bad days, on the wire: each says its French sentence, nothing is mixed, limits hold."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from bad_source import BadSource
from consumer_world import DOMINIQUE, SECOND, Browser, Site, Study, free_port, make_study
from lxml import html
from pydicom import dcmread
from pydicom.data import get_testdata_file

from drimbox.foundation.clock import SystemClock
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.uids import new_uid
from drimbox.images.client import WadoClient
from drimbox.manifest.manifest import ManifestSeries
from drimbox.pacs.study import Instance
from drimbox.sandbox.pki import Profile, TestAuthority

CT = Path(get_testdata_file("CT_small.dcm"))
RLE = Path(get_testdata_file("MR_small_RLE.dcm"))
RAW_DATA = "1.2.840.10008.5.1.4.1.1.66"


class Day:
    """A consumer with its real client, and the source that it meets."""

    def __init__(self, site: Site, source: BadSource, port: int, folder: Path) -> None:
        self.site, self.source, self.port, self.folder = site, source, port, folder

    def study(self, *ways: str, images: int = 3, **more: Any) -> Study:
        """A study of one series for each way to misbehave."""
        host = more.pop("host", f"localhost:{self.port}")
        study = make_study(self.folder, DOMINIQUE, [[CT] * images for _ in ways], host=host, **more)
        for series, way in zip(study.manifest.series, ways, strict=True):
            path = urlsplit(series.retrieve_url).path
            self.source.files[path], self.source.ways[path] = study.files[series.retrieve_url], way
        self.site.hold(DOMINIQUE, study)
        return study

    async def opened(self, browser: Browser | None = None) -> tuple[Browser, str]:
        """A browser in front of the images; the address of its viewer."""
        browser = browser or self.site.browser()
        page = await self.site.log_in(browser)
        addresses = html.fromstring(page.body).xpath("//a[contains(@href, '/images/')]/@href")
        viewer = await browser.get(addresses[0])
        assert viewer.status == 200, viewer.body
        (frame,) = html.fromstring(viewer.body).xpath("//iframe/@src")
        return browser, frame.split("/viewer?")[0]

    async def state(self, browser: Browser, view: str) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = json.loads((await browser.get(f"{view}/etat")).body)["series"]
        return told

    async def begun(self, browser: Browser, view: str, count: int) -> None:
        """Until so many series have brought an image."""
        async with asyncio.timeout(20):
            while True:
                if sum(one["received"] > 0 for one in await self.state(browser, view)) == count:
                    return
                await asyncio.sleep(0.02)

    async def over(self, browser: Browser, view: str) -> list[dict[str, Any]]:
        """How each series ended."""
        async with asyncio.timeout(20):
            while True:
                told = json.loads((await browser.get(f"{view}/etat")).body)
                if told["over"]:
                    return list(told["series"])
                await asyncio.sleep(0.02)

    async def outcome(self, *ways: str, **more: Any) -> list[dict[str, Any]]:
        study = self.study(*ways, **more)
        told = {one["uid"]: one for one in await self.over(*await self.opened())}
        return [told[series.series_uid] for series in study.manifest.series]


@pytest.fixture
def ways() -> dict[str, Any]:
    return {"with_weasis": True}


@pytest.fixture
async def day(site: Site, authority: TestAuthority, tmp_path: Path) -> AsyncIterator[Day]:
    pair = authority.issue(
        Profile.SSL_SERV, "source", common_name="localhost", unit="1", organisation="TEST", hosts=["localhost"]
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.certificate, pair.key)
    source = BadSource()
    async with AsyncExitStack() as stack:
        listening = await asyncio.start_server(source.answer, "localhost", 0, ssl=server)
        stack.callback(listening.close)
        stack.callback(source.close)
        http = await stack.enter_async_context(HttpClient())
        wado = WadoClient(http, SystemClock(), silence=1.0, max_bytes=4 * 2**20)
        believe(site, wado, site.trust)
        site.hosts.hosts.add("localhost")
        port = listening.sockets[0].getsockname()[1]
        yield Day(site, source, port, tmp_path / "images")


def believe(site: Site, wado: WadoClient, trust: ssl.SSLContext) -> None:
    """The site fetches by the real client; its structures have no certificates of their own."""

    def fetch(url: str, *, tls: ssl.SSLContext, **more: Any) -> Any:
        return wado.fetch_series(url, tls=trust, **more)

    async def probe(url: str, *, tls: ssl.SSLContext) -> Any:
        return await wado.probe(url, tls=trust)

    site.sources.fetch_series = fetch  # type: ignore[method-assign, assignment]
    site.sources.probe = probe  # type: ignore[method-assign, assignment]


@pytest.fixture(autouse=True)
def images_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()


@pytest.mark.requirement("DB.VI-CO.27", "DB.CO.112")
async def test_the_six_failures_have_six_sentences(day: Day) -> None:
    """No connection, an error on the way, a class, a syntax, the token, the profession: told apart on the screen."""
    unreached = day.study("good", host=f"localhost:{free_port()}")
    others = day.study("truncated", "good", "good", "401", "403")
    unshown, unasked = (day.source.files[urlsplit(s.retrieve_url).path] for s in others.manifest.series[1:3])
    for path in unshown:
        dataset = dcmread(path)
        del dataset.PixelData
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = RAW_DATA
        dataset.save_as(path)
    for path in unasked:
        dataset = dcmread(path)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
        dataset.save_as(path)
    browser = day.site.browser()
    page = await day.site.log_in(browser)
    told = []
    for address in html.fromstring(page.body).xpath("//a[contains(@href, '/images/')]/@href"):
        viewer = await browser.get(address)
        (frame,) = html.fromstring(viewer.body).xpath("//iframe/@src")
        told += await day.over(browser, frame.split("/viewer?")[0])
    assert {one["state"] for one in told} == {"failed"}
    reason = {one["uid"]: one["reason"] for one in told}
    sentences = [reason[s.series_uid] for s in (*unreached.manifest.series, *others.manifest.series)]
    assert len(set(sentences)) == 6
    expected = ("injoignable", "interrompue", "classe SOP", "syntaxe de transfert", "jeton", "profession")
    for sentence, word in zip(sentences, expected, strict=True):
        assert word in sentence
    # The source that answers its ping is alive, its PACS may not be; the other one is not there at all.
    assert "son PACS" in sentences[1]
    assert "liaison Internet" in sentences[0]


@pytest.mark.requirement("DB.VI-CO.27", "DB.VI-CS.17")
@pytest.mark.parametrize(
    ("way", "received", "words"),
    [
        ("truncated", 1, "interrompue"),
        ("short", 2, "n'a pas envoyé toutes les images"),
        ("silent", 0, "interrompue"),
        ("endless", 0, "taille permise"),
        ("multiplying", 0, "inattendue"),
        ("enormous", 0, "annonce plus que la taille permise"),
        ("page", 0, "autre chose que des images"),
        ("404", 0, "ne connaît pas ces images"),
        ("410", 0, "n'a plus ces images"),
        ("503", 0, "occupée"),
        ("500", 0, "Erreur de la source"),
    ],
)
async def test_a_bad_answer_is_told_and_the_other_series_is_whole(
    day: Day, way: str, received: int, words: str
) -> None:
    bad, good = await day.outcome(way, "good")
    assert (bad["state"], bad["received"], bad["expected"]) == ("failed", received, 3)
    assert words in bad["reason"]
    assert (good["state"], good["received"], good["reason"]) == ("done", 3, "")
    # What was sent beyond the limit was not taken in for long.
    assert day.source.sent < 32 * 2**20


@pytest.mark.requirement("DB.VI-CO.27")
async def test_two_of_five_sources_are_down_and_one_is_slow(day: Day) -> None:
    down = [day.study("good", day="20240101", host=f"localhost:{free_port()}") for _ in range(2)]
    fine = [day.study("good", day="20240102") for _ in range(2)]
    slow = day.study("slow", day="20240103")
    browser = day.site.browser()
    page = await day.site.log_in(browser)
    views = {}
    for address in html.fromstring(page.body).xpath("//a[contains(@href, '/images/')]/@href"):
        (frame,) = html.fromstring((await browser.get(address)).body).xpath("//iframe/@src")
        views[frame.split("StudyInstanceUIDs=")[1]] = frame.split("/viewer?")[0]
    for study in down:
        (one,) = await day.over(browser, views[study.manifest.study_uid])
        assert (one["state"], one["again"]) == ("failed", True)
    for study in fine:
        (one,) = await day.over(browser, views[study.manifest.study_uid])
        assert (one["state"], one["received"]) == ("done", 3)
    # The first image of the slow one is there to be seen; the rest comes when it comes.
    view = views[slow.manifest.study_uid]
    series = f"{view}/dicomweb/studies/{slow.manifest.study_uid}/series/{slow.manifest.series[0].series_uid}"
    first = await browser.get(f"{series}/arrivees?depuis=0")
    assert [i["00080018"]["Value"][0] for i in json.loads(first.body)] == [
        slow.manifest.series[0].instances[0].sop_instance_uid
    ]
    picture = await browser.get(f"{view}/apercu")
    assert (picture.status, picture.body[:4]) == (200, b"\x89PNG")
    (one,) = await day.state(browser, view)
    assert (one["state"], one["received"]) == ("running", 1)
    day.source.gate.set()
    (one,) = await day.over(browser, view)
    assert (one["state"], one["received"]) == ("done", 3)


@pytest.mark.requirement("DB.CO.68", "D23")
async def test_another_patient_s_image_takes_the_whole_series_off_the_screen(day: Day) -> None:
    study = day.study("good", "good")
    first = study.manifest.series[0]
    files = day.source.files[urlsplit(first.retrieve_url).path]
    dataset = dcmread(files[1])
    dataset.OtherPatientIDsSequence[0].PatientID = SECOND.matricule
    dataset.save_as(files[1])
    browser, view = await day.opened()
    bad, good = await day.over(browser, view)
    assert (bad["state"], bad["received"], bad["withdrawn"], bad["again"]) == ("failed", 0, 1, False)
    assert "patient" in bad["reason"]
    assert (good["state"], good["received"]) == ("done", 3)
    series = f"{view}/dicomweb/studies/{study.manifest.study_uid}/series/{first.series_uid}"
    assert json.loads((await browser.get(f"{series}/arrivees?depuis=0")).body) == []
    for instance in first.instances:
        assert (await browser.get(f"{series}/instances/{instance.sop_instance_uid}/frames/1")).status == 409
    assert len(list(day.site.folder.rglob("*.dcm"))) == 3
    assert SECOND.matricule not in str(day.site.journal.events)


@pytest.mark.requirement("DB.CO.68")
async def test_an_image_of_another_exam_is_not_taken_in(day: Day) -> None:
    study = day.study("good")
    other = make_study(day.folder, DOMINIQUE, [[CT]])
    path = urlsplit(study.manifest.series[0].retrieve_url).path
    day.source.files[path][2] = next(iter(other.files.values()))[0]
    (one,) = await day.over(*await day.opened())
    assert (one["state"], one["received"]) == ("failed", 0)
    assert "autre examen" in one["reason"]
    assert list(day.site.folder.rglob("*.dcm")) == []


@pytest.mark.requirement("D15")
async def test_a_host_that_is_not_listed_is_not_asked(day: Day) -> None:
    day.site.hosts.hosts.clear()
    (one,) = await day.outcome("good")
    assert (one["state"], one["again"]) == ("failed", False)
    assert "liste blanche" in one["reason"]
    assert day.source.asked == []


async def test_a_kos_of_forty_thousand_instances_opens_at_once(day: Day) -> None:
    study = day.study("404", images=1)
    series = study.manifest.series[0]
    many = tuple(Instance("1.2.840.10008.5.1.4.1.1.2", new_uid(), n) for n in range(40_000))
    swollen = replace(series, instances=many)
    hold_instead(day, study, (swollen,))
    (one,) = await day.over(*await day.opened())
    assert one["expected"] == 40_000


def hold_instead(day: Day, study: Study, series: tuple[ManifestSeries, ...]) -> None:
    from drimbox.manifest.build import encode

    content = encode(replace(study.manifest, series=series))
    day.site.dmp.records[DOMINIQUE.matricule].contents[study.kos.unique_id] = content


@pytest.mark.requirement("DB.CO.65", "DB.VI-CO.27")
async def test_the_token_dies_in_mid_transfer(day: Day) -> None:
    """What had come stays on the screen, what is missing is said, and another try brings it."""
    study = day.study("slow", "401")
    browser, view = await day.opened()
    day.source.gate.set()
    told = await day.over(browser, view)
    assert [one["state"] for one in told] == ["done", "failed"]
    assert "jeton" in told[1]["reason"]
    day.source.ways[urlsplit(study.manifest.series[1].retrieve_url).path] = "good"
    (address,) = {f"{view}/reprise"}
    page = await browser.get(browser.visited[-2] if "/images/" in browser.visited[-2] else await images_of(browser))
    await browser.submit(page, address)
    assert [one["state"] for one in await day.over(browser, view)] == ["done", "done"]


@pytest.mark.requirement("DB.CO.64", "DB.CO.65")
async def test_the_same_person_logs_in_again_in_mid_transfer(day: Day) -> None:
    """What was on its way, what waited for its turn and what is tried again go on with the new login."""
    day.study("slow", "slow", "good", "401")
    browser, view = await day.opened()
    images = await images_of(browser)
    await day.begun(browser, view, 2)
    former = {token for _, _, token in day.source.asked}
    await browser.get(f"{images.partition('/images/')[0]}/connexion")
    day.source.gate.set()
    told = await day.over(browser, view)
    assert [one["state"] for one in told] == ["done", "done", "done", "failed"]
    assert "jeton" in told[3]["reason"]
    later = {token for _, way, token in day.source.asked if way in ("good", "401")}
    assert later
    assert not later & former
    day.source.ways = dict.fromkeys(day.source.ways, "good")
    page = await browser.get(images)
    await browser.submit(page, f"{view}/reprise")
    assert [one["state"] for one in await day.over(browser, view)] == ["done"] * 4


@pytest.mark.requirement("DB.CO.65", "DB.VI-CO.27")
async def test_a_login_that_died_in_mid_transfer_is_renewed_and_the_rest_comes(day: Day) -> None:
    day.study("slow", "slow", "good")
    browser, view = await day.opened()
    images = await images_of(browser)
    await day.begun(browser, view, 2)
    day.site.psc.refuse_refresh = True
    day.site.clock.advance(10 * 60)
    day.source.gate.set()
    told = await day.over(browser, view)
    assert [one["state"] for one in told] == ["done", "done", "failed"]
    assert told[2]["reason"] == "Votre session Pro Santé Connect est terminée : reconnectez-vous pour continuer"
    day.site.psc.refuse_refresh = False
    await browser.get(f"{images.partition('/images/')[0]}/connexion")
    await browser.submit(await browser.get(images), f"{view}/reprise")
    assert [one["state"] for one in await day.over(browser, view)] == ["done"] * 3


async def images_of(browser: Browser) -> str:
    return next(urlsplit(address).path for address in reversed(browser.visited) if "/images/" in address)


@pytest.mark.requirement("DB.VI-CO.27")
async def test_the_disk_is_never_filled(day: Day) -> None:
    async with HttpClient() as http:
        believe(day.site, WadoClient(http, SystemClock(), silence=1.0, min_free=2**60), day.site.trust)
        (one,) = await day.outcome("good")
    assert (one["state"], one["received"]) == ("failed", 0)
    assert "stockage" in one["reason"]
    assert list(day.site.folder.rglob("*.dcm")) == []


async def test_a_closed_tab_loses_nothing_and_a_closed_session_everything(day: Day) -> None:
    study = day.study("slow")
    browser, view = await day.opened()
    series = f"{view}/dicomweb/studies/{study.manifest.study_uid}/series/{study.manifest.series[0].series_uid}"
    reading = asyncio.create_task(browser.get(f"{series}/metadata"))
    await asyncio.sleep(0.05)
    reading.cancel()
    day.source.gate.set()
    (one,) = await day.over(browser, view)
    assert (one["state"], one["received"]) == ("done", 3)
    stranger = day.site.browser()
    for path in ("", "/etat", "/apercu", "/viewer"):
        assert (await stranger.get(f"{view}{path}")).status == 404
    assert (await stranger.get(f"{series}/arrivees?depuis=0")).status == 404
    # A user of the same box with a session of their own has no more right to it.
    other = day.site.browser()
    await day.site.log_in(other)
    assert (await other.get(f"{series}/metadata")).status == 404
    page = await browser.get("/deconnexion")
    await browser.submit(page, "/deconnexion")
    assert (await browser.get(f"{series}/metadata")).status == 404
    assert list(day.site.folder.rglob("*.dcm")) == []


@pytest.mark.requirement("DB.CO.77", "DB.VI-CO.42")
async def test_weasis_is_given_the_images_once_and_for_the_session(day: Day) -> None:
    study = day.study("good")
    browser, _ = await day.opened()
    page = await browser.get(await images_of(browser))
    launched = await browser.submit(page, "/weasis")
    (address,) = html.fromstring(launched.body).xpath("//a[starts-with(@href, 'weasis://')]/@href")
    weasis = day.site.browser()
    manifest = unquoted(address)
    given = await weasis.get(manifest)
    assert given.status == 200
    tree = html.etree.fromstring(given.body)  # type: ignore[attr-defined]
    names = {"w": "http://www.weasis.org/xsd/2.5"}
    (key,) = tree.xpath("//w:httpTag[@key='Authorization']/@value", namespaces=names)
    (base,) = tree.xpath("//w:arcQuery/@baseUrl", namespaces=names)
    listed = study.manifest.series[0]
    instances = tree.xpath("//w:Instance/@SOPInstanceUID", namespaces=names)
    assert instances == [i.sop_instance_uid for i in listed.instances]
    # The address was for one use, the key is not in any address, and what it opens is this viewer alone.
    assert (await weasis.get(manifest)).status == 404
    assert DOMINIQUE.matricule not in address
    query = f"requestType=WADO&studyUID={study.manifest.study_uid}&seriesUID={listed.series_uid}"
    image = await weasis.get(f"{base}?{query}&objectUID={instances[0]}", Authorization=key)
    assert image.status == 200
    # Under the local number, which the manifest gives too; everything else as the source sent it.
    shown = dcmread(BytesIO(image.body))
    sent = dcmread(day.source.files[urlsplit(listed.retrieve_url).path][0])
    assert tree.xpath("//w:Patient/@PatientID", namespaces=names) == [shown.PatientID] == [DOMINIQUE.ipp]
    assert sent.PatientID in [item.PatientID for item in shown.OtherPatientIDsSequence]
    for each in (shown, sent):
        for name in ("PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence",
                     "OtherPatientIDsSequence", "OriginalAttributesSequence"):  # fmt: skip
            if name in each:
                delattr(each, name)
    assert shown == sent
    for refused in ({}, {"Authorization": "Bearer x"}):
        assert (await weasis.get(f"{base}?{query}&objectUID={instances[0]}", **refused)).status == 404
    wrong = query.replace(study.manifest.study_uid, new_uid())
    assert (await weasis.get(f"{base}?{wrong}&objectUID={instances[0]}", Authorization=key)).status == 404
    page = await browser.get("/deconnexion")
    await browser.submit(page, "/deconnexion")
    assert (await weasis.get(f"{base}?{query}&objectUID={instances[0]}", Authorization=key)).status == 404


def unquoted(address: str) -> str:
    from urllib.parse import unquote

    command = unquote(address.removeprefix("weasis://"))
    assert command.startswith('$dicom:get -w "https://')
    return urlsplit(command.split('"')[1]).path


@pytest.mark.requirement("DB.VI-CS.35", "DB.VI-CS.36", "DB.CO.57")
async def test_exams_side_by_side_and_a_series_asked_for(day: Day) -> None:
    one, two = day.study("good", "good", day="20240102"), day.study("good", day="20240101")
    browser = day.site.browser()
    page = await day.site.log_in(browser)
    addresses = html.fromstring(page.body).xpath("//a[contains(@href, '/images/')]/@href")
    keys = [urlsplit(a).path.rpartition("/")[2] for a in dict.fromkeys(addresses)]
    call = addresses[0].partition("/images/")[0]
    beside = await browser.get(f"{call}/comparaison?examen={keys[0]}&examen={keys[1]}")
    (frame,) = html.fromstring(beside.body).xpath("//iframe/@src")
    assert [uid.partition("&")[0] for uid in frame.split("StudyInstanceUIDs=")[1:]] == [
        one.manifest.study_uid,
        two.manifest.study_uid,
    ]
    assert "hangingProtocolId=drimbox-comparaison-2" in frame
    view = frame.split("/viewer?")[0]
    told = await day.over(browser, view)
    assert [(t["study"], t["received"]) for t in told] == [
        (one.manifest.study_uid, 3),
        (one.manifest.study_uid, 3),
        (two.manifest.study_uid, 3),
    ]
    studies = json.loads((await browser.get(f"{view}/dicomweb/studies")).body)
    assert [s["0020000D"]["Value"][0] for s in studies] == [one.manifest.study_uid, two.manifest.study_uid]
    again = await browser.get(f"{call}/comparaison?examen={keys[0]}&examen={keys[1]}")
    assert view in again.body.decode()
    assert (await browser.get(f"{call}/comparaison?examen={keys[0]}")).status == 422
    single = await browser.get(f"{addresses[0]}?serie=1")
    assert f"serie={one.manifest.series[1].series_uid}" in single.body.decode()
