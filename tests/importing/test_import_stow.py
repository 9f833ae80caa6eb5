"""Imports by STOW-RS: into Orthanc's own DICOMweb, and into servers that answer as they should not."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from import_world import Sources, free_port, importing, make_exam, pacs_at, until
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from drimbox.foundation.errors import Busy, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.importing.orders import State, told
from drimbox.importing.targets import WebTarget
from drimbox.pacs.dicomweb import DicomWeb, WebService
from drimbox.pacs.header import outgoing
from drimbox.pacs.site import PacsLink
from drimbox.pacs.store import Sent
from drimbox.pacs.web_query import WebStudyFinder
from drimbox.pacs.web_store import WebStore
from drimbox.sandbox.pacs import orthanc as debian
from drimbox.sandbox.pacs.peer import Destination, PacsPeer
from drimbox.store.database import Pool

KNOWN = (Destination("DRIMBOX_B", "127.0.0.1", 1),)


@pytest.mark.requirement("DB.CO.60", "DB.CO.77")
async def test_a_study_is_stored_by_stow_and_found_by_qido(pool: Pool, tmp_path: Path) -> None:
    if not debian.installed():
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    exam = make_exam("D", tmp_path)
    config = debian.OrthancConfig(tmp_path / "orthanc", "PACS_B", free_port(), free_port(), KNOWN)
    with debian.orthanc(config) as peer:
        pacs = pacs_at(peer)
        link = PacsLink(pacs)
        address = DicomWeb(
            f"{peer.rest_url}/dicom-web", ssl.create_default_context(), peer.rest_user, peer.rest_password
        )
        async with HttpClient() as http:
            service = WebService(http, address, "pacs-b")
            target = WebTarget("pacs-b", "PACS", WebStore(link, service), WebStudyFinder(link, service))
            async with importing(pool, tmp_path / "imports", Sources(exam), pacs, targets={"pacs-b": target}) as box:
                number = await box.ask(exam)
                done = await box.state(number, State.DONE)
                assert told(done) == "24 sur 24 enregistrées et retrouvées"
        link.close()


def answer(referenced: Mapping[str, int | None], failed: Mapping[str, int | None]) -> bytes:
    def items(of: Mapping[str, int | None], reason: str) -> dict[str, object]:
        found = []
        for uid, code in of.items():
            item: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
            if code is not None:
                item[reason] = {"vr": "US", "Value": [code]}
            found.append(item)
        return {"vr": "SQ", "Value": found}

    return json.dumps({"00081199": items(referenced, "00081196"), "00081198": items(failed, "00081197")}).encode()


@asynccontextmanager
async def server(reply: Callable[[bytes], Response]) -> AsyncIterator[WebStore]:
    async def stow(request: Request) -> Response:
        assert request.headers["content-type"].startswith('multipart/related; type="application/dicom"; boundary=')
        return reply(await request.body())

    port = free_port()
    app = Starlette(routes=[Route("/dicom-web/studies", stow, methods=["POST"])])
    running = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
    task = asyncio.create_task(running.serve())

    async def started() -> bool:
        return running.started

    await until(started)
    link = PacsLink(pacs_at(PacsPeer("PACS_B", "127.0.0.1", port)))
    try:
        async with HttpClient() as http:
            address = DicomWeb(f"http://127.0.0.1:{port}/dicom-web", ssl.create_default_context())
            yield WebStore(link, WebService(http, address, "pacs-b"))
    finally:
        running.should_exit = True
        await task
        link.close()


async def stored(store: WebStore, folder: Path) -> list[Sent]:
    images = [outgoing(path) for path in sorted(make_exam("B", folder).files.values())][:4]
    async with store.sending(images) as results:
        return [one async for one in results]


async def test_each_instance_has_the_status_that_the_server_gave(tmp_path: Path) -> None:
    uids = sorted(make_exam("B", tmp_path).uids)

    def reply(body: bytes) -> Response:
        assert body.count(b"DICM") == 4
        return Response(answer({uids[0]: None, uids[1]: 0xB000}, {uids[2]: 0xA700}), 202)

    async with server(reply) as store:
        sent = await stored(store, tmp_path)
    by_uid = {one.instance.sop_instance_uid: one for one in sent}
    assert len(sent) == 4
    assert [by_uid[u].status for u in uids[:4]] == [0, 0xB000, 0xA700, None]
    assert [by_uid[u].stored for u in uids[:4]] == [True, True, False, False]
    # Named nowhere: neither stored nor refused.
    assert by_uid[uids[3]].code == "not-answered"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"00081199": 7}', b'[{"00081199": {"Value": [3]}}]'])
async def test_a_200_that_names_nothing_stores_nothing(body: bytes, tmp_path: Path) -> None:
    async with server(lambda _: Response(body, 200)) as store:
        assert {(one.stored, one.code) for one in await stored(store, tmp_path)} == {(False, "not-answered")}


@pytest.mark.parametrize(
    ("status", "kind"), [(503, Busy), (500, Unavailable), (401, Rejected), (404, Rejected), (501, Rejected)]
)
async def test_error_statuses(status: int, kind: type[Exception], tmp_path: Path) -> None:
    async with server(lambda _: Response(b"no", status)) as store:
        with pytest.raises(kind):
            await stored(store, tmp_path)


async def test_too_large_together_goes_one_by_one(tmp_path: Path) -> None:
    calls: list[int] = []

    def reply(body: bytes) -> Response:
        calls.append(body.count(b"DICM"))
        return Response(b"", 413)

    async with server(reply) as store:
        sent = await stored(store, tmp_path)
    assert calls == [4, 1, 1, 1, 1]
    assert {one.code for one in sent} == {"too-large"}


async def test_a_server_that_takes_no_such_form(tmp_path: Path) -> None:
    async with server(lambda _: Response(b"", 415)) as store:
        assert {one.code for one in await stored(store, tmp_path)} == {"context-refused"}


async def test_nobody_there(tmp_path: Path) -> None:
    link = PacsLink(pacs_at(PacsPeer("PACS_B", "127.0.0.1", free_port())))
    async with HttpClient() as http:
        address = DicomWeb(f"http://127.0.0.1:{free_port()}/dicom-web", ssl.create_default_context())
        with pytest.raises(Unavailable):
            await stored(WebStore(link, WebService(http, address, "pacs-b")), tmp_path)
    link.close()
