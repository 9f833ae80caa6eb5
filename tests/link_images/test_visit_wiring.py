"""The room as the box puts it together: settings, the archive of publications and the journal in a real database."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from psycopg.types.json import Jsonb
from starlette.applications import Starlette
from starlette.routing import Mount
from visit_world import FRAMES, INS, Exam, Open, Site, make_exam

from drimbox.box import link_images
from drimbox.box.link_images import SourceImages
from drimbox.box.services import Services
from drimbox.box.settings.link_images import LinkImagesSection
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.http_server import serving
from drimbox.images.workers import WorkerPool, worker_pool
from drimbox.link.visit import Visitor
from drimbox.record.audit import Actor, Journal, Kind, Outcome, Search
from drimbox.record.pseudonym import load_patient_key
from drimbox.store.database import Pool


async def publish(pool: Pool, exam: Exam) -> None:
    kos = exam.kos()
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO publication (structure, study_uid, kos_uid, state, kos, metadata, signature, submission_uid, "
            "document_ids, pacs, ins, ins_oid, vihf_identity, visibility, fingerprint, confirmed_at) "
            "VALUES ('site-a', %s, %s, 'current', %s, '', '', '', '{}', 'pacs', %s, %s, '{}', '{}', '', now())",
            (exam.study_uid, exam.kos_uid, kos.kos, exam.ins.matricule, exam.ins.oid),
        )


async def change(pool: Pool, exam: Exam, **values: Any) -> None:
    async with pool.connection() as connection:
        for column, value in values.items():
            statement: Any = f"UPDATE publication SET {column} = %s WHERE kos_uid = %s"
            await connection.execute(statement, (value, exam.kos_uid))


Wired = Callable[[Site, Pool, WorkerPool, LinkImagesSection], Any]


@pytest.fixture
def wired(viewer_dir: Path, tls: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path) -> Wired:
    @asynccontextmanager
    async def opened(site: Site, pool: Pool, workers: WorkerPool, section: LinkImagesSection) -> AsyncIterator[Journal]:
        journal = Journal(pool, load_patient_key(tmp_path / "audit.key"))
        settings = SimpleNamespace(structures=(SimpleNamespace(name="CENTRE DE RADIOLOGIE"),))
        services = SimpleNamespace(settings=settings, pool=pool, journal=journal, clock=SystemClock())
        images = SourceImages(
            lambda kos: site.cache.source(kos, site.pacs, site.pacs), lambda kos: site.pacs, workers, site.scratch
        )
        async with AsyncExitStack() as stack:
            room = await stack.enter_async_context(
                link_images.running(cast(Services, services), section, images, viewer_dir, leaving="/fin")
            )
            app = Starlette(routes=[Mount("/visite/{key}", routes=room.routes(site.opened)), *room.public_routes()])
            site.port = await stack.enter_async_context(serving(app, host="localhost", port=0, tls=tls[0]))
            site.room = room
            yield journal

    return opened


@pytest.mark.requirement("DB.SO.46", "D6", "D19")
async def test_a_visit_on_the_archive_and_the_journal(unmanned: Open, wired: Wired, pool: Pool, tmp_path: Path) -> None:
    # The database lives on the loop of this test alone, and so must what works with it.
    async with worker_pool(size=1) as workers, unmanned(workers=workers) as site:
        exam = make_exam(tmp_path / "pacs", images=2)
        site.pacs.exams[exam.study_uid] = exam
        await publish(pool, exam)
        async with wired(site, pool, workers, LinkImagesSection(download=("jpeg",))) as journal:
            patient, doctor = site.enter(exam), site.enter(exam, Visitor.PROFESSIONAL)
            page = await site.get(patient, accept="text/html")
            assert page.status == 200
            assert "CENTRE DE RADIOLOGIE" in page.body.decode()
            assert 'href="/visite/' + patient.key + '/fin"' in page.body.decode()
            assert (await site.get(doctor, accept="text/html")).status == 200
            frame = site.image_path(exam, 1, "/frames/1")
            assert (await site.get(patient, frame, accept=FRAMES)).status == 200
            assert (await site.get(patient, "/telechargement/jpeg")).status == 200
            assert (await site.get(patient, "/telechargement/dicom")).status == 404
            # A visibility changed at the DMP, then a depublication: known at the next request.
            await change(pool, exam, visibility=Jsonb({"hidden_from_patient": True}))
            assert (await site.get(patient, frame, accept=FRAMES)).status == 404
            assert (await site.get(doctor, frame, accept=FRAMES)).status == 200
            await change(pool, exam, state="depublished")
            assert (await site.get(doctor, frame, accept=FRAMES)).status == 404
            found = [r.event for r in await journal.search(Search(patient=INS), site_reader())]
            kinds = {event.kind for event in found}
            assert {Kind.IMAGES_VIEWED, Kind.IMAGES_EXPORTED} <= kinds
            assert all(event.outcome is Outcome.SUCCESS for event in found if event.kind is Kind.IMAGES_EXPORTED)
            assert {e.actor.person for e in found if e.kind is Kind.IMAGES_VIEWED} == {"", "899700218896"}
            assert "DOMINIQUE" not in str(found)
            assert INS.matricule not in str(found)


def site_reader() -> Actor:
    return Actor(person="auditeur")


async def test_nothing_may_be_taken_home_unless_the_site_says_so() -> None:
    assert LinkImagesSection().download == ()
