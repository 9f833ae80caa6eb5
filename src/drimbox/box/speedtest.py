"""``drimbox speedtest``: by the box that runs, or with the box's own settings and ports where none does (DB.SO.102)."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

from drimbox.box import keys
from drimbox.box.listeners import listener_tls
from drimbox.box.operator import shell_user
from drimbox.box.pacs_links import accessible, linked, receiver_settings
from drimbox.box.settings import Settings
from drimbox.box.settings.source import SourceSection
from drimbox.box.state import alone, database_of
from drimbox.box.traces import recording
from drimbox.box.transit import spool_of
from drimbox.box.trusting import trust_at_rest
from drimbox.foundation.clock import Clock, SystemClock
from drimbox.foundation.errors import Misconfigured
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.uids import is_uid
from drimbox.keyring.keeper import Keyring
from drimbox.pacs import inbox
from drimbox.pacs.dimse.receiver import receiving
from drimbox.record.audit import Journal
from drimbox.speedtest import door, drawing, measuring, reporting
from drimbox.speedtest.measured import Measured
from drimbox.speedtest.measuring import Progress, Tell
from drimbox.store import database
from drimbox.trust.watch import TrustWatch


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured and what is written; empty: one is chosen, or nothing is."""

    study_uid: str = ""
    pacs: str = ""
    picture: Path | None = None
    report: Path | None = None


@dataclass(frozen=True, slots=True)
class _Means:
    """What the ways to a PACS need of a box (``pacs_links.Means``)."""

    settings: Settings
    clock: Clock
    http: HttpClient
    trust: TrustWatch
    keyring: Keyring


def measured(settings: Settings, options: Options) -> str:
    """Measure, write what is asked for, and give the report. Raises ``DrimboxError``."""
    if options.study_uid and not is_uid(options.study_uid):
        raise Misconfigured("--study n'est pas un identifiant d'examen (Study Instance UID).", code="study-uid")
    if settings.source is None:
        raise Misconfigured("Cette configuration n'a pas de fonction source ([source]).", code="no-source")
    tell = _Screen().show
    found = asyncio.run(_measured(settings, settings.source, options, tell))
    tell(Progress(""))
    try:
        if options.picture is not None:
            drawing.save(options.picture, found)
        if options.report is not None:
            reporting.write(options.report, found)
    except OSError as error:
        raise Misconfigured(f"Le fichier {error.filename} ne peut pas être écrit.", code="not-written") from error
    return reporting.text(found)


async def _measured(settings: Settings, section: SourceSection, options: Options, tell: Tell) -> Measured:
    state = settings.box.state_dir
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(alone(state))
        except Misconfigured:
            # A box runs with this folder: it has the ports that the PACS sends to.
            return await door.asked(state, options.pacs, options.study_uid, tell, by=shell_user().person)
        return await _by_itself(settings, section, options, tell)


async def _by_itself(settings: Settings, section: SourceSection, options: Options, tell: Tell) -> Measured:
    """The box's own listener, ports and associations, for the time of one measurement."""
    trust, clock = trust_at_rest(settings), SystemClock()
    async with AsyncExitStack() as stack:
        # First of all: what cannot be written down is not done.
        dsn = stack.enter_context(database_of(settings))
        await asyncio.to_thread(database.migrate, dsn)
        pool = await stack.enter_async_context(database.opened(dsn, size=1))
        http = await stack.enter_async_context(HttpClient())
        keyring = await keys.opened(settings, pool, trust, clock, neighbours=True)
        means = _Means(settings, clock, http, trust, keyring)
        desk = stack.enter_context(inbox.opened(spool_of(settings)))
        tls = listener_tls(section.dicom, trust, keyring, "source.dicom.tls")
        stack.enter_context(receiving(receiver_settings(section.dicom, settings.pacs), desk, tls=tls))
        accesses = {}
        for one in settings.pacs:
            link = linked(one, means)
            stack.callback(link.close)
            accesses[one.id] = accessible(one, link, desk, section.dicom.ae_title, means)
        record = recording(Journal(pool))(shell_user().person)
        return await measuring.measure(door.chosen(accesses, options.pacs), options.study_uid, clock, tell, record)


class _Screen:
    """The progress on a screen, in one line; where it is none, a line for each step."""

    def __init__(self) -> None:
        self._step = ""
        self._live = sys.stderr.isatty()

    def show(self, now: Progress) -> None:
        if self._live:
            sys.stderr.write(f"\r\x1b[K{reporting.progress(now) if now.step else ''}")
            sys.stderr.flush()
        elif now.step and now.step != self._step:
            sys.stderr.write(f"{reporting.progress(now)}\n")
        self._step = now.step
