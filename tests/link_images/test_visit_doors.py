"""Nothing is served without the guard, nothing but the visit's own study, and nothing that is not published now."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.routing import Route
from visit_world import FRAMES, INS, Exam, Open, Site, another_ins, eventually, make_exam

from drimbox.foundation.uids import new_uid
from drimbox.link.visit import Visit, Visitor
from drimbox.link_images.app import Limits
from drimbox.link_images.web import visit_routes
from drimbox.record.audit import Kind, Outcome
from drimbox.reports.report import Visibility

pytestmark = pytest.mark.asyncio(loop_scope="module")


def addresses(site: Site, exam: Exam) -> Sequence[tuple[str, str]]:
    """One address for each route of the room: method and path."""
    assert site.room is not None
    values = {
        "study": exam.study_uid,
        "series": exam.first_series,
        "instance": exam.uids(exam.first_series)[0],
        "frames": "1",
        "where": "00420011",
        "form": "jpeg",
    }
    found = []
    for route in visit_routes(site.room.desk, site.opened):
        assert isinstance(route, Route)
        assert route.methods is not None
        method = "POST" if "POST" in route.methods else "GET"
        found.append((method, route.path.format(**values)))
    return found


@pytest.mark.requirement("DB.VI-SO.28")
async def test_every_address_is_behind_the_guard(site: Site, tmp_path: Path) -> None:
    """Without a door, with another visit's, with one that is closed since: the door's own answer, every time."""
    one = site.publish(make_exam(tmp_path / "one", images=1))
    two = site.publish(make_exam(tmp_path / "two", images=1, ins=another_ins(1)))
    mine, other, closed = site.enter(one), site.enter(two), site.enter(one)
    del site.doors[closed.key]
    for method, path in addresses(site, one):
        before = site.asked
        for visit, key in ((other, mine.key), (closed, closed.key), (mine, "x" * 22)):
            reply = await site.get(visit, path, key=key, method=method)
            assert (reply.status, reply.body) == (404, b"Cette page n'est plus ouverte"), path
        assert site.asked == before + 3
    assert site.pacs.retrieves == []
    assert site.journal.events == []


@pytest.mark.requirement("DB.VI-SO.28", "DB.VI-SO.07")
async def test_a_visit_opens_its_own_study_alone(site: Site, tmp_path: Path) -> None:
    """Forced browsing with a good door: every address of another patient's study is one answer, and is written down."""
    own = site.publish(make_exam(tmp_path / "own", images=2))
    foreign = site.publish(make_exam(tmp_path / "foreign", images=2, ins=another_ins(1)))
    same_patient = site.publish(make_exam(tmp_path / "same", images=2))
    visit = site.enter(own)
    for exam in (foreign, same_patient):
        for method, path in addresses(site, exam):
            if exam.study_uid in path:
                assert (await site.get(visit, path, method=method)).status == 404, path
        # The study is the visit's, the rest is not.
        study = f"/dicomweb/studies/{own.study_uid}"
        series, uid = exam.first_series, exam.uids(exam.first_series)[0]
        for path in (
            f"{study}/series/{series}/metadata",
            f"{study}/series/{series}/arrivees",
            f"{study}/series/{series}/instances/{uid}/frames/1",
            f"{study}/series/{own.first_series}/instances/{uid}/frames/1",
            f"{study}/series/{own.first_series}/instances/{uid}/metadata",
            f"{study}/series/{own.first_series}/instances/{uid}/rendered",
        ):
            assert (await site.get(visit, path)).status == 404, path
        assert json.loads((await site.get(visit, f"/dicomweb/studies?StudyInstanceUID={exam.study_uid}")).body) == []
        assert exam.study_uid not in str(site.pacs.retrieves)
    refused = site.journal.of(Kind.NODE_REFUSED)
    # Once for a visit, however often it tries: a journal is no place to fill a disk.
    assert [(e.outcome, e.outcome_text.partition(":")[0]) for e in refused] == [(Outcome.SERIOUS_FAILURE, "gone")]


@pytest.mark.parametrize(
    "path",
    [
        "/dicomweb/studies/{study}/series/{series}/instances/{image}/frames/0",
        "/dicomweb/studies/{study}/series/{series}/instances/{image}/frames/1,,2",
        "/dicomweb/studies/{study}/series/{series}/instances/{image}/frames/99",
        "/dicomweb/studies/{study}/series/{series}/instances/{image}/frames/-1",
        "/dicomweb/studies/{study}/series/{series}/instances/{image}/frames/²",
        "/dicomweb/studies/{study}/series/{series}/instances/{image}/frames/" + ",".join(["1"] * 101),
        "/dicomweb/studies/{study}/series/{series}/instances/..%2F..%2Fetc%2Fpasswd/frames/1",
        "/dicomweb/studies/{study}/series/{series}/instances/{image}/bulkdata/7FE00010",
        "/dicomweb/studies/{study}/series/{series}/instances/{image}/bulkdata/..%2f..%2f",
        "/dicomweb/studies/{study}/series/{series}/instances/{image}/rendered",
        # An image is given by its frames; its file is the download's.
        "/dicomweb/studies/{study}/series/{series}/instances/{image}",
        "/dicomweb/studies/%00/series/1/metadata",
        "/telechargement/exe",
        "/nulle-part",
    ],
)
async def test_addresses_that_name_nothing(site: Site, tmp_path: Path, path: str) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", images=1))
    visit = site.enter(exam)
    uid = exam.uids(exam.first_series)[0]
    asked = path.format(study=exam.study_uid, series=exam.first_series, image=uid)
    reply = await site.get(visit, asked, accept=FRAMES if "frames" in path else "*/*")
    assert reply.status in (404, 502)
    assert reply.status == 404 or "bulkdata" in path or "rendered" in path
    assert b"DICM" not in reply.body


async def test_methods_and_headers(site: Site, tmp_path: Path) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", images=1))
    visit = site.enter(exam)
    for method in ("HEAD", "POST", "PUT", "DELETE"):
        assert (await site.get(visit, "/", method=method)).status == 405
    assert (await site.get(visit, site.image_path(exam, 0, "/frames/1"), accept=";;=,/")).status == 400
    page = await site.get(visit, accept="text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    shell = await site.get(visit, "/viewer")
    assert "frame-ancestors 'self'" in shell.headers["Content-Security-Policy"]
    assert "'unsafe-eval'" not in shell.headers["Content-Security-Policy"]
    for path in ("/etat", "/apercu", site.image_path(exam, 0, "/frames/1")):
        reply = await site.get(visit, path)
        assert reply.status == 200
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.requirement("DB.SO.38", "D2")
@pytest.mark.parametrize("state", ["depublished", "replaced", "prepared", "abandoned"])
async def test_a_depublished_study_is_gone_from_the_next_request_on(site: Site, tmp_path: Path, state: str) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", images=2))
    visit = site.enter(exam)
    path = site.image_path(exam, 0, "/frames/1")
    assert (await site.get(visit, path, accept=FRAMES)).status == 200
    site.state(exam, state)
    for method, address in (("GET", path), *addresses(site, exam)):
        assert (await site.get(visit, address, method=method)).status == 404, address
    page = await site.get(visit, accept="text/html")
    assert page.status == 404
    assert "n'est pas disponible" in html.unescape(page.body.decode())
    assert b"PAT-TROIS" not in page.body
    assert site.room is not None
    assert len(site.room.desk.visits) == 0


@pytest.mark.requirement("D2")
async def test_a_newer_kos_says_what_is_shared_now(site: Site, tmp_path: Path) -> None:
    """An image was rejected at the PACS while the visit lasts: it is no part of it any more."""
    exam = site.publish(make_exam(tmp_path / "pacs", images=3))
    visit = site.enter(exam)
    assert (await site.get(visit, site.image_path(exam, 2, "/frames/1"), accept=FRAMES)).status == 200
    newer = replace(exam, kos_uid=new_uid(), series={exam.first_series: exam.series[exam.first_series][:2]})
    site.state(exam, "replaced")
    site.archive.held[newer.kos_uid] = newer.kos()
    assert (await site.get(visit, site.image_path(exam, 2, "/frames/1"), accept=FRAMES)).status == 404
    assert (await site.get(visit, site.image_path(exam, 1, "/frames/1"), accept=FRAMES)).status == 200
    [series] = json.loads((await site.get(visit, "/etat")).body)["series"]
    assert series["expected"] == 2
    # Published anew for another patient, it is not this visitor's any more.
    site.archive.held[newer.kos_uid] = replace(newer.kos(), ins=another_ins(4))
    assert (await site.get(visit, site.image_path(exam, 1, "/frames/1"), accept=FRAMES)).status == 404


@pytest.mark.requirement("D6")
async def test_what_is_hidden_from_the_patient_is_for_professionals_alone(site: Site, tmp_path: Path) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", images=1))
    patient, professional = site.enter(exam), site.enter(exam, Visitor.PROFESSIONAL)
    assert (await site.get(patient, "/etat")).status == 200
    site.archive.held[exam.kos_uid] = exam.kos(visibility=Visibility(hidden_from_patient=True))
    assert (await site.get(patient, "/etat")).status == 404
    assert (await site.get(professional, "/etat")).status == 200


async def test_too_many_visits_at_once_wait(opening: Open, tmp_path: Path) -> None:
    async with opening(limits=Limits(visits=2)) as site:
        exam = site.publish(make_exam(tmp_path / "pacs", images=1))
        visits: list[Visit] = [site.enter(exam) for _ in range(3)]
        assert [(await site.get(v, "/etat")).status for v in visits] == [200, 200, 503]
        page = await site.get(visits[2], accept="text/html")
        assert page.headers["Retry-After"] == "30"
        assert "Trop de visites" in page.body.decode()


async def test_what_nobody_looks_at_is_let_go_of_and_begun_again(opening: Open, tmp_path: Path) -> None:
    async with opening(limits=Limits(idle=0)) as site:
        exam = site.publish(make_exam(tmp_path / "pacs", images=2))
        visit = site.enter(exam)
        path = site.image_path(exam, 1, "/frames/1")
        assert (await site.get(visit, path, accept=FRAMES)).status == 200
        assert site.room is not None
        site.room.desk.visits.sweep()
        assert len(site.room.desk.visits) == 0
        assert (await site.get(visit, path, accept=FRAMES)).status == 200


async def test_the_files_of_the_viewer_are_open_and_nothing_else_is(site: Site) -> None:
    for path, status in (
        ("/visionneuse/visit.js", 200),
        ("/visionneuse/ohif.js", 200),
        ("/app.bundle.css", 200),
        ("/visionneuse/visit.html", 404),
        ("/visionneuse/..%2fweb.py", 404),
        ("/app-config.js", 404),
        ("/etc/passwd", 404),
        ("/visite/x/viewer", 404),
    ):
        reply = await site.http.send("GET", f"{site.origin}{path}", tls=site.trust, timeout=10, max_bytes=2**26)
        assert reply.status == status, path
    assert INS.matricule not in str(site.journal.events)


@pytest.mark.requirement("D6")
@pytest.mark.parametrize(
    ("birth_date", "visibility", "seen"),
    [
        ("20150601", Visibility(hidden_from_representatives=True), False),
        ("20150601", Visibility(secret_connection=True), False),
        ("20150601", Visibility(hidden_from_patient=True), False),
        ("20150601", Visibility(), True),
        # Who is of age has no representatives whom it could be hidden from.
        ("19790328", Visibility(hidden_from_representatives=True), True),
        ("19790328", Visibility(secret_connection=True), True),
    ],
)
async def test_what_is_hidden_while_it_is_open_goes_at_the_next_request(
    site: Site, tmp_path: Path, birth_date: str, visibility: Visibility, seen: bool
) -> None:
    """The visibility changes in place: the pages, the images that came, and what was on its way."""
    exam = site.publish(replace(make_exam(tmp_path / "pacs", images=2), birth_date=birth_date))
    patient, professional = site.enter(exam), site.enter(exam, Visitor.PROFESSIONAL)
    for visit in (patient, professional):
        assert (await site.get(visit, "/etat")).status == 200
    site.archive.held[exam.kos_uid] = exam.kos(visibility=visibility)
    for path in ("/presence", "/", "/viewer", "/apercu", site.series_path(exam, "/arrivees"), "/telechargement/jpeg"):
        status = (await site.get(patient, path)).status
        assert (status != 404) is seen, path
    assert (await site.get(professional, "/etat")).status == 200
    assert site.room is not None
    assert len(site.room.desk.visits) == 1 + seen


async def unfinished(site: Site, visit: Visit, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """Ask, read the beginning of the answer, and leave it there: what comes next is on its way."""
    reader, writer = await asyncio.open_connection("localhost", site.port, ssl=site.trust)
    secret = site.doors[visit.key][1]
    asked = (
        f"GET /visite/{visit.key}{path} HTTP/1.1\r\nHost: localhost\r\n"
        f"Cookie: visite-{visit.key}={secret}\r\nAccept: */*\r\n\r\n"
    )
    writer.write(asked.encode())
    return reader, writer, await reader.readuntil(b"\r\n\r\n")


async def hide(site: Site, exam: Exam, visit: Visit) -> None:
    site.archive.held[exam.kos_uid] = exam.kos(visibility=Visibility(hidden_from_patient=True))
    assert (await site.get(visit, "/presence")).status == 404


async def depublish(site: Site, exam: Exam, visit: Visit) -> None:
    site.state(exam, "depublished")
    assert (await site.get(visit, "/presence")).status == 404


async def republish(site: Site, exam: Exam, visit: Visit) -> None:
    page = (await site.get(visit, accept="text/html")).body.decode()
    [version] = re.findall(r'data-version="([0-9a-f]+)"', page)
    assert (await site.get(visit, f"/presence?version={version}")).status == 204
    newer = replace(exam, kos_uid=new_uid())
    site.state(exam, "replaced")
    site.archive.held[newer.kos_uid] = newer.kos()
    assert (await site.get(visit, f"/presence?version={version}")).status == 409, "the page is made anew"


async def end(site: Site, exam: Exam, visit: Visit) -> None:
    """As the door tells of a logout, here or at Pro Santé Connect."""
    assert site.room is not None
    site.room.ended(visit.key)


@pytest.mark.requirement("DB.SO.38", "D6", "D2")
@pytest.mark.parametrize("happens", [hide, depublish, republish, end])
async def test_what_is_on_its_way_is_broken_off(
    site: Site, tmp_path: Path, happens: Callable[[Site, Exam, Visit], Awaitable[None]]
) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", images=8))
    visit = site.enter(exam)
    # The PACS gives three images and waits: the ZIP has begun, and cannot end.
    site.pacs.gate = asyncio.Semaphore(3)
    reader, writer, head = await unfinished(site, visit, "/telechargement/dicom")
    assert b" 200 " in head
    waiting = asyncio.create_task(site.get(visit, site.series_path(exam, "/metadata")))
    await eventually(lambda: site.room is not None and len(site.room.desk.visits) == 1)
    await happens(site, exam, visit)
    async with asyncio.timeout(20):
        rest = await reader.read()
    writer.close()
    assert not rest.endswith(b"0\r\n\r\n"), "the body does not end as a whole one"
    assert b"PK\x05\x06" not in rest
    assert (await waiting).status == 404
    # What the cache of the source was already being sent goes on, for whoever comes next.
    for _ in range(32):
        site.pacs.gate.release()
    await eventually(lambda: site.pacs.running == 0)


async def test_a_visit_that_has_ended_is_not_opened_again(site: Site, tmp_path: Path) -> None:
    """By a request that the guard let in just before."""
    exam = site.publish(make_exam(tmp_path / "pacs", images=1))
    visit = site.enter(exam)
    assert (await site.get(visit, "/etat")).status == 200
    assert site.room is not None
    site.room.ended(visit.key)
    assert (await site.get(visit, "/etat")).status == 404
    assert len(site.room.desk.visits) == 0
