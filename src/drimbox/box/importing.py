"""Imports, the cache of the consumer, portable media and workstations, put together."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from drimbox.box.keys import listener_context
from drimbox.box.pacs_links import findable, linked, web_service
from drimbox.box.services import Services
from drimbox.box.settings.consumer import ConsumerSection
from drimbox.box.settings.importing import ConsumerCacheSection, ImportTargetSection, WorkstationsSection
from drimbox.box.settings.pacs import PacsSection
from drimbox.cache.limits import Limits
from drimbox.cache.sealing import own_key, secret_key
from drimbox.consumer.identity_check import Rules, compared_image
from drimbox.consumer.logins import SessionLogins
from drimbox.consumer.ports import ConsumerStructure, SeriesFetcher, Structures
from drimbox.identity.traits import Sex, Traits
from drimbox.images.client import WadoClient
from drimbox.images.workers import WorkerPool
from drimbox.importing.desk import Choice, Identifiers, ImportDesk
from drimbox.importing.fetching import LosslessFetcher
from drimbox.importing.ledger import Ledger
from drimbox.importing.means import Differing, Means
from drimbox.importing.media import MediaDesk
from drimbox.importing.naming import ImagePatient
from drimbox.importing.orders import ImportedPatient
from drimbox.importing.runner import Runner, carried_on, node_of
from drimbox.importing.sharing import Retention, sharing
from drimbox.importing.shelf import Shelf, sweeping
from drimbox.importing.targets import PacsTarget, Target, WebTarget
from drimbox.importing.workstations import ListenerSettings, Workstation, listening
from drimbox.pacs.web_store import WebStore


@dataclass(frozen=True, slots=True)
class Importing:
    """What the pages are given. ``images`` fetches for viewing, from the cache where that holds what is asked for."""

    images: SeriesFetcher
    desk: ImportDesk
    media: MediaDesk | None
    logins: SessionLogins


@asynccontextmanager
async def importing(
    services: Services,
    section: ConsumerSection,
    structures: Sequence[ConsumerStructure],
    wado: WadoClient,
    rules: Rules,
) -> AsyncIterator[Importing]:
    """Imports go on until the block ends. Raises ``Misconfigured``, ``OSError``."""
    state = services.settings.box.state_dir
    async with AsyncExitStack() as stack:
        images: SeriesFetcher = wado
        if section.cache.max_gb:
            images = await stack.enter_async_context(_shared(services, section.cache, structures, wado))
        settings = section.imports
        fetcher = LosslessFetcher(images, services.whitelist, settings.syntaxes, settings.syntaxes_as_stored)
        workers = WorkerPool(size=1)
        stack.push_async_callback(workers.close)
        logins = SessionLogins(Structures(structures))
        known = {p.id: p for p in services.settings.pacs}
        targets: dict[str, Target] = {t.pacs: _target(stack, t, known[t.pacs], services) for t in settings.targets}
        if section.workstations is not None:
            shelf = await _workstations(stack, services, section.workstations)
            targets[shelf.id] = shelf
        folder = state / "imports"
        ledger = Ledger(services.pool, node_of(folder))
        means = Means(
            ledger=ledger,
            targets=targets,
            fetcher=fetcher,
            logins=logins,
            journal=services.journal,
            transcoder=workers,
            clock=services.clock,
            folder=folder,
            box_name=services.settings.box.name,
            whole_series=settings.whole_series,
            differing=_differing(rules),
        )
        runner = Runner(
            means,
            parallel=settings.parallel,
            give_up=dt.timedelta(hours=settings.retry_hours),
            keep=dt.timedelta(days=settings.history_days),
        )
        desk = ImportDesk(
            ledger,
            runner,
            [Choice(t.id, t.title) for t in targets.values()],
            {p.id: p.patient_issuer for p in known.values()},
            Identifiers(settings.accession, settings.uids),
        )
        media = None
        if section.media.enabled:
            media = MediaDesk(fetcher, workers, state / "media", services.clock, int(section.media.max_gb * 2**30))
        await stack.enter_async_context(carried_on(runner))
        yield Importing(images, desk, media, logins)


@asynccontextmanager
async def _shared(
    services: Services, section: ConsumerCacheSection, structures: Sequence[ConsumerStructure], wado: WadoClient
) -> AsyncIterator[SeriesFetcher]:
    state = services.settings.box.state_dir
    master = secret_key(section.key_file) if section.key_file else own_key(state / "keys" / "consumer-cache.key")
    hour, minute = section.day_ends.split(":")
    limits = Limits(
        max_bytes=int(section.max_gb * 2**30),
        max_age=(section.hours or 24) * 3600,
        min_free=int(section.min_free_gb * 2**30),
        # A retrieve is in the name of its readers: it ends when the last of them leaves.
        whole=False,
        # There is no PACS to confirm anything: what was fetched for a KOS is served for that KOS.
        by_notes=True,
    )
    async with sharing(
        wado,
        section.cache_dir or state / "consumer-cache",
        master,
        limits,
        Retention(section.hours, dt.time(int(hour), int(minute))),
        services.clock,
        _site_of(structures),
        # Images of other sites, under no more than the file rights of this one: never in clear.
        sealed=True,
    ) as fetcher:
        yield fetcher


async def _workstations(stack: AsyncExitStack, services: Services, section: WorkstationsSection) -> Shelf:
    """What users save, and the listener by which workstations have it."""
    shelf = Shelf(
        services.pool,
        services.settings.box.state_dir / "saved",
        services.clock,
        keep=dt.timedelta(hours=section.keep_hours),
        max_bytes=int(section.max_gb * 2**30),
    )
    settings = ListenerSettings(
        ae_title=section.ae_title,
        clients=[Workstation(c.ae_title, c.host, c.port) for c in section.clients],
        host=section.host,
        port=section.port,
        idle_timeout=section.idle_timeout,
    )
    place = "consumer.workstations.tls"
    tls = listener_context(services.keyring, place) if section.tls is not None else None
    await stack.enter_async_context(sweeping(shelf))
    await stack.enter_async_context(listening(settings, shelf, services.journal, tls=tls))
    return shelf


def _site_of(structures: Sequence[ConsumerStructure]) -> Callable[[ssl.SSLContext], str]:
    by_context = {id(one.wado_tls): one.id for one in structures}
    return lambda tls: by_context.get(id(tls), "")


def _target(stack: AsyncExitStack, target: ImportTargetSection, section: PacsSection, services: Services) -> Target:
    link = linked(section, services)
    stack.callback(link.close)
    finder = findable(section, link, services)
    title = target.title or section.id
    if target.by == "stow-rs":
        assert section.dicomweb is not None
        service = web_service(section.dicomweb, section.id, services)
        return WebTarget(section.id, title, WebStore(link, service), finder)
    return PacsTarget(section.id, title, link, finder, target.associations)


def _differing(rules: Rules) -> Differing:
    def compare(patient: ImportedPatient, image: ImagePatient) -> Sequence[str]:
        traits = patient.traits
        expected = Traits(
            birth_family=traits["family"],
            first_given=traits["given"],
            birth_date=dt.date.fromisoformat(traits["birth_date"]),
            sex=Sex(traits["sex"]),
        )
        used = [name for name in (traits.get("used_family", ""), traits.get("used_given", "")) if name]
        found = compared_image(expected, name=image.name, birth_date=image.birth_date, sex=image.sex, used_names=used)
        return [d.trait for d in found if rules.of(d) != "show"]

    return compare
