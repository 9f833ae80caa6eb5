"""A box, running: its database, its rooms, its listeners; started in order, stopped in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from drimbox import __version__
from drimbox.box import console, consumer, services, source
from drimbox.box.settings import Settings
from drimbox.box.structures import served
from drimbox.foundation import event_loop
from drimbox.foundation.errors import DrimboxError, Misconfigured
from drimbox.foundation.memory import few_arenas
from drimbox.foundation.signals import stop_on
from drimbox.record import logs
from drimbox.record.audit import Actor, Event, Kind
from drimbox.store import database, embedded

_log = logging.getLogger(__name__)


def main_box(settings: Settings) -> int:
    """Run until SIGINT or SIGTERM; ``READY`` goes to standard output once every listener accepts. The exit status."""
    few_arenas()
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


@contextlib.contextmanager
def alone(state: Path) -> Iterator[None]:
    """Hold the state folder: a box started twice by mistake would throw away the images that the first is serving.

    Raises ``Misconfigured`` (``state-in-use``). A killed box lets go of it by dying.
    """
    with (state / "box.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            reason = f"Une DRIMbox tourne déjà avec le dossier {state} : une seconde ne peut pas s'en servir"
            raise Misconfigured(reason, code="state-in-use") from None
        yield


@contextlib.contextmanager
def database_of(settings: Settings) -> Iterator[str]:
    """The DSN of the site's own PostgreSQL when it gave one, else of the embedded one, which may be running already."""
    file = settings.database.dsn_file
    if file is not None:
        yield file.read_text("utf-8").strip()
        return
    with embedded.running(settings.box.state_dir / "postgres") as dsn:
        yield dsn


async def _run(settings: Settings, dsn: str) -> int:
    stop = asyncio.Event()
    stop_on(stop)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(database.opened(dsn, size=settings.database.pool_size))
        common = await stack.enter_async_context(services.opened(settings, pool))
        structures = served(common)
        if settings.source is not None:
            await stack.enter_async_context(source.running(common, settings.source, structures, dsn))
        if settings.consumer is not None:
            viewer = Path(os.environ.get("DRIMBOX_HOME", Path.cwd())) / "var" / "viewer"
            await stack.enter_async_context(consumer.running(common, settings.consumer, structures, viewer))
        if settings.console is not None:
            await stack.enter_async_context(console.running(common, settings.console, structures))
        itself = Actor(system=f"{settings.box.name} {__version__}")
        await common.journal.write(None, Event(Kind.STARTED, itself))
        print("READY", flush=True)
        _log.info("ready")
        await stop.wait()
        _log.info("stopping")
        await common.journal.write(None, Event(Kind.STOPPED, itself))
    return 0
