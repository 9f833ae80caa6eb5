"""What an administrator does with the market certificate from the command line, whether the box runs or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from drimbox.box.certificates import Market, assembled, door, public_tls
from drimbox.box.operator import shell_user
from drimbox.box.settings import Settings
from drimbox.box.settings.certificates import MarketCertificateSection
from drimbox.box.state import database_of
from drimbox.box.trusting import judge_at_rest
from drimbox.certificates import records, words
from drimbox.certificates.acme.client import AcmeClient
from drimbox.certificates.acts import MAX_PEM, REASONS, CertificateRefused, pem_of
from drimbox.certificates.ordering import HTTP_01
from drimbox.certificates.roots import read_roots
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Misconfigured, Refused, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.record.audit import Journal
from drimbox.store import database
from drimbox.trust.keystore import read_certificates, read_file, read_key

T = TypeVar("T")
_LOOK = 0.5


def ordered(settings: Settings, wait: float, *, again: bool) -> str:
    """Order a certificate and wait for it ``wait`` seconds at the most; says how it ended.

    Raises ``CertificateRefused`` (``market-order``) with the reason when none came.
    """

    async def work(market: Market) -> str:
        before = await _current(market)
        # Asked for while the lock is not ours, a running box would take it up; else we do.
        await (market.acts.renew if again else market.acts.order)(shell_user())
        async with market.keeper.leading() as connection:
            if connection is None:
                return await _followed(market, before, wait)
            if market.section.validation != HTTP_01:
                raise CertificateRefused(
                    "La validation TLS-ALPN-01 demande que la DRIMbox tourne : démarrez-la, elle commande d'elle-même"
                )
            async with door(market):
                await market.keeper.round(connection)
        return await _ended(market, before)

    return _on_market(settings, work)


def listed(settings: Settings, *, as_json: bool) -> str:
    async def work(market: Market) -> str:
        state, now = await market.acts.state(), market.acts.clock.now()
        if not as_json:
            return "\n".join(words.listing(state, market.acts.authorities, now))
        found = [
            {
                "number": one.id,
                "host": one.host,
                "state": words.status(one, now),
                "authority": words.origin(one, market.acts.authorities),
                "not_before": one.not_before.isoformat(),
                "not_after": one.not_after.isoformat(),
                "serial": words.serial(one),
                "sha256": words.fingerprint(one),
            }
            for one in state.certificates
        ]
        return json.dumps(found, indent=2, ensure_ascii=False)

    return _on_market(settings, work)


def installed(settings: Settings, file: Path, key: Path | None, password: Path | None) -> str:
    """Raises ``RulesBroken`` with every rule that the certificate breaks."""
    pem = read_file(file)[: MAX_PEM + 1]
    own = read_key(key, read_file(password).strip() if password is not None else None) if key is not None else None
    return _on_market(settings, lambda market: market.acts.install(pem, shell_user(), own))


def requested(settings: Settings, kind: str, organisation: str, out: Path | None) -> str:
    async def work(market: Market) -> str:
        kept = await market.acts.request(shell_user(), key_kind=kind, organisation=organisation)
        if out is None:
            return pem_of(kept).strip()
        await asyncio.to_thread(out.write_text, pem_of(kept), "ascii")
        return f"Demande n° {kept.id} écrite dans {out} ; sa clé reste dans la DRIMbox, scellée."

    return _on_market(settings, work)


def revoked(
    settings: Settings, number: int | None, reason: str, *, own_key: bool, replace: bool, directory: str | None
) -> str:
    """Revoke one of the box's own; at ``directory``, by its own key, where it was not ordered over ACME here."""

    async def work(market: Market) -> str:
        async with HttpClient() as http:
            elsewhere = None
            if directory is not None:
                tls = public_tls(market.acts.rules.roots, judge_at_rest(settings))
                elsewhere = AcmeClient(http, tls, _directory(directory), SystemClock())
            return await market.acts.revoke(
                number, reason, shell_user(), with_certificate_key=own_key, elsewhere=elsewhere, replace=replace
            )

    return _on_market(settings, work)


def revoked_alone(directory: str, file: Path, key: Path, reason: str, *, of_account: bool, roots: Path | None) -> str:
    """Revoke by a key alone, without a box, a database or a configuration (RFC 8555 7.6)."""
    leaf, own = read_certificates(file)[0], read_key(key)
    default = MarketCertificateSection.model_fields["roots"].default
    pinned = read_roots((roots,) if roots is not None else default)

    async def work() -> str:
        async with HttpClient() as http:
            client = AcmeClient(http, public_tls(pinned), _directory(directory), SystemClock())
            code = REASONS[reason][0]
            if not of_account:
                await client.revoke(leaf, code, key=own)
                return "Certificat révoqué."
            account = await client.find(own)
            if account is None:
                raise Refused("L'autorité ne connaît aucun compte de cette clé", code="acme-account")
            await client.revoke(leaf, code, account=account)
            return "Certificat révoqué."

    return asyncio.run(work())


def account_key_changed(settings: Settings, authority: str, *, new_account: bool) -> str:
    def work(market: Market) -> Awaitable[str]:
        change = market.acts.leave_account if new_account else market.acts.change_account_key
        return change(authority, shell_user())

    return _on_market(settings, work)


def _directory(url: str) -> str:
    if not url.startswith("https://"):
        raise Misconfigured("L'adresse du répertoire de l'autorité commence par https://", code="acme-directory")
    return url


async def _followed(market: Market, before: int | None, wait: float) -> str:
    """A running box does the work: wait for what becomes of it."""
    try:
        async with asyncio.timeout(wait):
            while True:
                plan = (await market.acts.state()).plan
                if plan.asked_at is None or (plan.tried_at is not None and plan.tried_at >= plan.asked_at):
                    return await _ended(market, before)
                await asyncio.sleep(_LOOK)
    except TimeoutError:
        raise Unavailable("La commande continue : voyez drimbox certificate list", code="market-slow") from None


async def _ended(market: Market, before: int | None) -> str:
    plan = (await market.acts.state()).plan
    if await _current(market) == before:
        held = [t.until for t in plan.troubles.values() if not t.over(market.acts.clock.now())]
        waits = f" Prochain essai après le {min(held):%d/%m/%Y %H:%M} UTC." if held else ""
        raise CertificateRefused(f"{plan.outcome or 'Aucun essai.'}{waits}", "market-order")
    return plan.outcome


async def _current(market: Market) -> int | None:
    async with market.acts.pool.connection() as connection:
        return await records.current_id(connection, market.acts.host)


def _on_market(settings: Settings, work: Callable[[Market], Awaitable[T]]) -> T:
    section = settings.market_certificate
    if section is None:
        raise Misconfigured(
            "Le certificat de la visionneuse n'est pas configuré : ajoutez [market_certificate]", code="market-none"
        )

    async def run(dsn: str) -> T:
        async with database.opened(dsn, size=4) as pool, HttpClient() as http:
            clock = SystemClock()
            market = assembled(
                settings,
                section,
                dsn=dsn,
                pool=pool,
                http=http,
                clock=clock,
                journal=Journal(pool),
                judge=judge_at_rest(settings),
            )
            return await work(market)

    with database_of(settings) as dsn:
        database.migrate(dsn)
        return asyncio.run(run(dsn))
