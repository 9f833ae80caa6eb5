"""A PACS by DICOMweb: the same study and the same images as by DIMSE, and nothing believed that is not whole."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from drimbox.foundation.errors import Busy, DrimboxError, IdentityMismatch, Refused, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.pacs.dicomweb import DicomWeb, WebService
from drimbox.pacs.header import read_header
from drimbox.pacs.identifier import Tag
from drimbox.pacs.query import PacsStudyFinder
from drimbox.pacs.retrieve import StoredInstance
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.pacs.study import Study
from drimbox.pacs.web_query import WebStudyFinder, _Found
from drimbox.pacs.web_retrieve import AS_STORED, WebSeriesSource
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.peer import PacsPeer
from drimbox.sandbox.pki import Profile, TestAuthority
from pacs.conftest import free_port, pacs_of
from pacs.desk import Desk, check_series, collect, desk

STUDY = EXAMS["B"][0]
SERIES = STUDY.series[0]
SERIES_UID = STUDY.series_uid(SERIES)
UIDS = list(STUDY.instance_uids(SERIES))
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    async with HttpClient() as client:
        yield client


def service(http: HttpClient, url: str, user: str = "", password: str = "") -> WebService:
    return WebService(http, DicomWeb(url, ssl.create_default_context(), user, password), "essai")


# ------------------------------------------------------------------------------------------------------------ real PACS


@pytest.fixture
async def at_orthanc(
    orthanc_pacs: Pacs, orthanc_peer: PacsPeer, http: HttpClient, tmp_path: Path
) -> AsyncIterator[tuple[Desk, WebService]]:
    async with desk(orthanc_pacs, tmp_path / "spool") as opened:
        yield opened, service(http, orthanc_peer.dicomweb_url, orthanc_peer.rest_user, orthanc_peer.rest_password)
        assert opened.folders() == []


@pytest.mark.requirement("DB.SO.12", "DB.SO.14")
async def test_orthanc_tells_the_same_both_ways(at_orthanc: tuple[Desk, WebService]) -> None:
    opened, web_service = at_orthanc
    for letter in "BCDEFGIN":
        for sample in EXAMS[letter]:
            told = await WebStudyFinder(opened.link, web_service).find(sample.study_uid)
            assert told is not None
            asked = await PacsStudyFinder(opened.link).find(sample.study_uid)
            assert asked is not None
            # Orthanc's QIDO-RS gives no study-level description of its own index for some keys.
            assert replace(told, accession_issuer="", patient_id_issuer="") == replace(
                asked, accession_issuer="", patient_id_issuer=""
            )


async def test_a_study_that_orthanc_does_not_hold(at_orthanc: tuple[Desk, WebService]) -> None:
    opened, web_service = at_orthanc
    assert await WebStudyFinder(opened.link, web_service).find("1.2.3.4") is None
    with pytest.raises(Rejected) as error:
        await collect(WebSeriesSource(opened.link, web_service, opened.inbox), "1.2.3", "1.2.4", ["1.2.5", "1.2.6"], [])
    assert error.value.peer_code == "404"


@pytest.mark.requirement("DB.SO.32", "DB.CS.83", "exam:B", "exam:C", "exam:F", "exam:N")
async def test_every_series_comes_as_orthanc_holds_it(at_orthanc: tuple[Desk, WebService], studies: Path) -> None:
    opened, web_service = at_orthanc
    source = WebSeriesSource(opened.link, web_service, opened.inbox)
    for letter in "BCFN":
        for study in EXAMS[letter]:
            for series in study.series:
                await check_series(source, study, series, studies / letter)
    got: list[StoredInstance] = []
    await collect(source, STUDY.study_uid, SERIES_UID, UIDS[2:3], got)
    await collect(source, STUDY.study_uid, SERIES_UID, UIDS[4:7], got)
    await collect(source, STUDY.study_uid, None, UIDS, got)
    assert len(got) == 1 + 3 + len(UIDS)
    with pytest.raises(Rejected) as error:
        await collect(source, STUDY.study_uid, SERIES_UID, [*UIDS, "1.2.3"], [])
    assert error.value.code == "pacs-instances-missing"


async def test_a_wrong_password_is_told(orthanc_peer: PacsPeer, orthanc_pacs: Pacs, http: HttpClient) -> None:
    link = PacsLink(orthanc_pacs)
    wrong = service(http, orthanc_peer.dicomweb_url, orthanc_peer.rest_user, "x")
    with pytest.raises(Rejected) as error:
        await WebStudyFinder(link, wrong).find(STUDY.study_uid)
    assert (error.value.code, error.value.peer_code) == ("pacs-web-forbidden", "401")
    link.close()


# ---------------------------------------------------------------------------------------------------- scripted servers


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
    try:
        yield f"{'https' if tls else 'http'}://localhost:{port}/dw"
    finally:
        await runner.cleanup()


def pacs(**changes: object) -> Pacs:
    return pacs_of(PacsPeer("PACS", "127.0.0.1", free_port()), **{"answer_timeout": 1.0, **changes})


async def find(http: HttpClient, handler: Handler, **changes: object) -> Study | None:
    link = PacsLink(pacs(**changes))
    try:
        async with serving(handler) as url:
            return await WebStudyFinder(link, service(http, url)).find("1.2.3")
    finally:
        link.close()


def answering(status: int = 200, body: str = "[]", **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        kind = headers.get("kind", "application/dicom+json")
        extra = {k: v for k, v in headers.items() if k != "kind"}
        return web.Response(status=status, body=body.encode(), headers={"Content-Type": kind, **extra})

    return handler


@pytest.mark.requirement("D7")
@pytest.mark.parametrize(("status", "body"), [(200, "[]"), (204, ""), (200, "")])
async def test_only_a_clean_empty_answer_means_that_nothing_is_there(http: HttpClient, status: int, body: str) -> None:
    assert await find(http, answering(status, body)) is None


OTHER = json.dumps([{"0020000D": {"vr": "UI", "Value": ["1.2.4"]}}])


@pytest.mark.requirement("D7")
@pytest.mark.parametrize(
    ("handler", "kind", "code"),
    [
        (answering(404), Rejected, "pacs-web-rejected"),
        (answering(400), Rejected, "pacs-web-rejected"),
        (answering(301), Rejected, "pacs-web-rejected"),
        (answering(403), Rejected, "pacs-web-forbidden"),
        (answering(500), Unavailable, "pacs-web-failed"),
        (answering(501), Rejected, "pacs-web-rejected"),
        (answering(503), Busy, "pacs-busy"),
        (answering(429), Busy, "pacs-busy"),
        (answering(200, "[]", kind="text/html"), Unavailable, "pacs-protocol"),
        (answering(200, "{}"), Unavailable, "pacs-protocol"),
        (answering(200, "[1]"), Unavailable, "pacs-protocol"),
        (answering(200, "[" * 100_000), Unavailable, "pacs-protocol"),
        (answering(200, "nothing"), Unavailable, "pacs-protocol"),
        (answering(200, "[" + "9" * 10_000 + "]"), Unavailable, "pacs-protocol"),
        (answering(200, OTHER), Rejected, "pacs-wrong-answer"),
        (answering(200, "[{}]"), Rejected, "pacs-wrong-answer"),
        (answering(200, "[]", Warning='299 x "more"'), Unavailable, "pacs-truncated"),
    ],
)
async def test_an_error_is_never_an_empty_answer(
    http: HttpClient, handler: Handler, kind: type[DrimboxError], code: str
) -> None:
    with pytest.raises(kind) as error:
        await find(http, handler)
    assert error.value.code == code
    assert "PACS essai" in error.value.reason


async def test_nobody_there_and_nobody_answering(http: HttpClient) -> None:
    link = PacsLink(pacs())
    with pytest.raises(Unavailable) as error:
        await WebStudyFinder(link, service(http, f"http://127.0.0.1:{free_port()}/dw")).find("1.2.3")
    assert error.value.code == "pacs-unreachable"
    link.close()

    async def silent(request: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    with pytest.raises(Unavailable) as error:
        await find(http, silent, answer_timeout=0.3)
    assert error.value.code == "pacs-silent"


def row(**values: object) -> dict[str, Any]:
    return {f"{Tag[name]:08X}": {"vr": "UN", "Value": [value]} for name, value in values.items()}


def paging(instances: int, most: int, announced: int | None = None, *, ignores_offset: bool = False) -> Handler:
    """A server that gives at most ``most`` rows at once, and says so."""

    async def handler(request: web.Request) -> web.Response:
        path = request.path
        if path.endswith("/studies"):
            rows = [row(STUDY_UID="1.2.3", PATIENT_NAME={"Alphabetic": "X^Y"}, STUDY_SERIES_COUNT=1)]
        elif path.endswith("/series"):
            rows = [row(SERIES_UID="1.2.3.1", MODALITY="CT", SERIES_INSTANCE_COUNT=announced or instances)]
        else:
            rows = [
                row(SOP_INSTANCE_UID=f"1.2.3.1.{n}", SOP_CLASS_UID="1.2.9", INSTANCE_NUMBER=n) for n in range(instances)
            ]
        offset = 0 if ignores_offset else int(request.query["offset"])
        page = rows[offset : offset + most]
        headers = {"Warning": '299 x "there are more"'} if offset + most < len(rows) else {}
        return web.json_response(page, headers=headers, content_type="application/dicom+json")

    return handler


async def test_an_answer_in_pages_is_put_together(http: HttpClient) -> None:
    study = await find(http, paging(25, 10))
    assert study is not None
    assert [i.number for i in study.series[0].instances] == list(range(25))
    assert (study.patient_name, study.series[0].modality) == ("X^Y", "CT")


@pytest.mark.parametrize(
    "handler", [paging(25, 10, ignores_offset=True), paging(25, 30, announced=26)], ids=["same page", "too few"]
)
async def test_a_list_that_is_not_whole_is_no_answer(http: HttpClient, handler: Handler) -> None:
    with pytest.raises(Unavailable) as error:
        await find(http, handler)
    assert error.value.code == "pacs-truncated"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["Value", "vr", "00400032"]), inner),
    max_leaves=10,
)


@given(json_values)
def test_any_row_is_text_or_nothing(value: object) -> None:
    found = _Found({"00100020": value, "00080051": {"Value": value}, "0020000D": {"Value": [value]}})
    for tag in (Tag.PATIENT_ID, Tag.ACCESSION_ISSUER, Tag.STUDY_UID):
        assert isinstance(found.text(tag), str)
        assert found.number(tag) is None or isinstance(found.number(tag), int)
        assert isinstance(found.universal_id(tag), str)


# ------------------------------------------------------------------------------------------------------------ WADO-RS


def part(data: bytes) -> bytes:
    return b"\r\n--cut\r\nContent-Type: application/dicom\r\n\r\n" + data


def images(
    *parts: bytes, closed: bool = True, status: int = 200, kind: str = "", first: int = 0, breaks: bool = False
) -> Handler:
    """Serves these parts; ``first``: the status of an answer to who asks for ``*``."""

    async def handler(request: web.Request) -> web.StreamResponse:
        if first and request.headers["Accept"] == AS_STORED:
            return web.Response(status=first)
        media = kind or 'multipart/related; type="application/dicom"; boundary=cut'
        answer = web.StreamResponse(status=status, headers={"Content-Type": media})
        await answer.prepare(request)
        for data in parts:
            await answer.write(part(data))
        if breaks:
            assert request.transport is not None
            request.transport.abort()
            return answer
        await answer.write(b"\r\n--cut--\r\n" if closed else b"\r\n--cut\r\n")
        return answer

    return handler


@pytest.fixture
def files(studies: Path) -> list[Path]:
    found = {read_header(path).sop_instance_uid: path for path in (studies / "B").rglob("*.dcm")}
    return [found[uid] for uid in UIDS]


async def fetch(
    http: HttpClient, handler: Handler, folder: Path, expected: Sequence[str], patient_id: str | None = None
) -> list[str]:
    got: list[StoredInstance] = []
    async with serving(handler) as url, desk(pacs(), folder / "spool") as opened:
        source = WebSeriesSource(opened.link, service(http, url), opened.inbox, most=2**20)
        try:
            await collect(source, STUDY.study_uid, SERIES_UID, expected, got, patient_id=patient_id)
        finally:
            assert opened.folders() == []
    return [one.sop_instance_uid for one in got]


async def test_what_is_not_asked_for_is_passed_over(http: HttpClient, files: list[Path], tmp_path: Path) -> None:
    handler = images(*(path.read_bytes() for path in files[:5]))
    assert await fetch(http, handler, tmp_path, UIDS[1:4]) == UIDS[1:4]


@pytest.mark.parametrize("first", [400, 406])
async def test_a_server_that_does_not_know_the_star(
    http: HttpClient, files: list[Path], tmp_path: Path, first: int
) -> None:
    handler = images(*(path.read_bytes() for path in files[:2]), first=first)
    assert await fetch(http, handler, tmp_path, UIDS[:2]) == UIDS[:2]


@pytest.mark.requirement("D14")
@pytest.mark.parametrize(
    ("options", "kind", "code"),
    [
        ({"breaks": True}, Unavailable, "pacs-aborted"),
        ({"closed": False}, Unavailable, "pacs-aborted"),
        ({"status": 206}, Unavailable, "pacs-retrieve-incomplete"),
        ({}, Rejected, "pacs-instances-missing"),
        ({"status": 404}, Rejected, "pacs-web-rejected"),
        ({"status": 500}, Unavailable, "pacs-web-failed"),
        ({"status": 503}, Busy, "pacs-busy"),
        ({"status": 406, "first": 406}, Rejected, "pacs-web-rejected"),
        ({"kind": "text/html"}, Unavailable, "pacs-protocol"),
        ({"kind": "multipart/related"}, Unavailable, "pacs-protocol"),
    ],
)
async def test_what_does_not_come_whole_is_told(
    http: HttpClient, files: list[Path], tmp_path: Path, options: dict[str, Any], kind: type[DrimboxError], code: str
) -> None:
    handler = images(*(path.read_bytes() for path in files[:2]), **options)
    with pytest.raises(kind) as error:
        await fetch(http, handler, tmp_path, UIDS[:3])
    assert error.value.code == code


@pytest.mark.requirement("D14", "D23")
@pytest.mark.parametrize(
    ("values", "kind", "code"),
    [
        ({"StudyInstanceUID": "1.2.3"}, Rejected, "pacs-wrong-instance"),
        ({"SeriesInstanceUID": "1.2.3"}, Rejected, "pacs-wrong-instance"),
        ({"PatientID": "AUTRE"}, IdentityMismatch, "pacs-wrong-patient"),
    ],
)
async def test_what_is_not_of_the_study_ends_it(
    http: HttpClient, files: list[Path], tmp_path: Path, values: dict[str, str], kind: type[DrimboxError], code: str
) -> None:
    dataset = pydicom.dcmread(files[1])
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(tmp_path / "wrong.dcm")
    handler = images(files[0].read_bytes(), (tmp_path / "wrong.dcm").read_bytes(), files[2].read_bytes())
    with pytest.raises(kind) as error:
        await fetch(http, handler, tmp_path, UIDS[:3], STUDY.patient.patient_id)
    assert error.value.code == code


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"not an image", "dicom-unreadable"), (b"", "dicom-unreadable"), (bytes(2**21), "instance-size")],
)
async def test_what_is_no_image_ends_it(http: HttpClient, tmp_path: Path, data: bytes, code: str) -> None:
    with pytest.raises(Refused) as error:
        await fetch(http, images(data), tmp_path, UIDS[:3])
    assert error.value.code == code


async def test_the_certificate_of_the_server_is_checked(
    http: HttpClient, authority: TestAuthority, tmp_path: Path
) -> None:
    def issued(host: str) -> ssl.SSLContext:
        pair = authority.issue(
            Profile.SSL_SERV, f"web-{host}", common_name=host, unit="U", organisation="O", hosts=[host]
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        return context

    believed = ssl.create_default_context(cafile=str(authority.roots))
    link = PacsLink(pacs())
    for host, tls, code in (
        ("localhost", believed, None),
        ("autre.example", believed, "pacs-tls"),
        ("localhost", ssl.create_default_context(), "pacs-tls"),
    ):
        async with serving(answering(), issued(host)) as url:
            finder = WebStudyFinder(link, WebService(http, DicomWeb(url, tls), "essai"))
            if code is None:
                assert await finder.find("1.2.3") is None
            else:
                with pytest.raises(Unavailable) as error:
                    await finder.find("1.2.3")
                assert error.value.code == code
    link.close()


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(DicomWeb("https://x", ssl.create_default_context(), "u", "secret"))
