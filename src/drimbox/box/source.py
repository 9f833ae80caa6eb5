"""The source function, put together: reports in, manifests out, images served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import psycopg
from psycopg_pool import PoolTimeout

from drimbox import __version__
from drimbox.box.caching import caching
from drimbox.box.former_paths import with_former_paths
from drimbox.box.fronting import served
from drimbox.box.link_images import SourceImages
from drimbox.box.listeners import listener_tls
from drimbox.box.pacs_links import accessible, certificate_names, linked, receiver_settings
from drimbox.box.reconciliation import walk_drivers
from drimbox.box.services import Services
from drimbox.box.settings.pacs import PacsSection
from drimbox.box.settings.source import IocmSection, SourceSection
from drimbox.box.structures import Served, pacs_of
from drimbox.box.traces import event_of, recording
from drimbox.box.transit import fresh_scratch, spool_of
from drimbox.changes import listener as iocm_listener
from drimbox.changes.orders import take_order
from drimbox.foundation.errors import DrimboxError, Misconfigured
from drimbox.images.accept import Policy
from drimbox.images.ports import Access, ArchivedKos, SeriesSource, StudyFinder
from drimbox.images.wado import wado_app
from drimbox.images.workers import worker_pool
from drimbox.manifest.read import read_manifest
from drimbox.national.dmp.metadata import Device, KosCoding
from drimbox.national.psc.cache import IntrospectionCache
from drimbox.pacs import inbox
from drimbox.pacs.access import PacsAccess
from drimbox.pacs.dimse.receiver import receiving
from drimbox.pacs.note_source import PacsKeyNotes
from drimbox.pacs.site import PacsLink
from drimbox.portability.recollect import recollect
from drimbox.publication.archive import Archive
from drimbox.publication.changed import ChangedStudies
from drimbox.publication.incidents import Incidents
from drimbox.publication.jobs import Pauses, working
from drimbox.publication.ledger import Ledger
from drimbox.publication.ports import Site, SitePacs, Sites
from drimbox.publication.registry import DmpRegistry, DmpStructure
from drimbox.publication.services import Rules
from drimbox.publication.services import Services as Publication
from drimbox.reconciliation.driver import walking
from drimbox.reports.ack import OrderAnswer
from drimbox.reports.intake import Intake, StoredReports
from drimbox.reports.mllp import Limits, listening
from drimbox.reports.order_intake import OrderIntake
from drimbox.reports.orders import StoredOrders
from drimbox.reports.report import Report
from drimbox.speedtest.door import listening as speedtests


@dataclass(frozen=True, slots=True)
class Running:
    """What others of the box may use of the source: the way to each PACS, and what it serves images with."""

    accesses: Mapping[str, PacsAccess]
    images: SourceImages


@asynccontextmanager
async def running(
    services: Services, section: SourceSection, structures: Mapping[str, Served], dsn: str
) -> AsyncIterator[Running]:
    """Receive, publish and serve until the block ends. Raises ``Misconfigured``, ``OSError``."""
    async with AsyncExitStack() as stack:
        links = {p.id: linked(p, services) for p in services.settings.pacs}
        for link in links.values():
            stack.callback(link.close)
        accesses = _accesses(stack, services, section, links)
        measuring = speedtests(services.settings.box.state_dir, accesses, services.clock, recording(services.journal))
        await stack.enter_async_context(measuring)
        sites = _sites(services, structures, accesses)
        incidents = Incidents(services.pool, services.clock)
        archive = Archive(services.pool)
        await _publishing(stack, services, section, structures, sites, archive, incidents, dsn)
        images = await _images(stack, services, section, accesses, archive, incidents)
        await _reports(stack, services, section, sites, incidents)
        if section.iocm is not None:
            await _notes(stack, services, section.iocm, incidents)
        yield Running(accesses, images)


def _accesses(
    stack: AsyncExitStack, services: Services, section: SourceSection, links: Mapping[str, PacsLink]
) -> Mapping[str, PacsAccess]:
    """The receiver for what the PACSs move to us, and every way to each of them."""
    pacs = services.settings.pacs
    desk = stack.enter_context(inbox.opened(spool_of(services.settings)))
    tls = listener_tls(section.dicom, services.trust, services.keyring, "source.dicom.tls")
    stack.enter_context(receiving(receiver_settings(section.dicom, pacs), desk, tls=tls))
    return {one.id: accessible(one, links[one.id], desk, section.dicom.ae_title, services) for one in pacs}


def _sites(
    services: Services,
    structures: Mapping[str, Served],
    accesses: Mapping[str, PacsAccess],
) -> Sites:
    carried = services.settings.manifest.key_notes != "off"
    finders = {
        p.id: _site_pacs(p, accesses[p.id], PacsKeyNotes(accesses[p.id].source) if carried else None)
        for p in services.settings.pacs
    }

    def site(one: Served) -> Site:
        pacs = tuple(finders[p] for p in pacs_of(one.settings, tuple(finders)))
        return Site(one.id, one.in_submissions, pacs, one.settings.senders, one.in_vihf)

    return Sites([(site(one), one.identifiers) for one in structures.values()])


def _site_pacs(section: PacsSection, access: PacsAccess, notes: PacsKeyNotes | None) -> SitePacs:
    issuers = dict.fromkeys((*section.accession_issuers, section.accession_issuer))
    return SitePacs(section.id, access.finder, section.senders, tuple(filter(None, issuers)), notes)


async def _images(
    stack: AsyncExitStack,
    services: Services,
    section: SourceSection,
    accesses: Mapping[str, PacsAccess],
    archive: Archive,
    incidents: Incidents,
) -> SourceImages:
    """WADO-RS for the other DRIMboxes, from the cache or from the PACSs; gives what others may show images with."""
    links = {name: access.link for name, access in accesses.items()}
    transcoder = await stack.enter_async_context(worker_pool())
    await transcoder.warm()
    scratch = fresh_scratch(services.settings)

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

    def pacs_of_kos(kos: ArchivedKos) -> tuple[SeriesSource, StudyFinder]:
        access = accesses[held_by(kos)]
        return access.source, access.finder

    def finder_of(kos: ArchivedKos) -> StudyFinder:
        return accesses[held_by(kos)].finder

    cached = await stack.enter_async_context(
        caching(services, section.cache, pacs_of_kos, archive, read_manifest, incidents)
    )
    app = wado_app(
        base_path=section.wado.base_path,
        archive=archive,
        read_manifest=read_manifest,
        choose_source=cached,
        choose_finder=finder_of,
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
        policy=Policy(section.wado.syntax_choice),
    )
    answering = await with_former_paths(app, section.wado, services.pool)
    await stack.enter_async_context(
        served(
            answering,
            section.wado,
            services.trust,
            services.clock,
            services.keyring,
            "source.wado.tls",
            client_certificates=True,
        )
    )
    return SourceImages(cached, finder_of, transcoder, scratch)


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

    hl7 = section.hl7
    orders = OrderIntake(
        services.pool,
        services.clock,
        take=take_order,
        open_incident=incidents.open_for_message,
        journal=services.journal,
        answer=OrderAnswer(hl7.omi_answer),
        cancelled=hl7.omi_deletes,
    )
    intake = Intake(
        services.pool,
        services.clock,
        structure_of=structure_of,
        open_incident=incidents.open_for_message,
        journal=services.journal,
        orders=orders,
    )
    limits = Limits(hl7.max_message_bytes, hl7.max_connections, hl7.idle_timeout, hl7.message_timeout)
    tls = listener_tls(hl7, services.trust, services.keyring, "source.hl7.tls")
    await stack.enter_async_context(listening(intake.receive, host=hl7.host, port=hl7.port, limits=limits, tls=tls))


async def _notes(stack: AsyncExitStack, services: Services, section: IocmSection, incidents: Incidents) -> None:
    """The listener for what the PACSs rejected (DB.SO.25)."""
    pacs = services.settings.pacs
    allowed = frozenset(section.allowed_callers or (one.ae_title for one in pacs))
    settings = iocm_listener.ListenerSettings(
        ae_title=section.ae_title,
        allowed_callers=allowed,
        certificate_names=certificate_names(pacs, allowed) if section.client_roots else None,
        host=section.host,
        port=section.port,
        max_note_bytes=section.max_note_bytes,
        max_associations=section.max_associations,
        message_timeout=section.message_timeout,
    )
    tls = listener_tls(section, services.trust, services.keyring, "source.iocm.tls")
    notes = iocm_listener.listening(
        settings, services.pool, open_incident=incidents.open_for_note, journal=services.journal, tls=tls
    )
    await stack.enter_async_context(notes)


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
        orders=StoredOrders(services.pool, section.hl7.omi_deletes),
        changes=ChangedStudies(services.pool),
        recollect=recollect,
        sites=sites,
        registry=registry,
        archive=archive,
        ledger=Ledger(archive, incidents, services.journal, services.clock),
        clock=services.clock,
        rules=Rules(
            ins_range=settings.box.environment,
            retrieve_base=section.wado.base,
            match_patient_name=section.match_patient_name,
            uid_root=settings.manifest.uid_root,
            manufacturer=settings.manifest.manufacturer,
        ),
    )
    retries = section.retries
    pauses = Pauses(retries.first, retries.longest, retries.factor)
    await stack.enter_async_context(working(dsn, publication, pauses=pauses, dead_after=retries.dead_after))
    drivers = walk_drivers(section, publication, services.pool, incidents, services.journal, dsn)
    await stack.enter_async_context(walking(drivers))
