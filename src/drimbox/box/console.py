"""The operator's console, put together: its pages on one TLS listener, and what the command line shares with them."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from drimbox import __version__
from drimbox.box.fronting import served
from drimbox.box.keying import market_lines
from drimbox.box.link import public_url
from drimbox.box.pacs_links import linked_for_echo
from drimbox.box.services import Services
from drimbox.box.settings import Settings
from drimbox.box.settings.console import ConsoleSection
from drimbox.box.structures import Served
from drimbox.certificates.acts import CertificateActs
from drimbox.console.account import LockRules
from drimbox.console.app import console_app
from drimbox.console.circle import CircleRoom
from drimbox.console.journal import JournalRoom
from drimbox.console.keys import KeyRoom
from drimbox.console.passwords import PasswordRules
from drimbox.console.sessions import Limits
from drimbox.console.walks import WalkRoom
from drimbox.console.web.desk import SettingLine
from drimbox.foundation.errors import DrimboxError
from drimbox.keyring.acts import KeyActs
from drimbox.pacs.site import PacsLink
from drimbox.reconciliation.acts import WalkActs
from drimbox.reconciliation.hours import parse_ranges
from drimbox.reconciliation.walks import Walks

_HANDSHAKE_SECONDS = 5.0
_REFUSAL_SECONDS = 0.5


@asynccontextmanager
async def running(
    services: Services,
    section: ConsoleSection,
    structures: Mapping[str, Served],
    certificates: CertificateActs | None = None,
    journal_room: JournalRoom | None = None,
    held: KeyActs | None = None,
) -> AsyncIterator[None]:
    """Serve the console until the block ends. Raises ``Misconfigured``, ``OSError``."""
    settings = services.settings
    async with AsyncExitStack() as stack:
        links = {p.id: linked_for_echo(p, services) for p in settings.pacs if settings.source is not None}
        for link in links.values():
            stack.callback(link.close)

        async def health() -> Mapping[str, bool]:
            return await neighbours(settings, links, structures)

        app = await stack.enter_async_context(
            console_app(
                box_name=settings.box.name,
                version=__version__,
                public_url=section.public_url,
                pool=services.pool,
                clock=services.clock,
                journal=services.journal,
                structures={one.id: one.settings.name for one in structures.values()},
                psc=services.psc if section.pro_sante_connect else None,
                health=health,
                settings=setting_lines(settings),
                limits=Limits(idle=section.idle_minutes * 60, session=section.session_hours * 3600),
                passwords=password_rules(section),
                locking=LockRules(section.lock_failures, section.lock_minutes),
                walk_room=_walk_room(services),
                certificates=certificates,
                journal_room=journal_room,
                link_origin=public_url(settings) if settings.link is not None else "",
                keys=KeyRoom(held, lambda: market_lines(settings, services.pool, services.clock)) if held else None,
                circle_room=CircleRoom(
                    services.whitelist_desk.held,
                    services.whitelist_desk.renew,
                    lambda: services.trust_keeper.states,
                    settings.whitelist.url,
                    dt.timedelta(days=settings.whitelist.max_age_days),
                ),
            )
        )
        # Pages for browsers: no client certificate is asked for, the login says who it is.
        await stack.enter_async_context(
            served(app, section, services.trust, services.clock, services.keyring, "console.tls")
        )
        yield


def _walk_room(services: Services) -> WalkRoom | None:
    """What a source's pages about walks need."""
    source = services.settings.source
    if source is None:
        return None
    chosen = source.reconciliation
    return WalkRoom(
        acts=WalkActs(services.pool, services.journal, services.clock, source.wado.base),
        walks=Walks(services.pool),
        hours=parse_ranges(chosen.suspended),
        suspended=chosen.suspended,
        mode=chosen.mode,
        rate=chosen.rate,
        address_rate=chosen.address_rate,
    )


def password_rules(section: ConsoleSection | None) -> PasswordRules:
    """The rules of the configuration; without a console, those that it would have."""
    if section is None:
        return PasswordRules()
    return PasswordRules(
        min_length=section.password_length,
        admin_min_length=section.admin_password_length,
        classes=section.password_classes,
        former=section.former_passwords,
        max_age_days=section.password_days,
        first_days=section.first_password_days,
    )


async def neighbours(
    settings: Settings, links: Mapping[str, PacsLink], structures: Mapping[str, Served]
) -> Mapping[str, bool]:
    """Who answers now: each PACS (C-ECHO), the DMP (TLS with each structure's certificate)."""
    checks = {f"PACS {name}": _echoes(link) for name, link in links.items()}
    for one in structures.values():
        name = "DMP" if len(structures) == 1 else f"DMP ({one.id})"
        checks[name] = _shakes_hands(settings.dmp.registry, one.keys.tls if one.keys else None)
    return dict(zip(checks, await asyncio.gather(*checks.values()), strict=True))


async def _echoes(link: PacsLink) -> bool:
    try:
        await link.echo()
    except DrimboxError:
        return False
    return True


async def _shakes_hands(url: str, tls: ssl.SSLContext | None) -> bool:
    """Is a TLS connection to that address accepted, with our certificate? Nothing is asked over it."""
    if tls is None:
        return False
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=tls)
    except (OSError, TimeoutError):
        return False
    try:
        # In TLS 1.3 a refusal of our certificate comes after the handshake: whoever waits for a question accepted it.
        async with asyncio.timeout(_REFUSAL_SECONDS):
            await reader.read(1)
    except TimeoutError:
        return True
    except OSError:
        return False
    finally:
        writer.transport.abort()
    return False


def setting_lines(settings: Settings) -> Sequence[SettingLine]:
    """Every setting in force, as the console shows it. Secrets are files, of which only the path is known here."""
    return tuple(_lines("", settings))


def _lines(place: str, model: BaseModel) -> Sequence[SettingLine]:
    found: list[SettingLine] = []
    nested: list[SettingLine] = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        inner = f"{place}.{name}" if place else name
        if isinstance(value, BaseModel):
            nested += _lines(inner, value)
        elif isinstance(value, tuple) and value and all(isinstance(v, BaseModel) for v in value):
            for index, each in enumerate(value):
                nested += _lines(f"{inner}[{index}]", each)
        elif place:
            found.append(SettingLine(place, name, _shown(value), (field.description or "").replace("`", "")))
    return [*found, *nested]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "oui" if value else "non"
    if value is None:
        return ""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_shown(each)}" for key, each in value.items())
    return str(value)
