"""A box, running: its database, its rooms, its listeners; started in order, stopped in reverse."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from drimbox import __version__
from drimbox.box import certificates, console, consumer, journal, keys, link, link_images, services, source
from drimbox.box.notifying import notifying
from drimbox.box.settings import Settings
from drimbox.box.state import alone, database_of
from drimbox.box.structures import served
from drimbox.console.journal import JournalRoom
from drimbox.foundation import event_loop
from drimbox.foundation.errors import DrimboxError
from drimbox.foundation.memory import few_arenas, without_core_dumps
from drimbox.foundation.signals import stop_on
from drimbox.publication.incidents import Incidents
from drimbox.record import logs
from drimbox.record.audit import Actor, Event, Kind
from drimbox.store import database

_log = logging.getLogger(__name__)


def main_box(settings: Settings) -> int:
    """Run until SIGINT or SIGTERM; ``READY`` goes to standard output once every listener accepts. The exit status."""
    few_arenas()
    without_core_dumps()
    logs.configure(settings.box.log_level)
    # Told to stop while it starts: what is open so far is closed in order, the database above all.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        settings.box.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with alone(settings.box.state_dir), database_of(settings) as dsn:
            database.migrate(dsn)
            return event_loop.run(_run(settings, dsn))
    except DrimboxError as error:
        _log.critical("%s (%s)", error.reason, error.code)
        return 1
    except OSError as error:
        _log.critical("not started: %s", error)
        return 1


async def _run(settings: Settings, dsn: str) -> int:
    stop = asyncio.Event()
    stop_on(stop)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(database.opened(dsn, size=settings.database.pool_size))
        common = await stack.enter_async_context(services.opened(settings, pool))
        structures = served(common)
        held = keys.key_acts(settings, pool, common.keyring, common.clock, common.journal)
        await stack.enter_async_context(keys.watching(settings, held, Incidents(pool, common.clock)))
        keeper = await stack.enter_async_context(
            journal.kept(settings, pool, common.patient_key, common.journal, common.clock)
        )
        await stack.enter_async_context(notifying(settings, pool, common.http, common.clock, common.trust_keeper.judge))
        viewer = Path(os.environ.get("DRIMBOX_HOME", Path.cwd())) / "var" / "viewer"
        parts_of_source: source.Running | None = None
        if settings.source is not None:
            parts_of_source = await stack.enter_async_context(source.running(common, settings.source, structures, dsn))
        if settings.consumer is not None:
            await stack.enter_async_context(consumer.running(common, settings.consumer, structures, viewer))
        market = None
        if settings.market_certificate is not None:
            parts = certificates.assembled(
                settings,
                settings.market_certificate,
                dsn=dsn,
                pool=pool,
                http=common.http,
                clock=common.clock,
                journal=common.journal,
                judge=common.trust_keeper.judge,
            )
            market = await stack.enter_async_context(certificates.running(parts))
        if settings.link is not None and parts_of_source is not None:
            inside = await stack.enter_async_context(
                link_images.running(common, settings.link_images, parts_of_source.images, viewer, leaving="/fin")
            )
            finders = {name: access.finder for name, access in parts_of_source.accesses.items()}
            await stack.enter_async_context(
                link.running(
                    common,
                    settings.link,
                    finders,
                    market,
                    images=inside.routes,
                    beside=inside.public_routes(),
                    ended=inside.ended,
                )
            )
        if settings.console is not None:
            acts = market.acts if market is not None else None
            room = JournalRoom(common.journal, keeper, settings.box.environment)
            await stack.enter_async_context(console.running(common, settings.console, structures, acts, room, held))
        itself = Actor(system=f"{settings.box.name} {__version__}")
        await common.journal.write(None, Event(Kind.STARTED, itself))
        print("READY", flush=True)
        _log.info("ready")
        await stop.wait()
        _log.info("stopping")
        await common.journal.write(None, Event(Kind.STOPPED, itself))
    return 0
