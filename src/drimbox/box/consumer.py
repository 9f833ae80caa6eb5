"""The consumer function, put together: the pages of the radiologist on one TLS listener."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from drimbox import __version__
from drimbox.box.services import Services, credential
from drimbox.box.settings.consumer import ConsumerSection
from drimbox.box.structures import Keys, Served
from drimbox.consumer.app import consumer_app
from drimbox.consumer.ports import ConsumerStructure, Structures
from drimbox.consumer.sessions import Limits
from drimbox.foundation.http_server import serving
from drimbox.images.client import WadoClient
from drimbox.trust.tls import server_context


@asynccontextmanager
async def running(
    services: Services, section: ConsumerSection, structures: Mapping[str, Served], viewer: Path
) -> AsyncIterator[None]:
    """Serve the consumer's pages until the block ends. Raises ``Misconfigured``, ``OSError``."""
    settings = services.settings
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(
            consumer_app(
                box_name=settings.box.name,
                version=__version__,
                public_url=section.public_url,
                call_paths=section.call_paths,
                environment=settings.box.environment,
                consent_values=section.consent_values,
                syntaxes=section.syntaxes_view,
                psc=services.psc,
                dmp=services.dmp,
                structures=Structures([_structure(s, s.keys) for s in structures.values() if s.keys is not None]),
                whitelist=services.whitelist,
                wado=WadoClient(
                    services.http, services.clock, silence=section.fetch_timeout, max_bytes=section.max_series_bytes
                ),
                journal=services.journal,
                clock=services.clock,
                viewer_dir=section.viewer_dir or viewer,
                folder=settings.box.state_dir / "sessions",
                limits=Limits(
                    session=section.session_hours * 3600,
                    idle=section.idle_minutes * 60,
                    call=section.call_minutes * 60,
                ),
            )
        )
        # Pages for browsers: no client certificate is asked for, the login says who it is.
        tls = server_context(credential(section.tls))
        await stack.enter_async_context(serving(app, host=section.host, port=section.port, tls=tls))
        yield


def _structure(one: Served, keys: Keys) -> ConsumerStructure:
    return ConsumerStructure(
        id=one.id, name=one.settings.name, identifiers=one.identifiers, wado_tls=keys.tls, actor=one.actor
    )
