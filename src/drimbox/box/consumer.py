"""The consumer function, put together: the pages of the radiologist on one TLS listener."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from drimbox import __version__
from drimbox.box.fronting import served as fronted
from drimbox.box.importing import importing
from drimbox.box.local import local_archives
from drimbox.box.pacs_links import linked
from drimbox.box.services import Services, psc_tls
from drimbox.box.settings.consumer import ConsumerSection
from drimbox.box.structures import Keys, Served, pacs_of
from drimbox.consumer.app import consumer_app
from drimbox.consumer.identity_check import Rules
from drimbox.consumer.memory import PracticeMemory, StoredPractices
from drimbox.consumer.ports import ConsumerStructure, LocalPacs, RemotePsc, Structures
from drimbox.consumer.sessions import Limits
from drimbox.consumer.users import StoredUsers
from drimbox.consumer.web.desk import ListSettings
from drimbox.images.client import WadoClient
from drimbox.images.workers import worker_pool
from drimbox.national.psc.ciba import DeviceLogin
from drimbox.national.psc.exchange import ApiAccess, ApiServer
from drimbox.national.psc.proxy import ProxyAddresses, ProxyLogin
from drimbox.pacs.patient import PatientArchive
from drimbox.pacs.presence import Holdings
from drimbox.reports.report import Coded


@asynccontextmanager
async def running(
    services: Services, section: ConsumerSection, structures: Mapping[str, Served], viewer: Path
) -> AsyncIterator[None]:
    """Serve the consumer's pages until the block ends. Raises ``Misconfigured``, ``OSError``."""
    settings = services.settings
    async with AsyncExitStack() as stack:
        # One process is enough: it makes the one picture that is seen while the viewer starts.
        decoder = await stack.enter_async_context(worker_pool(size=1, timeout=10))
        await decoder.warm()
        archives = local_archives(stack, services, section)
        served = [
            _structure(services, s, s.keys, _local_pacs(stack, services, section, s), archives)
            for s in structures.values()
            if s.keys is not None
        ]

        async def listed(host: str) -> bool:
            return (await services.whitelist.current()).allows_host(host)

        wado = WadoClient(
            services.http,
            services.clock,
            silence=section.fetch_timeout,
            max_bytes=section.max_series_bytes,
            min_free=section.min_free_bytes,
            listed=listed,
        )
        rules = Rules(section.identity.traits, section.identity.birth_place)
        imports = await stack.enter_async_context(importing(services, section, served, wado, rules))
        app = await stack.enter_async_context(
            consumer_app(
                box_name=settings.box.name,
                version=__version__,
                public_url=section.public_url,
                call_paths=section.call_paths,
                issuers=section.ipp_issuers,
                memory=_memory(services, section),
                redirects=settings.psc.login != "ciba",
                remote=_remote(services),
                environment=settings.box.environment,
                consent_values=section.consent_values,
                syntaxes=section.syntaxes_view,
                psc=services.psc,
                dmp=services.dmp,
                structures=Structures(served),
                users=StoredUsers(services.pool, services.patient_key, days=section.exams.visit_days),
                listing=_listing(section),
                report_types=tuple(Coded(*each.split("^")) for each in section.exams.report_types),
                identity=rules,
                whitelist=services.whitelist,
                wado=imports.images,
                imports=imports.desk,
                media=imports.media,
                logins=imports.logins,
                prefetch=section.cache.prefetch,
                journal=services.journal,
                clock=services.clock,
                viewer_dir=section.viewer_dir or viewer,
                decoder=decoder,
                viewer_ahead=section.viewer_ahead,
                with_weasis=section.weasis,
                folder=settings.box.state_dir / "sessions",
                limits=Limits(
                    session=section.session_hours * 3600,
                    idle=section.idle_minutes * 60,
                    call=section.call_minutes * 60,
                ),
            )
        )
        # Pages for browsers: no client certificate is asked for, the login says who it is.
        await stack.enter_async_context(
            fronted(app, section, services.trust, services.clock, services.keyring, "consumer.tls")
        )
        yield


def _remote(services: Services) -> RemotePsc | None:
    """The login on the professional's own device, when it is offered."""
    psc = services.settings.psc
    if psc.login == "code":
        return None
    if psc.proxy is None:
        return DeviceLogin(services.psc, services.clock)
    return ProxyLogin(
        services.http,
        psc_tls(services.settings, services.trust, services.keyring, proxy=True),
        ProxyAddresses(psc.proxy, psc.proxy_userinfo.strip("/"), psc.proxy_token.strip("/")),
        psc.client_id,
        services.clock,
        timeout=psc.timeout,
        patience=psc.proxy_timeout,
    )


def _memory(services: Services, section: ConsumerSection) -> PracticeMemory | None:
    if not section.practice_days:
        return None
    return StoredPractices(services.pool, services.patient_key, days=section.practice_days)


def _listing(section: ConsumerSection) -> ListSettings:
    return ListSettings(
        news_days=section.exams.news_days,
        emergency_minutes=section.access.emergency_minutes,
        withdraw_on_refusal=section.access.withdraw_on_refusal,
        kos_ahead=section.exams.kos_ahead,
        probe_sources=section.exams.probe_sources,
        rows=section.exams.rows,
    )


def _local_pacs(
    stack: AsyncExitStack, services: Services, section: ConsumerSection, one: Served
) -> tuple[LocalPacs, ...]:
    """The PACSs in which the studies of a structure are looked for."""
    if not section.exams.find_in_pacs:
        return ()
    sections = {p.id: p for p in services.settings.pacs}
    found: list[LocalPacs] = []
    for name in pacs_of(one.settings, tuple(sections)):
        link = linked(sections[name], services)
        stack.callback(link.close)
        found.append(Holdings(link))
    return tuple(found)


def _structure(
    services: Services,
    one: Served,
    keys: Keys,
    pacs: tuple[LocalPacs, ...],
    archives: Mapping[str, PatientArchive],
) -> ConsumerStructure:
    return ConsumerStructure(
        id=one.id,
        name=one.settings.name,
        identifiers=one.identifiers,
        wado_tls=keys.tls,
        actor=one.actor,
        api=_api(services, keys),
        pacs=pacs,
        archives=tuple(archives[name] for name in pacs_of(one.settings, tuple(archives)) if name in archives),
    )


def _api(services: Services, keys: Keys) -> ApiAccess | None:
    """Tokens of the DMP's API for a structure, whose certificate they are bound to."""
    dmp, psc = services.settings.dmp, services.settings.psc
    if dmp.consultation == "AIR":
        return None
    server = ApiServer(dmp.api_token or "", psc.client_id, dmp.api_scope, dmp.api_subject_issuer)
    return ApiAccess(services.http, keys.tls, server, services.clock, timeout=psc.timeout)
