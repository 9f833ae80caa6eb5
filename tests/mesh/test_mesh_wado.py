"""WADO-RS of site A as other boxes, other clients and intruders meet it."""

from __future__ import annotations

import asyncio
import email.parser
import email.policy
import io
import json
import re
import ssl
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests
from dicomweb_client import DICOMwebClient
from mesh_world import World, eventually, official

from drimbox.demo.compare import differences
from drimbox.demo.mesh import PATIENT_AT_B
from drimbox.foundation.errors import DrimboxError
from drimbox.foundation.http_client import Reply
from drimbox.record.audit import Kind
from drimbox.sandbox.listeners import caller_context
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

ROOT = "1.2.250.1.213.4.5.2"
STUDY, SERIES = f"{ROOT}.1.102", f"{ROOT}.2.102.201"
INSTANCE = f"{ROOT}.3.102.201.31"
ANYTHING = 'multipart/related; type="application/dicom"; transfer-syntax=*'


async def kos_of(world: World, letter: str = "B", study: str = STUDY) -> str:
    """The UID of the current KOS of the study, published at need."""
    await world.publish(letter)
    return str((await world.published(study))["unique_id"])


async def get(
    world: World,
    path: str = f"/studies/{STUDY}/series/{SERIES}",
    *,
    method: str = "GET",
    tls: ssl.SSLContext | None = None,
    headers: dict[str, str] | None = None,
    **changes: str | None,
) -> Reply:
    """What a box of site B would send, but for ``changes``: a header that is None is left out."""
    sent: dict[str, str | None] = {
        "Authorization": f"Bearer {await world.token()}",
        "KOS-SOPInstanceUID": await kos_of(world),
        "Accept": ANYTHING,
    }
    sent |= {name.replace("_", "-"): value for name, value in changes.items()}
    return await world.mesh.http.send(
        method,
        world.endpoints["wado_rs"]["base"] + path,
        tls=tls or world.mesh.tls_b,
        headers={name: value for name, value in sent.items() if value is not None} | (headers or {}),
        max_bytes=2**30,
    )


def parts(reply: Reply) -> list[bytes]:
    """The parts of a multipart answer, by Python's own parser."""
    head = f"Content-Type: {reply.headers['Content-Type']}\r\n\r\n".encode("ascii")
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + reply.body)
    return [bytes(part.get_payload(decode=True)) for part in message.iter_parts()]


def told(reply: Reply) -> str:
    """The code of a refusal; it says nothing of the patient."""
    assert b"PAT-TROIS" not in reply.body
    assert PATIENT_AT_B.ins.encode() not in reply.body
    content: dict[str, Any] = json.loads(reply.body)
    return str(content["code"])


# ------------------------------------------------------------------------------------------------------ who is let in


@pytest.mark.requirement("DB.SO.32", "DB.SO.33", "D15")
async def test_a_listed_box_with_a_token_gets_the_series(world: World) -> None:
    reply = await get(world)
    assert reply.status == 200
    received = parts(reply)
    assert len(received) == 20
    for image in received:
        dataset = pydicom.dcmread(io.BytesIO(image))
        assert (dataset.StudyInstanceUID, dataset.SeriesInstanceUID) == (STUDY, SERIES)
        original = world.original(dataset.SOPInstanceUID)
        assert differences(image, original, ins=PATIENT_AT_B.ins, ins_oid=PATIENT_AT_B.ins_oid) == []


@pytest.mark.requirement("DB.SO.33", "D15")
async def test_without_a_certificate_of_the_authority_nobody_gets_through_tls(
    world: World, revoked: PemPair, tmp_path: Path
) -> None:
    stranger = TestAuthority(tmp_path / "pki")
    pair = stranger.issue(Profile.ORG_AUTH_CLI, "s", common_name="DRIMbox", unit="1", organisation="X")
    with_stranger = caller_context(world.authority)
    with_stranger.load_cert_chain(pair.certificate, pair.key)
    server = world.mesh.national.sites["b"].certificates.db
    cases = {
        "no certificate": world.mesh.tls,
        "of another authority": with_stranger,
        "revoked": caller_context(world.authority, revoked),
        "of a server": caller_context(world.authority, server),
    }
    for name, tls in cases.items():
        with pytest.raises(DrimboxError) as refused:
            await get(world, tls=tls)
        assert refused.value.code in ("tls", "answer-cut", "unreachable"), name
    assert (await get(world)).status == 200


@pytest.mark.requirement("DB.SO.33", "D15")
async def test_a_box_that_is_not_listed(world: World) -> None:
    pair = world.authority.issue(
        Profile.ORG_AUTH_CLI, "unlisted", common_name="DRIMbox", unit="1990000001", organisation="CENTRE INCONNU"
    )
    reply = await get(world, tls=caller_context(world.authority, pair))
    assert (reply.status, told(reply)) == (403, "box-not-listed")


@pytest.mark.requirement("DB.SO.33", "D14", "D17")
@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        pytest.param(None, 401, "token-absent", id="none"),
        pytest.param("Bearer nonsense", 401, "token-refused", id="garbage"),
        pytest.param("Bearer", 401, "token-syntax", id="empty"),
        pytest.param("Basic dXNlcjpwYXNz", 401, "token-syntax", id="another scheme"),
        pytest.param("Bearer a b", 401, "token-syntax", id="two words"),
    ],
)
async def test_a_token_that_is_none(world: World, given: str | None, status: int, code: str) -> None:
    reply = await get(world, Authorization=given)
    assert (reply.status, told(reply)) == (status, code)
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.requirement("DB.SO.33", "D14", "D17")
async def test_what_pro_sante_connect_says_of_the_token_counts(world: World) -> None:
    try:
        await world.psc_faults(introspect="inactive")
        over = await get(world)
        await world.psc_faults(introspect="other-certificate")
        stolen = await get(world)
        await world.psc_faults(introspect="down")
        unknown = await get(world)
    finally:
        await world.psc_faults()
    assert (over.status, told(over)) == (401, "token-refused")
    assert (stolen.status, told(stolen)) == (401, "token-binding")
    assert (unknown.status, told(unknown)) == (503, "psc-unreachable")
    assert (await get(world)).status == 200


@pytest.mark.requirement("DB.SO.34", "D14")
async def test_a_profession_that_may_not_fetch_images(world: World) -> None:
    reply = await get(world, Authorization=f"Bearer {await world.token('eric')}")
    assert (reply.status, told(reply)) == (403, "profession-refused")


# -------------------------------------------------------------------------------------------------- what is asked for


@pytest.mark.requirement("DB.SO.37", "DB.SO.38", "D14")
async def test_the_kos_must_be_the_current_one_of_the_study(world: World, samples: Path) -> None:
    other = await kos_of(world, "C", f"{ROOT}.1.103")
    await world.accepted(official(samples / "hl7v2" / "CR_G1-ORU.hl7"))
    await world.at_rest(f"{ROOT}.1.108")
    replaced = await kos_of(world, "G", f"{ROOT}.1.108")
    await world.accepted(official(samples / "hl7v2" / "CR_G1_MAJ-ORU.hl7"))
    await eventually(lambda: _differs(world, replaced), "no new version of exam G")
    answers = {
        "absent": await get(world, KOS_SOPInstanceUID=None),
        "no UID": await get(world, KOS_SOPInstanceUID="KOS"),
        "unknown": await get(world, KOS_SOPInstanceUID="1.2.3.4.5.6.7.8.9"),
        "of another study": await get(world, KOS_SOPInstanceUID=other),
        "replaced": await get(world, f"/studies/{ROOT}.1.108", KOS_SOPInstanceUID=replaced),
    }
    assert {name: (reply.status, told(reply)) for name, reply in answers.items()} == {
        "absent": (400, "kos-header"),
        "no UID": (400, "kos-header"),
        "unknown": (404, "kos-unknown"),
        "of another study": (404, "kos-unknown"),
        "replaced": (404, "kos-replaced"),
    }


async def _differs(world: World, former: str) -> bool:
    return [k["unique_id"] for k in await world.kos(f"{ROOT}.1.108")] != [former]


@pytest.mark.requirement("D14")
@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/studies/1.2.3.4.5.6.7.8.9", 404, "kos-unknown"),
        (f"/studies/{STUDY}/series/1.2.3", 404, "images-unknown"),
        (f"/studies/{STUDY}/series/{SERIES}/instances/1.2.3", 404, "images-unknown"),
        ("/studies/..%2f..%2fetc", 404, "http"),
        ("/studies/01.2.3", 400, "uid"),
        (f"/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}/frames/0", 400, "frames"),
        ("/patients", 404, "http"),
    ],
)
async def test_what_is_not_there(world: World, path: str, status: int, code: str) -> None:
    reply = await get(world, path)
    assert (reply.status, told(reply)) == (status, code)


@pytest.mark.requirement("D14")
async def test_nothing_acceptable(world: World) -> None:
    for accept in ("image/png", 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.110'):
        reply = await get(world, Accept=accept)
        assert (reply.status, told(reply)) == (406, "not-acceptable")
    assert (await get(world, method="POST")).status == 405


@pytest.mark.requirement("DB.SO.40", "D14")
async def test_one_instance_one_frame_one_study_and_their_metadata(world: World) -> None:
    for path, images in (
        (f"/studies/{STUDY}", 20),
        (f"/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}", 1),
        (f"/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}/frames/1", 1),
    ):
        reply = await get(world, path)
        assert (reply.status, len(parts(reply))) == (200, images)
    reply = await get(world, f"/studies/{STUDY}/series/{SERIES}/metadata", Accept="application/dicom+json")
    described = json.loads(reply.body)
    assert (reply.status, len(described)) == (200, 20)
    assert "7FE00010" not in described[0] or "Value" not in described[0]["7FE00010"]


# --------------------------------------------------------------------------------------------------- official clients


async def raw(world: World, request: bytes) -> tuple[bytes, bytes]:
    """Send octets as they are, over mutual TLS; the head and the content of the answer, which ends cleanly."""
    reader, writer = await asyncio.open_connection(
        "localhost", world.mesh.ports.wado_a, ssl=world.mesh.tls_b, server_hostname="localhost", limit=2**24
    )
    writer.write(request)
    await writer.drain()
    answer = await reader.read(-1)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return head, body
    content = b""
    while True:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        content, body = content + rest[:length], rest[length + 2 :]
        if not length:
            assert body == b""
            return head, content


@pytest.mark.requirement("DB.SO.36", "DB.SO.39", "DB.CO.122")
@pytest.mark.parametrize("target", ["path", "whole address"])
@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("OK_Requete_CISIS_TSLossy", 24),
        ("OK_Requete_CISIS_TSLossless", 24),
        ("OK_Series", 24),
        ("series", 24),
        ("OK_Study", 48),
        ("OK_Frames", 1),
        ("instance", 1),
    ],
)
async def test_the_requests_of_the_official_client(
    world: World, samples: Path, name: str, images: int, target: str
) -> None:
    """Word for word, but for the addresses, the identifiers and the token: exam C, kept as lossless JPEG."""
    kos = await kos_of(world, "C", f"{ROOT}.1.103")
    text = (samples / "wado-rs" / "requests" / f"{name}.txt").read_text("utf-8")
    first, *lines = text.strip().splitlines()
    base = world.endpoints["wado_rs"]["base"]
    address = re.sub(r"https://.*?/studies/", f"{base}/studies/", first.split()[1])
    for level, uid in (
        ("studies", f"{ROOT}.1.103"),
        ("series", f"{ROOT}.2.103.201"),
        ("instances", f"{ROOT}.3.103.201.31"),
    ):
        address = re.sub(rf"/{level}/[0-9.]+", f"/{level}/{uid}", address)
    if target == "path":
        address = address.removeprefix(f"https://localhost:{world.mesh.ports.wado_a}")
    sent = [f"GET {address} HTTP/1.1"]
    for line in lines:
        field = line.split(":")[0].lower()
        if field == "authorization":
            line = f"Authorization: Bearer {await world.token()}"
        elif field == "kos-sopinstanceuid":
            line = f"KOS-SOPInstanceUID: {kos}"
        if field not in ("host", "connection"):
            sent.append(line)
    sent += [f"Host: localhost:{world.mesh.ports.wado_a}", "Connection: close", "", ""]
    head, body = await raw(world, "\r\n".join(sent).encode("ascii"))
    status, *fields = head.decode("ascii").split("\r\n")
    assert status == "HTTP/1.1 200 OK"
    named = {line.split(":")[0].lower(): line.partition(":")[2].strip() for line in fields}
    kind = named["content-type"]
    assert kind.startswith("multipart/related;")
    assert 'type="application/dicom"' in kind
    boundary = re.search(r'boundary="?([^";]+)', kind)
    assert boundary is not None
    assert named["transfer-encoding"] == "chunked"
    assert "server" not in named
    assert body.count(b"\r\n--" + boundary[1].encode() + b"\r\nContent-Type: application/dicom") == images
    assert body.rstrip().endswith(f"--{boundary[1]}--".encode())


@pytest.mark.requirement("DB.SO.103", "D20")
async def test_the_official_health_check(world: World, samples: Path) -> None:
    text = (samples / "wado-rs" / "requests" / "healthcheck.txt").read_text("utf-8")
    first, *lines = text.strip().splitlines()
    base = world.endpoints["wado_rs"]["base"].removeprefix(f"https://localhost:{world.mesh.ports.wado_a}")
    sent = [
        f"GET {base} HTTP/1.1",
        *(line for line in lines if not line.lower().startswith("connection")),
        "Connection: close",
    ]
    head, body = await raw(world, "\r\n".join([*sent, "", ""]).encode("ascii"))
    assert first.startswith("GET ")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert json.loads(body)["status"] == "ok"


@pytest.mark.requirement("DB.SO.103", "D20")
async def test_health_and_capabilities_ask_for_no_token(world: World) -> None:
    port = world.mesh.ports.wado_a
    for method, url in (
        ("OPTIONS", world.endpoints["wado_rs"]["base"]),
        ("OPTIONS", world.endpoints["wado_rs"]["base"] + "/"),
        ("GET", world.endpoints["wado_rs"]["base"]),
        ("GET", world.endpoints["wado_rs"]["health"]),
    ):
        reply = await world.mesh.http.send(method, url, tls=world.mesh.tls_b, headers={"Accept": "application/json"})
        assert reply.status == 200
        assert json.loads(reply.body)["status"] == "ok"
        assert b"IPP" not in reply.body
        assert str(port).encode() not in reply.body
    wadl = await world.mesh.http.send("OPTIONS", world.endpoints["wado_rs"]["base"], tls=world.mesh.tls_b)
    assert wadl.headers["Content-Type"].startswith("application/vnd.sun.wadl+xml")


@pytest.mark.requirement("DB.SO.32")
async def test_a_dicomweb_library_retrieves_a_series(world: World) -> None:
    """With nothing but what ``endpoints.json`` tells, and a token."""
    kos, token = await kos_of(world, "H", f"{ROOT}.1.109"), await world.token()

    def retrieve() -> list[pydicom.Dataset]:
        with requests.Session() as session:
            session.trust_env = False
            auth = world.endpoints["certificates"]["sites"]["b"]["auth"]
            session.cert = (auth["certificate"], auth["key"])
            session.verify = world.endpoints["certificates"]["ca"]
            session.headers.update({"Authorization": f"Bearer {token}", "KOS-SOPInstanceUID": kos})
            client = DICOMwebClient(world.endpoints["wado_rs"]["base"], session=session)
            kinds = (("application/dicom", "1.2.840.10008.1.2.4.80"),)
            return client.retrieve_series(f"{ROOT}.1.109", f"{ROOT}.2.109.201", media_types=kinds)

    images = await asyncio.to_thread(retrieve)
    assert len(images) == 20
    assert {image.file_meta.TransferSyntaxUID for image in images} == {"1.2.840.10008.1.2.4.80"}
    assert {image.PatientID for image in images} == {"IPP101"}
    for image in images:
        assert [i.PatientID for i in image.OtherPatientIDsSequence] == [PATIENT_AT_B.ins]


@pytest.mark.requirement("DB.SO.36", "exam:D")
async def test_the_syntax_that_is_asked_for_is_the_one_that_comes(world: World) -> None:
    """Transcoded without loss where the PACS holds another one; the pixels stay the PACS's."""
    kos = await kos_of(world, "D", f"{ROOT}.1.104")
    for syntax in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90"):
        accept = f'multipart/related; type="application/dicom"; transfer-syntax={syntax}'
        path = f"/studies/{ROOT}.1.104/series/{ROOT}.2.104.201"
        reply = await get(world, path, KOS_SOPInstanceUID=kos, Accept=accept)
        assert reply.status == 200
        received = parts(reply)
        assert len(received) == 12
        for image in received:
            dataset = pydicom.dcmread(io.BytesIO(image))
            assert dataset.file_meta.TransferSyntaxUID == syntax
            original = world.original(dataset.SOPInstanceUID)
            assert differences(image, original, ins=PATIENT_AT_B.ins, ins_oid=PATIENT_AT_B.ins_oid) == []


# -------------------------------------------------------------------------------------------------------- many, gone


@pytest.mark.requirement("DB.SO.35")
async def test_five_series_at_once(world: World) -> None:
    replies = await asyncio.gather(*(get(world) for _ in range(5)))
    assert [len(parts(reply)) for reply in replies] == [20] * 5


@pytest.mark.requirement("DB.SO.35", "exam:A")
async def test_a_caller_that_leaves_costs_nothing(world: World) -> None:
    """Gone after the first octets of 157 MB: the move is cancelled, nothing stays in the spool."""
    kos, token = await kos_of(world, "A", f"{ROOT}.1.101"), await world.token()
    for _ in range(3):
        async with world.mesh.http.stream(
            "GET",
            f"{world.endpoints['wado_rs']['base']}/studies/{ROOT}.1.101",
            tls=world.mesh.tls_b,
            headers={"Authorization": f"Bearer {token}", "KOS-SOPInstanceUID": kos, "Accept": ANYTHING},
        ) as answer:
            assert answer.status == 200
            await anext(answer.chunks)

    await eventually(world.swept, "images of callers that left are still there", 20)
    assert (await get(world)).status == 200


@pytest.mark.requirement("DB.SO.43")
async def test_each_request_is_in_the_journal(world: World) -> None:
    async def accesses() -> list[dict[str, Any]]:
        return await world.sql(
            "SELECT outcome, actor, objects FROM audit WHERE event IN (%s, %s) ORDER BY id",
            Kind.IMAGES_SERVED.code,
            Kind.TOKEN_REFUSED.code,
        )

    await kos_of(world)
    before = len(await accesses())
    await get(world, Authorization=None)
    await get(world)

    async def written() -> bool:
        return len(await accesses()) == before + 2

    await eventually(written, "an access is not in the journal")
    refused, served = (await accesses())[-2:]
    assert refused["outcome"] != 0
    assert (served["outcome"], served["actor"]["person"]) == (0, "899700367909")
    assert SERIES in json.dumps(served["objects"])
