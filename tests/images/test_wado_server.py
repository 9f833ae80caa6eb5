"""The WADO-RS service over real mutual TLS: who is let in, what is sent, and how failures show."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session
from world import INS, Box, Exam, another_ins, listening, make_exam, make_image, until

from drimbox.dicom.syntaxes import EXPLICIT_LE, JPEG_2000, JPEG_2000_LOSSLESS, JPEG_BASELINE, JPEG_LOSSLESS_SV1, JPEG_LS
from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient, Reply
from drimbox.images.accept import Policy
from drimbox.images.header import read_header
from drimbox.images.media import parse_media_type
from drimbox.images.multipart import PartData, PartEnd, PartStart, Reader
from drimbox.images.retrieval import Limits

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANY = 'multipart/related; type="application/dicom"; transfer-syntax=*'


DEAD = Unavailable("", code="pacs-unreachable")
OFFICIAL = ["OK_Frames", "OK_Requete_CISIS_TSLossless", "OK_Requete_CISIS_TSLossy", "OK_Series", "OK_Study"]
OFFICIAL += ["instance", "series"]


def only(syntax: str) -> str:
    return f'multipart/related; type="application/dicom"; transfer-syntax={syntax}'


def parts_of(headers: Mapping[str, str], body: bytes) -> list[tuple[dict[str, str], bytes]]:
    media = parse_media_type(headers["content-type"])
    assert media is not None
    assert (media.name, media.get("type")) == ("multipart/related", "application/dicom")
    reader = Reader(media.get("boundary"))
    parts: list[tuple[dict[str, str], bytes]] = []
    for event in reader.feed(body):
        match event:
            case PartStart(headers):
                parts.append((dict(headers), b""))
            case PartData(data):
                parts[-1] = (parts[-1][0], parts[-1][1] + data)
            case PartEnd():
                pass
    reader.close()
    return parts


async def get(http: HttpClient, box: Box, url: str, headers: Mapping[str, str]) -> Reply:
    return await http.send("GET", url, tls=box.keys.client(), headers=headers)


async def refused(http: HttpClient, box: Box, url: str, headers: Mapping[str, str]) -> tuple[int, str]:
    box.accesses.clear()
    reply = await get(http, box, url, headers)
    assert reply.headers["content-type"].startswith("application/json")
    content = json.loads(reply.body)
    assert INS.matricule not in reply.body.decode()
    await until(lambda: box.accesses)
    assert box.accesses[-1].status == reply.status
    assert box.accesses[-1].code == content["code"]
    return reply.status, content["code"]


async def raw(box: Box, request: str, *, tls: ssl.SSLContext | None = None) -> bytes:
    """What comes over the wire for these very bytes, until the server closes or falls silent."""
    reader, writer = await asyncio.open_connection(
        "localhost", box.port, ssl=tls or box.keys.client(), server_hostname="localhost"
    )
    writer.write(request.encode("latin-1"))
    try:
        async with asyncio.timeout(5):
            return await reader.read(-1)
    finally:
        writer.close()


@pytest.mark.requirement("DB.SO.32", "DB.SO.39", "D23", "D14")
@pytest.mark.parametrize("level", ["study", "series", "instance", "frames"])
async def test_images_are_sent_as_stored_with_the_ins(box: Box, http: HttpClient, tmp_path: Path, level: str) -> None:
    exam = box.add(make_exam(tmp_path, series=2))
    image = exam.series[exam.first_series][1]
    study = f"{box.url}/studies/{exam.study_uid}"
    url, expected = {
        "study": (study, exam.instances),
        "series": (box.series_url(exam), exam.series[exam.first_series]),
        "instance": (f"{box.series_url(exam)}/instances/{image.sop_instance_uid}", [image]),
        "frames": (f"{box.series_url(exam)}/instances/{image.sop_instance_uid}/frames/1", [image]),
    }[level]
    reply = await get(http, box, url, box.headers(exam, Accept=ANY))
    assert reply.status == 200
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["strict-transport-security"].startswith("max-age=63072000")
    parts = parts_of(reply.headers, reply.body)
    assert len(parts) == len(expected)
    for (headers, body), stored in zip(parts, expected, strict=True):
        assert headers["content-type"] == f"application/dicom; transfer-syntax={EXPLICIT_LE}"
        assert int(headers["content-length"]) == len(body)
        sent, kept = pydicom.dcmread(io.BytesIO(body)), pydicom.dcmread(stored.path)
        item = sent.OtherPatientIDsSequence[0]
        assert item.PatientID == INS.matricule
        assert item.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID == INS.oid
        del sent.OtherPatientIDsSequence
        assert sent == kept
        assert sent.file_meta == kept.file_meta
    await until(lambda: box.accesses and not box.pacs.running)
    access = box.accesses[-1]
    assert (access.status, access.code, access.instances) == (200, "", len(expected))
    assert (access.caller, access.national_id, access.profession) == ("SITE B", "899700218896", "10")
    assert access.bytes_sent == len(reply.body)
    assert access.syntaxes == (EXPLICIT_LE,)
    assert access.first_seconds is not None
    assert 0 < access.first_seconds <= access.seconds
    assert box.pacs.running == 0


@pytest.mark.requirement("DB.SO.33", "DB.SO.34", "DB.SO.98", "D14", "D15", "D17")
@pytest.mark.parametrize(
    ("authorization", "status", "code"),
    [
        (None, 401, "token-absent"),
        ("Basic Z29vZA==", 401, "token-syntax"),
        ("Bearer ", 401, "token-syntax"),
        ("Bearer a b", 401, "token-syntax"),
        ("Bearer " + "x" * 9000, 401, "token-syntax"),
        ("Bearer expired", 401, "token-refused"),
        ("Bearer bound-elsewhere", 401, "token-binding"),
        ("Bearer baker", 403, "profession-refused"),
        ("Bearer unknown-profession", 403, "profession-refused"),
        ("bearer   bound", 200, ""),
    ],
)
async def test_who_is_let_in(
    box: Box, http: HttpClient, tmp_path: Path, authorization: str | None, status: int, code: str
) -> None:
    exam = box.add(make_exam(tmp_path, images=1))
    headers = box.headers(exam)
    if authorization is None:
        del headers["Authorization"]
    else:
        headers["Authorization"] = authorization
    reply = await get(http, box, box.series_url(exam), headers)
    assert reply.status == status
    if status != 200:
        assert json.loads(reply.body)["code"] == code
        assert box.pacs.asked == []
    if status == 401:
        assert reply.headers["www-authenticate"].startswith('Bearer realm="DRIMbox"')
        assert ('error="invalid_token"' in reply.headers["www-authenticate"]) == (
            code in ("token-refused", "token-binding")
        )


@pytest.mark.requirement("DB.SO.34")
@pytest.mark.parametrize(("held", "status"), [(("99", "21"), 200), (("99",), 403), ((), 403)])
async def test_a_profession_that_introspection_does_not_tell_is_asked_of_userinfo(
    quiet_box: Box, http: HttpClient, tmp_path: Path, held: tuple[str, ...], status: int
) -> None:
    quiet_box.told_by_userinfo = {"unknown-profession": held}
    async with listening(quiet_box) as box:
        exam = box.add(make_exam(tmp_path, images=1))
        headers = box.headers(exam) | {"Authorization": "Bearer unknown-profession"}
        assert (await get(http, box, box.series_url(exam), headers)).status == status


async def test_a_pacs_that_left_the_configuration_is_a_503(box: Box, http: HttpClient, tmp_path: Path) -> None:
    exam = box.add(make_exam(tmp_path, images=1))
    box.unknown_pacs = True
    assert await refused(http, box, box.series_url(exam), box.headers(exam)) == (503, "pacs-unknown")


async def test_a_box_that_is_not_listed_is_refused_before_anything_else(
    box: Box, http: HttpClient, tmp_path: Path
) -> None:
    exam = box.add(make_exam(tmp_path, images=1))
    tls = box.keys.client(box.keys.stranger)
    reply = await http.send("GET", box.series_url(exam), tls=tls, headers={"Authorization": "Bearer expired"})
    assert (reply.status, json.loads(reply.body)["code"]) == (403, "box-not-listed")


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        (lambda box: setattr(box, "whitelist_down", True), "whitelist-unavailable"),
        (lambda box: setattr(box.psc, "down", True), "psc-unreachable"),
        (lambda box: setattr(box.archive, "down", True), "archive-unavailable"),
    ],
)
async def test_a_dependency_that_fails_is_never_a_yes_or_a_no(
    box: Box, http: HttpClient, tmp_path: Path, break_it: object, code: str
) -> None:
    exam = box.add(make_exam(tmp_path, images=1))
    assert callable(break_it)
    break_it(box)
    reply = await get(http, box, box.series_url(exam), box.headers(exam))
    assert (reply.status, json.loads(reply.body)["code"]) == (503, code)
    assert int(reply.headers["retry-after"]) > 0


@pytest.mark.requirement("DB.SO.37", "DB.SO.38", "D14")
async def test_the_kos_opens_its_own_images_and_nothing_else(box: Box, http: HttpClient, tmp_path: Path) -> None:
    exam, other = box.add(make_exam(tmp_path)), box.add(make_exam(tmp_path))
    states = {s: box.add(make_exam(tmp_path), s) for s in ("depublished", "replaced", "prepared", "abandoned")}

    async def code(exam_of_url: Exam, kos_uid: str | None, path: str = "") -> tuple[int, str]:
        headers = box.headers(exam_of_url)
        if kos_uid is None:
            del headers["KOS-SOPInstanceUID"]
        else:
            headers["KOS-SOPInstanceUID"] = kos_uid
        return await refused(http, box, path or box.series_url(exam_of_url), headers)

    assert await code(exam, None) == (400, "kos-header")
    assert await code(exam, "not a uid") == (400, "kos-header")
    assert await code(exam, "1.2.3") == (404, "kos-unknown")
    assert await code(exam, other.kos_uid) == (404, "kos-unknown")
    assert await code(states["depublished"], states["depublished"].kos_uid) == (410, "kos-depublished")
    assert await code(states["replaced"], states["replaced"].kos_uid) == (404, "kos-replaced")
    assert await code(states["prepared"], states["prepared"].kos_uid) == (503, "kos-pending")
    assert await code(states["abandoned"], states["abandoned"].kos_uid) == (404, "kos-unknown")
    study = f"{box.url}/studies/{exam.study_uid}"
    assert await code(exam, exam.kos_uid, f"{study}/series/{other.first_series}") == (404, "images-unknown")
    assert await code(exam, exam.kos_uid, f"{box.series_url(exam)}/instances/1.2.3") == (404, "images-unknown")
    assert await code(exam, exam.kos_uid, f"{study}/series/1..2") == (400, "uid")
    assert await code(exam, exam.kos_uid, f"{study}/series/01.2") == (400, "uid")
    image = exam.instances[0].sop_instance_uid
    frames = f"{study}/series/{exam.first_series}/instances/{image}/frames"
    assert await code(exam, exam.kos_uid, f"{frames}/0") == (400, "frames")
    assert await code(exam, exam.kos_uid, f"{frames}/1,x") == (400, "frames")
    assert box.pacs.asked == []
    assert await code(exam, exam.kos_uid, f"{frames}/2") == (404, "frame-unknown")


@pytest.mark.requirement("DB.SO.85", "DB.SO.41", "DB.CS.83", "D14")
@pytest.mark.parametrize(
    ("source", "accept", "sent"),
    [
        ("CT_small.dcm", ANY, EXPLICIT_LE),
        ("CT_small.dcm", "", EXPLICIT_LE),
        ("MR_small_implicit.dcm", ANY, EXPLICIT_LE),
        ("MR_small_bigendian.dcm", only(EXPLICIT_LE), EXPLICIT_LE),
        ("image_dfl.dcm", only(EXPLICIT_LE), EXPLICIT_LE),
        ("MR_small_jpeg_ls_lossless.dcm", only(EXPLICIT_LE) + ";q=1," + only(JPEG_LS) + ";q=0.1", EXPLICIT_LE),
        ("MR_small_jpeg_ls_lossless.dcm", only(EXPLICIT_LE) + ";q=0.5," + only(JPEG_LS) + ";q=0.5", JPEG_LS),
        ("MR_small_jpeg_ls_lossless.dcm", only(EXPLICIT_LE), EXPLICIT_LE),
        ("MR_small_jp2klossless.dcm", only(JPEG_2000), JPEG_2000),
        ("MR_small_jp2klossless.dcm", ANY, JPEG_2000_LOSSLESS),
        ("MR_small_RLE.dcm", only(EXPLICIT_LE) + ";q=0.4," + only(JPEG_LS) + ";q=0.8", JPEG_LS),
        ("MR_small_RLE.dcm", only(JPEG_LOSSLESS_SV1) + ";q=0.9," + only(JPEG_LS) + ";q=0.8", JPEG_LOSSLESS_SV1),
        ("CT_small.dcm", only(JPEG_2000) + ";q=1," + only(JPEG_LS) + ";q=0.1", JPEG_2000),
        ("CT_small.dcm", only(JPEG_2000) + ";q=0.7," + only(JPEG_LS) + ";q=0.7", JPEG_LS),
        ("CT_small.dcm", ANY + ";q=0.5," + only(JPEG_LOSSLESS_SV1) + ";q=0.4", EXPLICIT_LE),
        ("image_dfl.dcm", only(JPEG_LS), JPEG_LS),
        ("SC_rgb_jpeg_dcmtk.dcm", only(JPEG_BASELINE) + "," + only(EXPLICIT_LE), JPEG_BASELINE),
        ("SC_rgb.dcm", only(JPEG_BASELINE) + ";q=0.9," + only(JPEG_LS) + ";q=0.1", JPEG_LS),
        ("SC_rgb.dcm", only(JPEG_BASELINE), JPEG_BASELINE),
        ("SC_rgb_jpeg_dcmtk.dcm", only(JPEG_LS), JPEG_LS),
    ],
)
async def test_the_syntax_that_is_sent(
    box: Box, http: HttpClient, tmp_path: Path, source: str, accept: str, sent: str
) -> None:
    exam = box.add(make_exam(tmp_path, images=1, source=source))
    headers = box.headers(exam, Accept=accept) if accept else box.headers(exam)
    reply = await get(http, box, box.series_url(exam), headers)
    ((part, body),) = parts_of(reply.headers, reply.body)
    assert part["content-type"] == f"application/dicom; transfer-syntax={sent}"
    header = read_header(body)
    assert header.transfer_syntax == sent
    assert [o.value for o in header.other_ids] == [INS.matricule]
    assert list(box.scratch.iterdir()) == []
    if sent == EXPLICIT_LE and "jpeg" not in source:
        assert np.array_equal(
            pydicom.dcmread(io.BytesIO(body)).pixel_array, pydicom.dcmread(exam.instances[0].path).pixel_array
        )


async def test_least_work_first_is_a_policy(quiet_box: Box, http: HttpClient, tmp_path: Path) -> None:
    async with listening(quiet_box, policy=Policy.LEAST_WORK) as box:
        exam = box.add(make_exam(tmp_path, images=2))
        accept = f"{only(EXPLICIT_LE)};q=0.4,{only(JPEG_LS)};q=0.8,{only(JPEG_BASELINE)};q=1"
        reply = await get(http, box, box.series_url(exam), box.headers(exam, Accept=accept))
        assert {read_header(body).transfer_syntax for _, body in parts_of(reply.headers, reply.body)} == {EXPLICIT_LE}


async def test_one_instance_may_be_a_single_body(box: Box, http: HttpClient, tmp_path: Path) -> None:
    exam = box.add(make_exam(tmp_path))
    image = exam.instances[1]
    url = f"{box.series_url(exam)}/instances/{image.sop_instance_uid}"
    reply = await get(http, box, url, box.headers(exam, Accept=f"application/dicom; transfer-syntax={EXPLICIT_LE}"))
    assert reply.headers["content-type"] == f"application/dicom; transfer-syntax={EXPLICIT_LE}"
    assert int(reply.headers["content-length"]) == len(reply.body)
    assert read_header(reply.body).sop_instance_uid == image.sop_instance_uid
    # A series may not.
    reply = await get(http, box, box.series_url(exam), box.headers(exam, Accept="application/dicom"))
    assert reply.status == 406


@pytest.mark.requirement("D14")
@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (only(JPEG_BASELINE), 406),
        (only(JPEG_LS) + ";q=0", 406),
        ("text/html", 406),
        ('multipart/related; type="application/octet-stream"', 406),
        (only("1.2.840.10008.1.2"), 406),
        ("multipart/related;q=7", 400),
        ("nonsense", 400),
    ],
)
async def test_nothing_acceptable(box: Box, http: HttpClient, tmp_path: Path, accept: str, status: int) -> None:
    exam = box.add(make_exam(tmp_path))
    reply = await get(http, box, box.series_url(exam), box.headers(exam, Accept=accept))
    assert reply.status == status
    if status == 406:
        assert any(EXPLICIT_LE in form for form in json.loads(reply.body)["supported"])
    assert box.pacs.running == 0


@pytest.mark.requirement("DB.SO.37", "D7", "D14")
@pytest.mark.parametrize(
    ("failure", "find_failure", "lost", "expected"),
    [
        (DEAD, DEAD, False, (503, "pacs-unavailable")),
        (Unavailable("", code="pacs-silent"), DEAD, False, (504, "pacs-unavailable")),
        (DEAD, Unavailable("", code="pacs-too-slow"), False, (504, "pacs-unavailable")),
        (Unavailable("", code="pacs-too-slow"), None, False, (504, "pacs-failed")),
        (Unavailable("", code="pacs-retrieve-failed"), None, False, (503, "pacs-failed")),
        (Rejected("", code="pacs-instances-missing"), None, True, (410, "images-gone")),
        (Rejected("", code="pacs-wrong-instance"), None, False, (502, "pacs-wrong-instance")),
    ],
)
async def test_a_pacs_that_gives_nothing(
    box: Box,
    http: HttpClient,
    tmp_path: Path,
    failure: Unavailable | Rejected,
    find_failure: Unavailable | None,
    lost: bool,
    expected: tuple[int, str],
) -> None:
    exam = box.add(make_exam(tmp_path))
    box.pacs.fail_at, box.pacs.failure, box.pacs.find_failure = 0, failure, find_failure
    box.pacs.lost = {exam.instances[0].sop_instance_uid} if lost else set()
    assert await refused(http, box, box.series_url(exam), box.headers(exam)) == expected


async def test_a_study_that_left_the_pacs_is_gone(box: Box, http: HttpClient, tmp_path: Path) -> None:
    exam = box.add(make_exam(tmp_path))
    box.pacs.lost = {i.sop_instance_uid for i in exam.instances}
    assert await refused(http, box, box.series_url(exam), box.headers(exam)) == (410, "images-gone")


async def test_an_image_that_is_not_what_was_asked_is_not_sent(box: Box, http: HttpClient, tmp_path: Path) -> None:
    exam, other = box.add(make_exam(tmp_path, images=1)), make_exam(tmp_path, images=1)
    wanted = exam.instances[0]
    # The PACS answers with another study's file under the UID that was asked for.
    wanted.path.write_bytes(other.instances[0].path.read_bytes())
    assert await refused(http, box, box.series_url(exam), box.headers(exam)) == (502, "image-identity")
    wanted.path.write_bytes(b"not an image")
    assert await refused(http, box, box.series_url(exam), box.headers(exam)) == (502, "dicom-part10")


async def test_an_image_that_names_another_person_is_not_sent(box: Box, http: HttpClient, tmp_path: Path) -> None:
    exam = box.add(make_exam(tmp_path, images=1))
    dataset = pydicom.dcmread(exam.instances[0].path)
    item, issuer = pydicom.Dataset(), pydicom.Dataset()
    issuer.UniversalEntityID, issuer.UniversalEntityIDType = INS.oid, "ISO"
    item.PatientID, item.IssuerOfPatientIDQualifiersSequence = "150075121518921", [issuer]
    dataset.OtherPatientIDsSequence = [item]
    dataset.save_as(exam.instances[0].path)
    assert await refused(http, box, box.series_url(exam), box.headers(exam)) == (502, "ins-differs")


async def test_what_is_not_in_the_kos_is_not_sent(box: Box, http: HttpClient, tmp_path: Path) -> None:
    exam = box.add(make_exam(tmp_path))
    box.pacs.extra = [make_image(tmp_path, exam.study_uid, exam.first_series), exam.instances[0]]
    reply = await get(http, box, box.series_url(exam), box.headers(exam))
    sent = [read_header(body).sop_instance_uid for _, body in parts_of(reply.headers, reply.body)]
    assert sorted(sent) == sorted(i.sop_instance_uid for i in exam.instances)


def request_text(box: Box, exam: Exam, accept: str = ANY) -> str:
    path = box.series_url(exam).removeprefix(box.root)
    lines = {"Host": "localhost", "Accept": accept, "Connection": "close"} | box.headers(exam)
    return f"GET {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"


@pytest.mark.requirement("D14")
@pytest.mark.parametrize("what", ["pacs", "lost", "damaged", "unacceptable"])
async def test_a_failure_after_the_first_image_breaks_the_connection(
    box: Box, tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    exam = box.add(make_exam(tmp_path, images=4))
    match what:
        case "pacs":
            box.pacs.fail_at = 2
        case "lost":
            box.pacs.lost = {exam.instances[-1].sop_instance_uid}
        case "damaged":
            exam.instances[2].path.write_bytes(b"DICM" * 100)
        case "unacceptable":
            content = exam.instances[2].path.read_bytes()
            exam.instances[2].path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"))
    accept = ANY if what != "unacceptable" else only(EXPLICIT_LE)
    received = await raw(box, request_text(box, exam, accept))
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    assert body.count(b"Content-Type: application/dicom;") >= 1
    # Neither the last chunk of HTTP nor the closing delimiter of the multipart.
    assert not body.endswith(b"0\r\n\r\n")
    boundary = re.search(rb"boundary=(\w+)", head)
    assert boundary is not None
    assert b"--" + boundary[1] + b"--" not in body
    assert box.accesses[-1].status == 200
    assert box.accesses[-1].code not in ("", "client-left")
    assert 0 < box.accesses[-1].instances < 4
    assert INS.matricule not in caplog.text
    assert list(box.scratch.iterdir()) == []


@pytest.mark.requirement("DB.SO.113")
async def test_the_first_image_leaves_before_the_second_has_arrived(box: Box, tmp_path: Path) -> None:
    exam = box.add(make_exam(tmp_path))
    box.pacs.gate = asyncio.Event()
    reader, writer = await asyncio.open_connection("localhost", box.port, ssl=box.keys.client())
    writer.write(request_text(box, exam).encode())
    async with asyncio.timeout(5):
        await reader.readuntil(b"Content-Type: application/dicom;")
        first = exam.instances[0]
        await reader.readexactly(first.size)
        assert box.pacs.given == 1
        box.pacs.gate.set()
        rest = await reader.read(-1)
    assert rest.endswith(b"0\r\n\r\n")
    writer.close()


@pytest.mark.parametrize("after", ["request", "first"])
async def test_a_caller_that_leaves_cancels_the_retrieve(box: Box, tmp_path: Path, after: str) -> None:
    exam = box.add(make_exam(tmp_path, images=5))
    box.pacs.gate = asyncio.Event()
    if after == "request":
        # Not even the first image comes.
        box.pacs.extra = [make_image(tmp_path, exam.study_uid, exam.first_series)]
    reader, writer = await asyncio.open_connection("localhost", box.port, ssl=box.keys.client())
    writer.write(request_text(box, exam).encode())
    if after == "first":
        await reader.readuntil(b"Content-Type: application/dicom;")
    await until(lambda: box.pacs.given)
    writer.transport.abort()
    await until(lambda: box.accesses and not box.pacs.running)
    assert box.pacs.cancelled == 1
    assert box.accesses[-1].code == "client-left"
    assert box.accesses[-1].status == (200 if after == "first" else 0)


async def test_a_caller_that_does_not_read_slows_the_pacs_down_and_is_cut_off(quiet_box: Box, tmp_path: Path) -> None:
    async with listening(quiet_box, limits=Limits(stall=1.0)) as box:
        exam = box.add(make_exam(tmp_path, images=400))
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        narrow.connect(("127.0.0.1", box.port))
        narrow.setblocking(False)
        reader, writer = await asyncio.open_connection(
            sock=narrow, ssl=box.keys.client(), server_hostname="localhost", limit=2**12
        )
        writer.write(request_text(box, exam).encode())
        await reader.readuntil(b"\r\n\r\n")
        await until(lambda: box.accesses)
        # Of 16 MB, what the sockets hold was asked of the PACS, no more.
        assert box.pacs.given < 250
        assert box.accesses[-1].code == "client-stalled"
        writer.transport.abort()


async def test_more_callers_than_places_wait_their_turn(quiet_box: Box, http: HttpClient, tmp_path: Path) -> None:
    async with listening(quiet_box, max_parallel=2) as box:
        exam = box.add(make_exam(tmp_path))
        replies = await asyncio.gather(*(get(http, box, box.series_url(exam), box.headers(exam)) for _ in range(8)))
        assert [r.status for r in replies] == [200] * 8
        assert box.pacs.most == 2


async def test_a_turn_that_does_not_come_is_a_busy_box(quiet_box: Box, http: HttpClient, tmp_path: Path) -> None:
    async with listening(quiet_box, max_parallel=1, limits=Limits(queue=0.2)) as box:
        exam = box.add(make_exam(tmp_path))
        box.pacs.gate = asyncio.Event()
        first = asyncio.create_task(get(http, box, box.series_url(exam), box.headers(exam)))
        await until(lambda: box.pacs.given)
        reply = await get(http, box, box.series_url(exam), box.headers(exam))
        assert (reply.status, json.loads(reply.body)["code"]) == (503, "busy")
        box.pacs.gate.set()
        assert (await first).status == 200


@pytest.mark.requirement("DB.SO.35")
async def test_callers_of_different_patients_never_get_each_others_images(
    box: Box, http: HttpClient, tmp_path: Path
) -> None:
    exams = [box.add(make_exam(tmp_path, images=4, ins=another_ins(n))) for n in range(8)]

    async def check(exam: Exam, accept: str) -> None:
        reply = await get(http, box, box.series_url(exam), box.headers(exam, Accept=accept))
        parts = parts_of(reply.headers, reply.body)
        assert len(parts) == 4
        kept = {i.sop_instance_uid: pydicom.dcmread(i.path).pixel_array for i in exam.instances}
        for _, body in parts:
            header = read_header(body)
            assert (header.study_uid, header.series_uid) == (exam.study_uid, exam.first_series)
            assert [o.value for o in header.other_ids] == [exam.ins.matricule]
            if header.transfer_syntax == EXPLICIT_LE:
                pixels = pydicom.dcmread(io.BytesIO(body)).pixel_array
                assert np.array_equal(pixels, kept.pop(header.sop_instance_uid))

    await asyncio.gather(*(check(exam, accept) for exam in exams for accept in (ANY, only(JPEG_LS), ANY)))


@pytest.mark.requirement("DB.SO.32")
async def test_metadata_is_json_without_pixels(box: Box, http: HttpClient, tmp_path: Path) -> None:
    exam = box.add(make_exam(tmp_path, source="MR_small_implicit.dcm"))
    reply = await get(http, box, box.series_url(exam) + "/metadata", box.headers(exam, Accept="application/dicom+json"))
    assert reply.headers["content-type"] == "application/dicom+json"
    described = [pydicom.Dataset.from_json(item) for item in json.loads(reply.body)]
    assert [d.SOPInstanceUID for d in described] == [i.sop_instance_uid for i in exam.instances]
    for dataset, stored in zip(described, exam.instances, strict=True):
        kept = pydicom.dcmread(stored.path)
        assert dataset.OtherPatientIDsSequence[0].PatientID == INS.matricule
        assert "PixelData" not in dataset
        assert (dataset.Rows, dataset.PatientName, dataset.EchoTime) == (kept.Rows, kept.PatientName, kept.EchoTime)
    reply = await get(http, box, box.series_url(exam) + "/metadata", box.headers(exam, Accept=ANY))
    assert reply.status == 406


@pytest.mark.requirement("DB.SO.103", "D20")
async def test_capabilities_and_health(box: Box, http: HttpClient) -> None:
    async def ask(method: str, url: str, accept: str = "") -> Reply:
        return await http.send(method, url, tls=box.keys.client(), headers={"Accept": accept} if accept else {})

    for url in (box.url, box.url + "/", box.url + "/studies", box.url + "/studies/1.2/series/1.3"):
        reply = await ask("OPTIONS", url)
        assert (reply.status, reply.headers["content-type"]) == (200, "application/vnd.sun.wadl+xml")
        assert b"studies/{study}/series/{series}" in reply.body
    reply = await ask("GET", box.url, "application/json")
    assert reply.status == 200
    assert "1.2.840.10008.1.2.4.70" in json.loads(reply.body)["transferSyntaxes"]
    assert json.loads((await ask("GET", box.root + "/health")).body) == {"status": "ok", "checks": {"pacs": "ok"}}
    box.checks = {"pacs": False, "database": True}
    assert (await ask("GET", box.root + "/health")).status == 503
    assert (await ask("GET", box.url, "application/json")).status == 503
    assert (await ask("OPTIONS", box.url, "application/json")).status == 200
    for url in (box.root + "/health", box.url):
        reply = await ask("HEAD", url, "application/json")
        assert (reply.status, reply.body) == (503, b"")
    assert box.accesses == []


async def test_other_methods_and_addresses(box: Box, http: HttpClient, tmp_path: Path) -> None:
    exam = box.add(make_exam(tmp_path))
    for method in ("POST", "DELETE", "HEAD"):
        reply = await http.send(method, box.series_url(exam), tls=box.keys.client(), headers=box.headers(exam))
        assert reply.status == 405
    for path in ("/nothing/here", "/studies/..%2f..%2fetc", "/studies//series/1.2"):
        reply = await get(http, box, box.url + path, box.headers(exam))
        assert (reply.status, json.loads(reply.body)["code"]) == (404, "http")
        assert reply.status != 405 or reply.headers["allow"] == "GET, OPTIONS"
    assert box.pacs.asked == []
    # A range is left aside: the whole comes, and says so.
    reply = await get(http, box, box.series_url(exam), box.headers(exam, Range="bytes=0-9"))
    assert (reply.status, len(parts_of(reply.headers, reply.body))) == (200, 3)
    assert "content-range" not in reply.headers
    reply = await get(http, box, box.series_url(exam), box.headers(exam, X_Long="x" * 70_000))
    assert reply.status == 431


@pytest.mark.requirement("DB.SO.32", "exam:E")
@pytest.mark.parametrize("file", OFFICIAL)
async def test_the_official_requests_are_answered(box: Box, samples: Path, tmp_path: Path, file: str) -> None:
    exam = box.add(make_exam(tmp_path, images=2))
    text = (samples / "wado-rs" / "requests" / f"{file}.txt").read_text()
    text = re.sub(r"https://[^/]+(/dicom-web-rs|/dcm4chee-arc/aets/DCM4CHEE/rs)", box.base, text, count=1)
    own = {"studies": exam.study_uid, "series": exam.first_series, "instances": exam.instances[0].sop_instance_uid}
    for level, uid in own.items():
        text = re.sub(rf"/{level}/[0-9.]+", f"/{level}/{uid}", text, count=1)
    text = re.sub(r"Bearer \S+", "Bearer good", text)
    text = re.sub(r"(KOS-SOPInstanceUID: )\S+", rf"\g<1>{exam.kos_uid}", text)
    text = re.sub(r"(?m)^(Host|Connection):.*\n", "", text).strip() + "\nHost: localhost\nConnection: close\n\n"
    received = await raw(box, text.replace("\n", "\r\n"))
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'type="application/dicom"' in received
    images = 1 if "/instances/" in text else 2
    # What is stored where all syntaxes are liked alike, the best lossless one where they are ranked.
    sent = EXPLICIT_LE if ".70;q=0.5" in text else JPEG_LOSSLESS_SV1
    assert received.count(f"Content-Type: application/dicom; transfer-syntax={sent}\r\n".encode()) == images
    assert received.endswith(b"0\r\n\r\n")


async def test_a_legal_boundary_of_the_caller_is_used(box: Box, http: HttpClient, tmp_path: Path) -> None:
    exam = box.add(make_exam(tmp_path, images=1))
    reply = await get(http, box, box.series_url(exam), box.headers(exam, Accept=ANY + ";boundary=myboundary"))
    assert "boundary=myboundary" in reply.headers["content-type"]
    reply = await get(http, box, box.series_url(exam), box.headers(exam, Accept=ANY + ";boundary=**"))
    assert "**" not in reply.headers["content-type"]


@pytest.mark.requirement("DB.SO.32")
async def test_dicomweb_client_reads_a_series(box: Box, tmp_path: Path) -> None:
    exam = box.add(make_exam(tmp_path, series=2))

    def fetch() -> list[pydicom.Dataset]:
        session = create_session()
        session.trust_env = False
        session.verify = str(box.keys.authority.roots)
        session.cert = (str(box.keys.peer.certificate), str(box.keys.peer.key))
        client = DICOMwebClient(box.url, session=session, headers=box.headers(exam))
        images = list(client.iter_series(exam.study_uid, exam.first_series))
        images += client.retrieve_series(exam.study_uid, exam.first_series, media_types=((("application/dicom", "*")),))
        images.append(client.retrieve_instance(exam.study_uid, exam.first_series, exam.instances[0].sop_instance_uid))
        metadata = client.retrieve_series_metadata(exam.study_uid, exam.first_series)
        assert len(metadata) == 3
        session.close()
        return images

    images = await asyncio.to_thread(fetch)
    kept = {i.sop_instance_uid: pydicom.dcmread(i.path).pixel_array for i in exam.series[exam.first_series]}
    assert len(images) == 7
    for image in images:
        assert np.array_equal(image.pixel_array, kept[image.SOPInstanceUID])


async def test_without_a_certificate_there_is_no_connection(box: Box) -> None:
    def ask() -> int:
        return requests.get(box.url, verify=str(box.keys.authority.roots), timeout=5).status_code

    with pytest.raises(requests.exceptions.RequestException):
        await asyncio.to_thread(ask)


async def test_a_hostile_image_stops_its_own_request_only(box: Box, http: HttpClient, tmp_path: Path) -> None:
    """Frames full of noise under the right header: the codec may do what it likes, the others are served."""
    hostile = box.add(make_exam(tmp_path, images=1, source="MR_small_jpeg_ls_lossless.dcm"))
    good = box.add(make_exam(tmp_path, images=3, source="MR_small_jpeg_ls_lossless.dcm"))
    path = hostile.instances[0].path
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\xda") + 12
    content[start : start + 1500] = bytes(range(256)) * 6
    path.write_bytes(content[: start + 1500] + content[start + 1500 :])
    bad, *others = await asyncio.gather(
        get(http, box, box.series_url(hostile), box.headers(hostile, Accept=only(EXPLICIT_LE))),
        *(get(http, box, box.series_url(good), box.headers(good, Accept=only(EXPLICIT_LE))) for _ in range(4)),
    )
    assert bad.status in (200, 502)
    for reply in others:
        assert len(parts_of(reply.headers, reply.body)) == 3
