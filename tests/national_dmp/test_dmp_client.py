"""The client against a server on the loopback, over mutual TLS: what goes on the wire, and wires that break."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from email import message_from_bytes, policy

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from dmp_answers import (
    Sent,
    envelope,
    existence_response,
    extrinsic,
    query_response,
    registry_response,
    retrieve_response,
)
from dmp_examples import KOS_BYTES, KOS_UID, make_client
from lxml import etree
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import Misconfigured, OutcomeUnknown, Refused, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import client_certificate, serving
from drimbox.foundation.xml import parse
from drimbox.identity.ins import Authority, Ins
from drimbox.national.dmp import codes
from drimbox.national.dmp.actor import Actor, DmpEndpoints
from drimbox.national.dmp.client import Criteria, DmpClient, DocumentWanted, EntryRef
from drimbox.national.dmp.codes import Status
from drimbox.national.dmp.errors import DmpRejected
from drimbox.national.dmp.existence import RecordStatus
from drimbox.national.dmp.metadata import Cx, SubmissionDraft
from drimbox.national.dmp.provide import PreparedSubmission
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust.keystore import Credential, load_credential
from drimbox.trust.tls import client_context, load_trust, server_context

WSA = f"{{{codes.WSA}}}"


class Desk:
    """A server that keeps what it is sent and answers from a list, each answer relating to its request."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, dict[str, str], bytes, bytes | None]] = []

    async def serve(self, request: Request) -> Response:
        body = await request.body()
        self.requests.append((request.url.path, dict(request.headers), body, client_certificate(request)))
        text = envelope(self.answers.pop(0), "urn:related").replace("urn:related", self.header("MessageID"))
        return Response(text, media_type="application/soap+xml")

    def message(self, number: int = -1) -> etree._Element:
        _, headers, body, _ = self.requests[number]
        if headers["content-type"].startswith("multipart/"):
            body = self.parts(number)[0]
        return parse(body)

    def parts(self, number: int = -1) -> list[bytes]:
        _, headers, body, _ = self.requests[number]
        raw = f"Content-Type: {headers['content-type']}\r\n\r\n".encode() + body
        found = message_from_bytes(raw, policy=policy.HTTP)
        return [part.get_payload(decode=True) for part in found.iter_parts()]  # type: ignore[attr-defined]

    def header(self, name: str, number: int = -1) -> str:
        return self.message(number).findtext(f".//{WSA}{name}") or ""


@pytest.fixture(scope="session")
def server_pair(authority: TestAuthority) -> PemPair:
    return authority.issue(
        Profile.SSL_SERV,
        "dmp-server",
        common_name="dmp.test",
        unit="318751275100020",
        organisation="BAC A SABLE",
        hosts=("127.0.0.1", "localhost"),
    )


@pytest.fixture(scope="session")
def server_tls(authority: TestAuthority, server_pair: PemPair) -> ssl.SSLContext:
    credential = load_credential(server_pair.certificate, server_pair.key)
    return server_context(credential, load_trust([authority.roots], authority.revocation_lists))


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    async with HttpClient() as opened:
        yield opened


def endpoints_at(port: int) -> DmpEndpoints:
    base = f"https://127.0.0.1:{port}/services"
    return DmpEndpoints(f"{base}/repository", f"{base}/registry", f"{base}/patients", f"{base}/habilitations")


@asynccontextmanager
async def calling(
    desk: Desk, http: HttpClient, server_tls: ssl.SSLContext, clock: FixedClock
) -> AsyncIterator[DmpClient]:
    app = Starlette(routes=[Route("/services/{name}", desk.serve, methods=["POST"])])
    async with serving(app, host="127.0.0.1", port=0, tls=server_tls) as port:
        yield make_client(http, endpoints_at(port), clock)


@pytest.mark.requirement("DB.SO.19", "exam:E")
async def test_a_publication_goes_out_over_mutual_tls(
    http: HttpClient,
    server_tls: ssl.SSLContext,
    clock: FixedClock,
    actor: Actor,
    auth: Credential,
    ins: Ins,
    prepared: PreparedSubmission,
) -> None:
    desk = Desk(registry_response(), registry_response())
    async with calling(desk, http, server_tls, clock) as client:
        assert not (await client.provide(actor, ins, prepared)).partial
        await client.provide(actor, ins, prepared)
    path, headers, _, certificate = desk.requests[0]
    assert path == "/services/repository"
    assert headers["accept-encoding"] == "identity"
    assert certificate == auth.certificate.public_bytes(Encoding.DER)
    _, kos, signature = desk.parts(0)
    assert (kos, signature) == (KOS_BYTES, prepared.signature)
    assert desk.header("Action", 0) == codes.ACTION_PROVIDE
    assert desk.header("To", 0).endswith("/services/repository")
    action = desk.message(0).find(f".//{WSA}Action")
    assert action is not None
    assert action.get(f"{{{codes.SOAP}}}mustUnderstand") == "true"
    # Sent again as it was, under a message and an assertion of its own.
    assert desk.parts(1)[1:] == [kos, signature]
    assert desk.header("MessageID", 0) != desk.header("MessageID", 1)
    ids = [desk.message(n).find(f".//{{{codes.SAML}}}Assertion").get("ID") for n in (0, 1)]  # type: ignore[union-attr]
    assert ids[0] != ids[1]


async def test_the_technical_id_is_all_that_the_indirect_mode_asks(
    http: HttpClient, server_tls: ssl.SSLContext, clock: FixedClock, actor: Actor, reinforced: Actor, ins: Ins
) -> None:
    desk = Desk(
        query_response('<ObjectRef id="urn:uuid:1"/>'),
        query_response(""),
        query_response(extrinsic("urn:uuid:1", ins.cx(), KOS_UID)),
        query_response('<ObjectRef id="urn:uuid:1"/><ObjectRef id="urn:uuid:2"/>'),
        query_response(
            extrinsic("urn:uuid:1", ins.cx(), KOS_UID).replace("Approved", "Deprecated")
            + extrinsic("urn:uuid:2", ins.cx(), KOS_UID)
        ),
    )
    async with calling(desk, http, server_tls, clock) as client:
        assert await client.entry_by_unique_id(actor, ins, KOS_UID) == EntryRef("urn:uuid:1")
        assert await client.entry_by_unique_id(actor, ins, KOS_UID) is None
        assert await client.entry_by_unique_id(reinforced, ins, KOS_UID) == EntryRef("urn:uuid:1", Status.APPROVED)
        assert await client.entry_by_unique_id(actor, ins, KOS_UID) == EntryRef("urn:uuid:2", Status.APPROVED)
    asked = [desk.message(n).find(f".//{{{codes.QUERY}}}ResponseOption").get("returnType") for n in range(5)]  # type: ignore[union-attr]
    assert asked == ["ObjectRef", "ObjectRef", "LeafClass", "ObjectRef", "LeafClass"]


@pytest.mark.requirement("DMP/UX.27")
async def test_what_does_not_match_is_not_shown(
    http: HttpClient, server_tls: ssl.SSLContext, clock: FixedClock, reinforced: Actor, ins: Ins
) -> None:
    event = (
        f'<Classification id="c" classifiedObject="x" classificationScheme="{codes.EntryScheme.EVENT}" '
        'nodeRepresentation="{}"/>'
    )
    listed = extrinsic("urn:uuid:1", ins.cx(), "1.2.3", event.format("CT")) + extrinsic(
        "urn:uuid:2", ins.cx(), "1.2.4", event.format("MR")
    )
    reference = (
        f'<Slot name="{codes.REFERENCE_SLOT}"><ValueList>'
        f"<Value>A1^^^&amp;1.2&amp;ISO^{codes.REFERENCE_ACCESSION}</Value></ValueList></Slot>"
    )
    referring = extrinsic("urn:uuid:3", ins.cx(), "1.2.5", reference)
    desk = Desk(
        query_response(listed), query_response(referring + listed), query_response(extrinsic("urn:uuid:1", ins.cx()))
    )
    async with calling(desk, http, server_tls, clock) as client:
        found = await client.find_documents(reinforced, ins, Criteria(modalities=("CT",)))
        assert [e.entry_id for e in found] == ["urn:uuid:1"]
        by_reference = await client.find_by_reference(reinforced, ins, [Cx("A1", "1.2", codes.REFERENCE_ACCESSION)])
        assert [e.entry_id for e in by_reference] == ["urn:uuid:3"]
        entry = await client.document(reinforced, ins, "1.2.3")
        assert entry is not None
        assert entry.entry_id == "urn:uuid:1"
        _, headers, _, _ = desk.requests[0]
        assert headers["content-type"] == (
            'application/soap+xml; charset=UTF-8; action="urn:ihe:iti:2007:RegistryStoredQuery"'
        )


async def test_a_large_answer_is_read_aside(
    http: HttpClient, server_tls: ssl.SSLContext, clock: FixedClock, reinforced: Actor, ins: Ins
) -> None:
    many = "".join(extrinsic(f"urn:uuid:{n}", ins.cx(), f"1.2.{n}") for n in range(1000))
    desk = Desk(query_response(many, total="1000"))
    async with calling(desk, http, server_tls, clock) as client:
        assert len(await client.find_documents(reinforced, ins, Criteria())) == 1000


async def test_the_other_transactions(
    http: HttpClient,
    server_tls: ssl.SSLContext,
    clock: FixedClock,
    actor: Actor,
    reinforced: Actor,
    ins: Ins,
    draft: SubmissionDraft,
) -> None:
    desk = Desk(
        existence_response(ins),
        '<setAuthorizationResponse xmlns="urn:si-dmp-habilitations"><status>DMPOk</status></setAuthorizationResponse>',
        retrieve_response(Sent()),
        registry_response(),
    )
    async with calling(desk, http, server_tls, clock) as client:
        assert (await client.existence(reinforced, ins)).status is RecordStatus.ACTIVE
        await client.authorise(reinforced, ins)
        (document,) = await client.retrieve(reinforced, ins, [DocumentWanted("1.2", "1.2.3")])
        assert document.content == b"\x00\x01\x02"
        await client.change_status(actor, ins, "urn:uuid:1", Status.APPROVED, Status.DELETED, draft)
    assert [path.rpartition("/")[2] for path, *_ in desk.requests] == [
        "patients",
        "habilitations",
        "repository",
        "registry",
    ]
    question = desk.message(0)
    value = question.find(f".//{{{codes.HL7}}}patientIdentifier/{{{codes.HL7}}}value")
    assert value is not None
    assert (value.get("root"), value.get("extension")) == (ins.oid, ins.matricule)
    assert question.find(f".//{{{codes.HL7}}}reasonCode").get("code") == "TEST_EXST"  # type: ignore[union-attr]
    assert desk.message(1).findtext(".//{urn:si-dmp-habilitations}action") == "AJOUT"
    # Nothing of the patient stands in an address or an HTTP header.
    for path, headers, _, _ in desk.requests:
        assert ins.matricule not in f"{path} {headers}"


# --- wires that break -------------------------------------------------------------------------------------------------

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


@asynccontextmanager
async def scripted(
    script: Callable[[Reader, Writer], Awaitable[None]], server_tls: ssl.SSLContext
) -> AsyncIterator[int]:
    async def handle(reader: Reader, writer: Writer) -> None:
        try:
            await script(reader, writer)
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def whole_request(reader: Reader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    await reader.readexactly(length)


async def hang_up_at_once(reader: Reader, writer: Writer) -> None:
    await reader.read(10)


async def hang_up_after_the_request(reader: Reader, writer: Writer) -> None:
    await whole_request(reader)


async def cut_the_answer(reader: Reader, writer: Writer) -> None:
    await whole_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/soap+xml\r\nContent-Length: 5000\r\n\r\n<soap:Envelope")
    await writer.drain()


async def stay_silent(reader: Reader, writer: Writer) -> None:
    await whole_request(reader)
    await asyncio.sleep(30)


async def talk_nonsense(reader: Reader, writer: Writer) -> None:
    await whole_request(reader)
    writer.write(b"\x00\x01\x02 not HTTP\r\n\r\n")
    await writer.drain()


async def never_end(reader: Reader, writer: Writer) -> None:
    await whole_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/soap+xml\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(200):
        writer.write(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize(
    "script",
    [hang_up_at_once, hang_up_after_the_request, cut_the_answer, stay_silent, talk_nonsense],
)
async def test_after_a_broken_wire_a_change_is_unknown_and_a_question_can_be_asked_again(
    script: Callable[[Reader, Writer], Awaitable[None]],
    http: HttpClient,
    server_tls: ssl.SSLContext,
    clock: FixedClock,
    actor: Actor,
    ins: Ins,
    prepared: PreparedSubmission,
) -> None:
    async with scripted(script, server_tls) as port:
        client = make_client(http, endpoints_at(port), clock, timeout=0.5)
        with pytest.raises(OutcomeUnknown):
            await client.provide(actor, ins, prepared)
        with pytest.raises(Unavailable) as found:
            await client.entry_by_unique_id(actor, ins, KOS_UID)
        assert type(found.value) is Unavailable


async def test_an_answer_without_end_is_cut_off(
    http: HttpClient,
    server_tls: ssl.SSLContext,
    clock: FixedClock,
    actor: Actor,
    ins: Ins,
    prepared: PreparedSubmission,
) -> None:
    async with scripted(never_end, server_tls) as port:
        client = make_client(http, endpoints_at(port), clock, timeout=20)
        with pytest.raises(OutcomeUnknown) as change:
            await client.provide(actor, ins, prepared)
        with pytest.raises(Rejected) as question:
            await client.entry_by_unique_id(actor, ins, KOS_UID)
    assert change.value.code == question.value.code == "answer-size"


async def test_nothing_of_the_patient_is_logged(
    http: HttpClient,
    server_tls: ssl.SSLContext,
    clock: FixedClock,
    actor: Actor,
    ins: Ins,
    prepared: PreparedSubmission,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    error = (
        f'<e:RegistryErrorList xmlns:e="{codes.RS}"><e:RegistryError errorCode="XDSUnknownPatientId" '
        f'codeContext="PAT-TROIS {ins.matricule}"/></e:RegistryErrorList>'
    )
    desk = Desk(registry_response(), registry_response("Failure").replace("</r:", error + "</r:"))
    async with calling(desk, http, server_tls, clock) as client:
        await client.provide(actor, ins, prepared)
        with pytest.raises(DmpRejected):
            await client.provide(actor, ins, prepared)
    ours = [r for r in caplog.records if r.name.startswith("drimbox")]
    assert [r.levelname for r in ours] == ["INFO", "WARNING"]
    assert "XDSUnknownPatientId" in ours[1].getMessage()
    for record in caplog.records:
        assert not any(s in record.getMessage() for s in ("PAT-TROIS", ins.matricule, "IPP101", "BIDEAULT"))


async def test_without_a_server_nothing_was_done(
    http: HttpClient, clock: FixedClock, actor: Actor, ins: Ins, prepared: PreparedSubmission
) -> None:
    client = make_client(http, endpoints_at(9), clock)
    with pytest.raises(Unavailable) as found:
        await client.provide(actor, ins, prepared)
    assert found.value.code == "unreachable"


async def test_a_server_that_is_not_trusted_gets_nothing(
    http: HttpClient,
    server_tls: ssl.SSLContext,
    clock: FixedClock,
    actor: Actor,
    auth: Credential,
    ins: Ins,
    prepared: PreparedSubmission,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    stranger = TestAuthority(tmp_path_factory.mktemp("stranger"))
    suspicious = replace(actor, tls=client_context(load_trust([stranger.roots], stranger.revocation_lists), auth))
    desk = Desk()
    async with calling(desk, http, server_tls, clock) as client:
        with pytest.raises(Unavailable) as found:
            await client.provide(suspicious, ins, prepared)
    assert found.value.code == "tls"
    assert not desk.requests


async def test_test_and_production_never_mix(http: HttpClient, clock: FixedClock, actor: Actor) -> None:
    desk_never_reached = endpoints_at(9)
    real = Ins("279035121518989", Authority.NIR)
    with pytest.raises(Misconfigured) as found:
        await make_client(http, desk_never_reached, clock).existence(actor, real)
    assert found.value.code == "ins-range"


async def test_an_incomplete_identity_sends_nothing(
    http: HttpClient, server_tls: ssl.SSLContext, clock: FixedClock, actor: Actor, ins: Ins
) -> None:
    desk = Desk()
    lacking = replace(actor, identity=replace(actor.identity, structure_id=""))
    async with calling(desk, http, server_tls, clock) as client:
        with pytest.raises(Refused):
            await client.existence(lacking, ins)
    assert not desk.requests


async def test_calls_at_once_do_not_mix(
    http: HttpClient, server_tls: ssl.SSLContext, clock: FixedClock, reinforced: Actor, ins: Ins, other_ins: Ins
) -> None:
    async def echo(request: Request) -> Response:
        """Answers for the patient of the assertion, the slower the earlier it was asked."""
        message = parse(await request.body())
        patients = [v.text or "" for v in message.iter(f"{{{codes.SAML}}}AttributeValue") if "ISO^NH" in (v.text or "")]
        await asyncio.sleep(0.05 if ins.matricule in patients[0] else 0)
        related = message.findtext(f".//{WSA}MessageID") or ""
        answer = envelope(query_response(extrinsic("urn:uuid:1", patients[0])), related)
        return Response(answer, media_type="application/soap+xml")

    app = Starlette(routes=[Route("/services/{name}", echo, methods=["POST"])])
    async with serving(app, host="127.0.0.1", port=0, tls=server_tls) as port:
        client = make_client(http, endpoints_at(port), clock)
        answers = await asyncio.gather(
            *(client.find_documents(reinforced, patient, Criteria()) for patient in [ins, other_ins] * 5)
        )
    for patient, found in zip([ins, other_ins] * 5, answers, strict=True):
        assert all(entry.is_of(patient) for entry in found)
        assert len(found) == 1
