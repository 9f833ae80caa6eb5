"""The audit journal's keeper put together, and what the command line does with the journal (DB.CS.08 to DB.CS.10)."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

from drimbox.box.operator import on_database, shell_user
from drimbox.box.services import patient_key
from drimbox.box.settings import Settings
from drimbox.console.journal import PAGE_EVENTS, wanted
from drimbox.foundation.clock import PARIS, Clock
from drimbox.foundation.errors import Misconfigured, Refused
from drimbox.publication.incidents import Incidents
from drimbox.record import retention, verification, words
from drimbox.record.audit import Journal, Recorded
from drimbox.record.keeper import Conduct, JournalKeeper, keeping
from drimbox.record.pseudonym import PatientKey
from drimbox.record.seals import Sealer
from drimbox.store.database import Pool

T = TypeVar("T")
ALTERED = "journal-altered"


def kept(
    settings: Settings, pool: Pool, key: PatientKey, journal: Journal, clock: Clock
) -> AbstractAsyncContextManager[JournalKeeper]:
    """The journal sealed, verified and kept to its retention as long as the block lasts."""
    section = settings.journal
    incidents = Incidents(pool, clock)

    async def alarm(reason: str) -> None:
        async with pool.connection() as connection:
            await incidents.open_for_note(connection, code=ALTERED, reason=f"Le journal d'audit est altéré : {reason}")

    conduct = Conduct(section.keep_days, section.removal == "nightly", section.night_hour, section.seal_seconds)
    return keeping(pool, key, journal, clock, conduct=conduct, alarm=alarm)


def searched(settings: Settings, fields: Mapping[str, str]) -> str:
    """One page of the journal as lines of text, newest first. Raises ``Refused``, ``Misconfigured``."""
    search = wanted(fields)
    key = patient_key(settings)

    async def read(pool: Pool) -> tuple[Recorded, ...]:
        return await Journal(pool, key).search(search, shell_user())

    found = on_database(settings, read)
    lines = [_line(recorded) for recorded in found[:PAGE_EVENTS]]
    if len(found) > PAGE_EVENTS:
        lines.append(f"Suite : --before {found[PAGE_EVENTS - 1].id}")
    return "\n".join(lines) or "Aucune trace ne répond à ces critères."


def exported(settings: Settings, fields: Mapping[str, str], target: Path) -> str:
    """Everything that matches, as CSV in ``target``: whole or not there, readable by its owner alone."""
    search = wanted({**fields, "avant": ""})
    key = patient_key(settings)

    async def write(pool: Pool) -> int:
        found = await Journal(pool, key).export(search, shell_user())
        return await written(target, words.table(found))

    rows = on_database(settings, write)
    return f"{rows - 1} traces dans {target.name}"


def verified(settings: Settings, known: str) -> tuple[str, bool]:
    """Verify the journal; what was found, and whether it is whole. Raises ``Refused``, ``Misconfigured``."""
    key = patient_key(settings)

    async def work(pool: Pool) -> verification.Verification:
        await Sealer(pool, key).seal()
        return await verification.verified(pool, key, Journal(pool, key), shell_user(), known)

    found = on_database(settings, work)
    lines = ["Journal intègre." if found.whole else "Journal ALTÉRÉ :", *(f"  {one}" for one in found.problems)]
    return "\n".join([*lines, found.summary]), found.whole


def removed(settings: Settings, sure: Callable[[int, int], bool]) -> str:
    """Take out what is older than the retention, once ``sure`` (how many, how old in days) agrees."""
    keep_days = settings.journal.keep_days
    if not keep_days:
        raise Refused("Le journal est gardé sans fin ([journal] keep_days = 0)", code="journal-retention")
    key = patient_key(settings)
    count = on_database(settings, lambda pool: retention.removable(pool, keep_days))
    if not count:
        return f"Aucune trace n'a plus de {keep_days} jours."
    if not sure(count, keep_days):
        return "Rien n'est retiré."

    async def work(pool: Pool) -> retention.Removed:
        return await retention.remove(pool, key, Journal(pool, key), keep_days=keep_days, by=shell_user())

    done = on_database(settings, work)
    return f"{done.events} traces antérieures au {done.before.astimezone(PARIS):%d/%m/%Y} sont retirées."


async def written(target: Path, lines: AsyncIterator[bytes]) -> int:
    """Write lines into a file that appears when it is whole; how many. Raises ``Misconfigured`` (``file``)."""
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    count = 0
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                async for line in lines:
                    file.write(line)
                    count += 1
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise Misconfigured(f"Le fichier {target} ne peut pas être écrit : {error.strerror}", code="file") from error
    return count


def _line(recorded: Recorded) -> str:
    event = recorded.event
    outcome = f" [{words.OUTCOMES[event.outcome]}] {event.outcome_text}" if event.outcome else ""
    objects = ", ".join(map(words.named, event.objects))
    at = f"{recorded.at.astimezone(PARIS):%d/%m/%Y %H:%M:%S}"
    by = words.who(event.actor)
    person = f" ({event.actor.person})" if event.actor.person and event.actor.person != by else ""
    return f"{recorded.id:>9}  {at}  {words.kind(event.kind)}{outcome} · {by}{person} · {objects} · {event.correlation}"
