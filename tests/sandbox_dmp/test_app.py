"""The DMP on a real listener: mutual TLS, limits, faults on demand, the view of what it holds."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from drimbox.foundation.errors import OutcomeUnknown, Unavailable
from drimbox.foundation.http_client import HttpClient, Reply
from drimbox.foundation.http_server import serving
from drimbox.sandbox.dmp import FaultKind, KnownStructure, OrderedFault, Policy, dmp_app, view_app
from drimbox.sandbox.dmp.app import application
from drimbox.sandbox.pki import Profile, TestAuthority
from sandbox_dmp.conftest import Opener
from sandbox_dmp.scene import OTHER, Answered, Scene, Wire


@dataclass
class Running:
    """A DMP that listens, and a client of it."""

    scene: Scene
    http: HttpClient
    port: int
    client: ssl.SSLContext

    async def post(self, wire: Wire, *, timeout: float = 10) -> Answered:
        reply = await self.http.send(
            "POST", f"https://localhost:{self.port}{wire.path}", tls=self.client,
            headers={"Content-Type": wire.content_type}, body=wire.body, timeout=timeout,
        )  # fmt: skip
        return Answered.read(reply.status, reply.headers["Content-Type"], reply.body)

    async def view(self, path: str, method: str = "GET", body: object = None) -> Reply:
        return await self.http.send(
            method, f"https://localhost:{self.port}/sandbox/{path}", tls=self.client,
            body=None if body is None else json.dumps(body).encode(),
        )  # fmt: skip

    async def order(self, **fault: object) -> None:
        assert (await self.view("faults", "POST", fault)).status == 200


@pytest.fixture
async def running(tmp_path: Path, authority: TestAuthority, opener: Opener) -> AsyncIterator[Running]:
    scene = opener(tmp_path / "dmp", policy=Policy(max_request=200_000))
    pair = authority.issue(
        Profile.SSL_SERV,
        "dmp",
        common_name="localhost",
        unit="318751275100020",
        organisation="DMP",
        hosts=["localhost"],
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.certificate, pair.key)
    server.load_verify_locations(authority.roots)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(authority.roots))
    auth = scene.caller().pair.auth.pair
    client.load_cert_chain(auth.certificate, auth.key)
    async with (
        HttpClient() as http,
        serving(application(scene.dmp), host="127.0.0.1", port=0, tls=server) as port,
    ):
        yield Running(scene, http, port, client)
    scene.dmp.close()


async def test_publication_and_its_view(running: Running) -> None:
    wire = running.scene.publication()
    assert (await running.post(wire)).outcome == "Success"
    listed = json.loads((await running.view("dmp/documents")).body)
    assert [d["mime"] for d in listed] == ["application/dicom", "text/xml"]
    kos = listed[0]
    assert (kos["unique_id"], kos["status"].rpartition(":")[2]) == (wire.unique_id, "Approved")
    assert kos["confidentiality"] == ["N"]
    study = next(r for r in kos["references"] if r.endswith("studyInstanceUID")).split("^")[0]
    assert json.loads((await running.view(f"dmp/documents?study={study}")).body) == [kos]
    assert json.loads((await running.view(f"dmp/documents?study={study[:-1]}")).body) == []
    octets = await running.view(f"dmp/documents/{wire.unique_id}")
    assert (octets.body, octets.headers["Content-Type"]) == (wire.content, "application/dicom")
    assert (await running.view("dmp/documents/1.2.3")).status == 404
    (submission,) = json.loads((await running.view("dmp/submissions")).body)
    assert (submission["kind"], kos["submission"]) == ("provide", submission["uuid"])
    (line,) = json.loads((await running.view("dmp/log")).body)
    assert (line["transaction"], line["verdict"], line["rule"]) == ("ITI-41", "accepted", "")


async def test_certificate_of_the_handshake_is_the_one_judged(running: Running, authority: TestAuthority) -> None:
    other = running.scene.publication(running.scene.caller(OTHER), site=OTHER)
    assert (await running.post(other)).fault[2] == "VIHF.UNIT"
    naked = ssl.create_default_context(cafile=str(authority.roots))
    with pytest.raises((Unavailable, OutcomeUnknown)):
        await running.http.send("POST", f"https://localhost:{running.port}{other.path}", tls=naked, body=b"")


async def test_refusals_are_faults_with_their_http_status(running: Running) -> None:
    wire = running.scene.existence(running.scene.caller())
    assert (await running.post(wire.bent("; charset=UTF-8", ""))).status == 415
    answered = await running.post(wire.bent(b"mustUnderstand", b"mustNotUnderstand"))
    assert (answered.status, answered.fault) == (
        400, ("soap:Sender", "wsa:MessageAddressingHeaderRequired", "WSA.ACTION")
    )  # fmt: skip
    assert answered.content_type.startswith("application/soap+xml")
    assert [v.verdict for v in running.scene.dmp.store.verdicts()] == ["fault", "fault"]


async def test_request_over_the_limit_is_refused(running: Running) -> None:
    wire = running.scene.existence(running.scene.caller())
    long = Wire(wire.service, wire.content_type, wire.body + b" " * 200_000, wire.certificate, wire.path)
    answered = await running.post(long)
    assert (answered.status, answered.broken) == (413, ("HTTP.SIZE", "dmp:RequestTooLarge"))
    assert (await running.post(running.scene.existence(running.scene.caller()))).fault == ("", "", "")


async def test_only_post_to_known_services(running: Running) -> None:
    base = f"https://localhost:{running.port}/si-dmp-server/v2/services"
    for method, path, status in (("GET", "registry", 405), ("POST", "other", 404)):
        reply = await running.http.send(method, f"{base}/{path}", tls=running.client)
        assert reply.status == status


# --- faults on demand -----------------------------------------------------------------------------------------------


def held(running: Running) -> int:
    return len(running.scene.dmp.store.entries())


@pytest.mark.parametrize(
    ("kind", "told"),
    [("fault", ("ORDERED.FAULT", "dmp:Internal")), ("busy", ("ORDERED.BUSY", "XDSRepositoryBusy"))],
)
async def test_fault_and_busy_do_nothing(running: Running, kind: str, told: tuple[str, str]) -> None:
    await running.order(kind=kind, count=2)
    for _ in range(2):
        assert (await running.post(running.scene.publication())).broken == told
    assert held(running) == 0
    assert (await running.post(running.scene.publication())).outcome == "Success"
    assert json.loads((await running.view("faults")).body) == []


async def test_busy_is_a_fault_where_there_is_no_registry_answer(running: Running) -> None:
    await running.order(kind="busy", service="patients")
    answered = await running.post(running.scene.existence(running.scene.caller()))
    assert (answered.status, answered.broken) == (503, ("ORDERED.BUSY", "dmp:Busy"))


async def test_partial_success_takes_effect(running: Running) -> None:
    await running.order(kind="partial")
    answered = await running.post(running.scene.publication())
    assert (answered.outcome, answered.errors) == ("PartialSuccess", [("XDSRegistryError", "ORDERED.PARTIAL")])
    assert held(running) == 2


@pytest.mark.parametrize(("kind", "entries"), [("cut", 2), ("drop", 0)])
async def test_connection_is_cut_with_or_without_effect(running: Running, kind: str, entries: int) -> None:
    await running.order(kind=kind)
    with pytest.raises(OutcomeUnknown):
        await running.post(running.scene.publication())
    assert held(running) == entries


async def test_timeout_takes_effect_and_ends_with_the_client(running: Running) -> None:
    await running.order(kind="timeout", seconds=600)
    with pytest.raises(OutcomeUnknown):
        await running.post(running.scene.publication(), timeout=1)
    assert held(running) == 2


async def test_slow_answer_is_a_good_answer(running: Running) -> None:
    await running.order(kind="slow", seconds=0.3)
    start = time.monotonic()
    assert (await running.post(running.scene.publication())).outcome == "Success"
    assert time.monotonic() - start >= 0.3


async def test_unavailable_says_when_to_come_back(running: Running) -> None:
    await running.order(kind="unavailable", seconds=7, service="repository")
    assert (await running.post(running.scene.existence(running.scene.caller()))).status == 200
    wire = running.scene.publication()
    reply = await running.http.send(
        "POST", f"https://localhost:{running.port}{wire.path}", tls=running.client,
        headers={"Content-Type": wire.content_type}, body=wire.body,
    )  # fmt: skip
    assert (reply.status, reply.headers["Retry-After"], held(running)) == (503, "7", 0)


async def test_orders_are_listed_cleared_and_checked(running: Running) -> None:
    for wrong in (
        {},
        {"kind": "flood"},
        {"kind": "cut", "service": "x"},
        {"kind": "cut", "count": 0},
        [],
        {"kind": []},
    ):
        assert (await running.view("faults", "POST", wrong)).status == 400
    running.scene.dmp.faults.order(OrderedFault(FaultKind.CUT, count=3))
    listed = json.loads((await running.view("faults")).body)
    assert listed == [{"kind": "cut", "count": 3, "service": "", "seconds": 2.0}]
    assert json.loads((await running.view("faults", "DELETE")).body) == []


async def test_many_at_once_are_all_judged(running: Running) -> None:
    wires = [running.scene.publication() for _ in range(8)]
    answers = await asyncio.gather(*(running.post(w) for w in wires))
    assert {a.outcome for a in answers} == {"Success"}
    assert held(running) == 16


async def test_one_publication_sent_twice_at_once_counts_once(running: Running) -> None:
    study = "1.2.250.1.213.4.5.2.1.105"
    first = running.scene.publication(study=study)
    second = running.scene.publication(study=study, unique_id=first.unique_id)
    answers = await asyncio.gather(running.post(first), running.post(second))
    assert sorted(a.outcome for a in answers) == ["Failure", "Success"]
    assert held(running) == 2


# --- the view without a certificate ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("open_view", "status"), [(False, 403), (True, 200)])
async def test_view_beside_the_services_asks_for_a_certificate(
    tmp_path: Path, authority: TestAuthority, open_view: bool, status: int
) -> None:
    app = dmp_app(
        state=tmp_path / "dmp",
        trust_roots=[authority.roots],
        structures=[KnownStructure("1750803447", "Centre")],
        open_view=open_view,
    )
    async with HttpClient() as http, serving(app, host="127.0.0.1", port=0, tls=None) as port:
        plain = ssl.create_default_context()
        for path in ("dmp/documents", "dmp/submissions", "dmp/log", "faults"):
            reply = await http.send("GET", f"http://127.0.0.1:{port}/sandbox/{path}", tls=plain)
            assert reply.status == status
    app.state.dmp.close()


async def test_view_alone_has_no_services(scene: Scene) -> None:
    wire, _ = scene.published()
    async with HttpClient() as http, serving(view_app(scene.dmp), host="127.0.0.1", port=0, tls=None) as port:
        base, plain = f"http://127.0.0.1:{port}", ssl.create_default_context()
        listed = await http.send("GET", f"{base}/sandbox/dmp/documents", tls=plain)
        assert json.loads(listed.body)[0]["unique_id"] == wire.unique_id
        assert (await http.send("POST", f"{base}{wire.path}", tls=plain)).status == 404
