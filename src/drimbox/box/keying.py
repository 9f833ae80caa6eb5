"""What an administrator does with the pairs of the box from the command line, whether the box runs or not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from drimbox.box import keys
from drimbox.box.operator import on_database, shell_user
from drimbox.box.settings import Settings
from drimbox.certificates import records
from drimbox.foundation.clock import Clock, SystemClock
from drimbox.keyring.acts import KeyActs, pair_of
from drimbox.keyring.inventory import Line, as_csv, as_json, as_text, line_of
from drimbox.record.audit import Journal
from drimbox.store.database import Pool
from drimbox.trust.keystore import read_file
from drimbox.trust.watch import TrustWatch

T = TypeVar("T")


def inventoried(settings: Settings, form: str) -> str:
    """Every pair, as ``text``, ``json`` or ``csv``."""

    async def work(acts: KeyActs) -> str:
        found = [*await acts.inventory(), *await market_lines(settings, acts.pool, acts.clock)]
        return {"json": as_json, "csv": as_csv}.get(form, as_text)(found).rstrip()

    return _on_keys(settings, work)


def installed_at(settings: Settings, place: str, file: Path, key: Path | None, password: Path | None) -> str:
    """Raises ``Unfit`` with every rule that the pair breaks."""
    secret = read_file(password).strip() if password is not None else None
    pair = pair_of(read_file(file), read_file(key) if key is not None else None, secret)
    return _on_keys(settings, lambda acts: acts.install(place, pair, shell_user()))


def removed(settings: Settings, place: str) -> str:
    return _on_keys(settings, lambda acts: acts.remove(place, shell_user()))


async def market_lines(settings: Settings, pool: Pool, clock: Clock) -> tuple[Line, ...]:
    """The market certificate in service, which is renewed by other means."""
    section = settings.market_certificate
    if section is None:
        return ()
    async with pool.connection() as connection:
        current = await records.current(connection, section.host)
    if current is None:
        problem = "Aucun certificat n'est installé"
        return (Line(settings.box.name, "serveur TLS vi (marché)", "market_certificate", "ACME", "absente", problem),)
    line = line_of(
        current.leaf,
        current.certificates[1:],
        site=settings.box.name,
        use="serveur TLS vi (marché)",
        place="market_certificate",
        kind="ACME" if current.directory else "installée",
        now=clock.now(),
    )
    return (line,)


def _on_keys(settings: Settings, work: Callable[[KeyActs], Awaitable[T]]) -> T:
    trust, clock = TrustWatch(settings.trust.roots, settings.trust.revocation_lists), SystemClock()

    async def run(pool: Pool) -> T:
        keyring = await keys.opened(settings, pool, trust, clock)
        return await work(keys.key_acts(settings, pool, keyring, clock, Journal(pool)))

    return on_database(settings, run)
