"""The source function, put together: reports in, manifests out, images served."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import psycopg
from psycopg_pool import PoolTimeout

from drimbox import __version__
from drimbox.box.services import Services, credential
from drimbox.box.settings import PacsSection, SourceSection
from drimbox.box.structures import Served, pacs_of
from drimbox.box.traces import event_of
from drimbox.foundation.errors import DrimboxError, Misconfigured
from drimbox.foundation.http_server import serving
from drimbox.images.ports import Access, ArchivedKos
from drimbox.images.wado import wado_app
from drimbox.images.workers import worker_pool
from drimbox.manifest.read import read_manifest
from drimbox.national.dmp.metadata import Device, KosCoding
from drimbox.national.psc.cache import IntrospectionCache
from drimbox.pacs import inbox
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.receiver import ReceiverSettings, receiving
from drimbox.pacs.query import PacsStudyFinder
from drimbox.pacs.retrieve import PacsSeriesSource
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.publication.archive import Archive
from drimbox.publication.incidents import Incidents
from drimbox.publication.jobs import working
from drimbox.publication.ledger import Ledger
from drimbox.publication.ports import Site, SitePacs, Sites
from drimbox.publication.registry import DmpRegistry, DmpStructure
from drimbox.publication.services import Rules
from drimbox.publication.services import Services as Publication
from drimbox.reports.intake import Intake, StoredReports
from drimbox.reports.mllp import Limits, listening
from drimbox.reports.report import Report
from drimbox.trust.tls import load_trust, server_context


@asynccontextmanager
async def running(
    services: Services, section: SourceSection, structures: Mapping[str, Served], dsn: str
) -> AsyncIterator[None]:
    """Receive, publish and serve until the block ends. Raises ``Misconfigured``, ``OSError``."""
    async with AsyncExitStack() as stack:
        links = {p.id: PacsLink(_pacs(p)) for p in services.settings.pacs}
        for link in links.values():
            stack.callback(link.close)
        sites = _sites(structures, links)
        incidents = Incidents(services.pool, services.clock)
        archive = Archive(services.pool)
        await _publishing(stack, services, section, structures, sites, archive, incidents, dsn)
        await _images(stack, services, section, links, archive)
        await _reports(stack, services, section, sites, incidents)
        yield


def _pacs(section: PacsSection) -> Pacs:
    return Pacs(
        id=section.id,
        host=section.host,
        port=section.port,
        ae_title=section.ae_title,
        calling_ae_title=section.calling_ae_title,
        connect_timeout=section.connect_timeout,
        answer_timeout=section.answer_timeout,
        max_associations=section.max_associations,
        patient_issuer=section.patient_issuer,
        accession_issuer=section.accession_issuer,
    )


def _sites(structures: Mapping[str, Served], links: Mapping[str, PacsLink]) -> Sites:
    finders = {name: SitePacs(name, PacsStudyFinder(link)) for name, link in links.items()}

    def site(one: Served) -> Site:
        pacs = tuple(finders[p] for p in pacs_of(one.settings, tuple(links)))
        return Site(one.id, one.in_submissions, pacs, one.settings.senders)

    return Sites([(site(one), one.identifiers) for one in structures.values()])


async def _images(
    stack: AsyncExitStack,
    services: Services,
    section: SourceSection,
    links: Mapping[str, PacsLink],
    archive: Archive,
) -> None:
    """The receiver for what the PACS moves to us, and WADO-RS for the other DRIMboxes."""
    state = services.settings.box.state_dir
    desk = stack.enter_context(inbox.opened(state / "spool"))
    allowed = section.dicom.allowed_callers or tuple(p.ae_title for p in services.settings.pacs)
    settings = ReceiverSettings(
        destinations={section.dicom.ae_title: uids.AS_STORED},
        allowed_callers=frozenset(allowed),
        host=section.dicom.host,
        port=section.dicom.port,
    )
    stack.enter_context(receiving(settings, desk))
    sources = {name: PacsSeriesSource(link, desk, section.dicom.ae_title) for name, link in links.items()}
    finders = {name: PacsStudyFinder(link) for name, link in links.items()}
    transcoder = await stack.enter_async_context(worker_pool())
    await transcoder.warm()
    scratch = state / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)

    def held_by(kos: ArchivedKos) -> str:
        if kos.pacs not in links:
            raise Misconfigured(f"Le PACS {kos.pacs} du KOS n'est plus dans la configuration", code="pacs-unknown")
        return kos.pacs

    async def professions_of(token: str) -> frozenset[str]:
        """Where the introspection does not tell the profession, PSC's own page on the user does."""
        info = await services.psc.userinfo(token)
        return frozenset(practice.profession.code for practice in info.practices)

    async def journal(access: Access) -> None:
        await services.journal.write(None, event_of(access))

    app = wado_app(
        base_path=section.wado.base_path,
        archive=archive,
        read_manifest=read_manifest,
        choose_source=lambda kos: sources[held_by(kos)],
        choose_finder=lambda kos: finders[held_by(kos)],
        introspect=IntrospectionCache(services.psc, services.clock, section.wado.cache_introspection).introspect,
        whitelist=services.whitelist.current,
        professions=section.wado.professions,
        journal=journal,
        health=lambda: _health(services, links),
        transcoder=transcoder,
        scratch=scratch,
        clock=services.clock,
        professions_of=professions_of,
        max_parallel=section.wado.max_parallel,
    )
    tls = services.trust.enrol(server_context(credential(section.wado.tls), services.trust.trust))
    await stack.enter_async_context(serving(app, host=section.wado.host, port=section.wado.port, tls=tls))


async def _health(services: Services, links: Mapping[str, PacsLink]) -> Mapping[str, bool]:
    """What works now: the database, and each PACS (C-ECHO)."""

    async def answers(link: PacsLink) -> bool:
        try:
            await link.echo()
        except DrimboxError:
            return False
        return True

    async def database() -> bool:
        try:
            async with services.pool.connection(timeout=2) as connection:
                await connection.execute("SELECT 1")
        except (psycopg.Error, PoolTimeout):
            return False
        return True

    found = await asyncio.gather(database(), *(answers(link) for link in links.values()))
    return dict(zip(("database", *(f"pacs {name}" for name in links)), found, strict=True))


async def _reports(
    stack: AsyncExitStack, services: Services, section: SourceSection, sites: Sites, incidents: Incidents
) -> None:
    """The HL7 listener, opened last: what comes in can be worked on."""

    def structure_of(report: Report) -> str:
        site = sites.of(report)
        return site.id if site is not None else ""

    intake = Intake(
        services.pool,
        services.clock,
        structure_of=structure_of,
        open_incident=incidents.open_for_message,
        journal=services.journal,
    )
    hl7 = section.hl7
    limits = Limits(hl7.max_message_bytes, hl7.max_connections, hl7.idle_timeout, hl7.message_timeout)
    tls = None
    if hl7.tls is not None:
        tls = server_context(credential(hl7.tls), load_trust(hl7.client_roots) if hl7.client_roots else None)
    await stack.enter_async_context(listening(intake.receive, host=hl7.host, port=hl7.port, limits=limits, tls=tls))


async def _publishing(
    stack: AsyncExitStack,
    services: Services,
    section: SourceSection,
    structures: Mapping[str, Served],
    sites: Sites,
    archive: Archive,
    incidents: Incidents,
    dsn: str,
) -> None:
    """The worker that carries reports to the DMP."""
    settings = services.settings
    registry = DmpRegistry(
        services.dmp,
        {one.id: DmpStructure(one.settings.sector, one.actor) for one in structures.values()},
        device=Device(settings.box.device_id, __version__),
        author=settings.manifest.author,
        coding=KosCoding(settings.manifest.modality_scheme, settings.manifest.region_scheme),
    )
    publication = Publication(
        reports=StoredReports(services.pool),
        sites=sites,
        registry=registry,
        archive=archive,
        ledger=Ledger(archive, incidents, services.journal, services.clock),
        clock=services.clock,
        rules=Rules(
            ins_range=settings.box.environment,
            retrieve_base=f"{section.wado.public_url}/{section.wado.base_path.strip('/')}".rstrip("/"),
            match_patient_name=section.match_patient_name,
            uid_root=settings.manifest.uid_root,
            manufacturer=settings.manifest.manufacturer,
        ),
    )
    await stack.enter_async_context(working(dsn, publication))
