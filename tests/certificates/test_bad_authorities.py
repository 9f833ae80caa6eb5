"""Authorities that lie, refuse, are slow or away; clocks that jump; renewal information. By an authority of our own."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from certificates.acme_world import HOST, OPERATOR, Box, MovedClock, box_on, free_ports
from certificates.strict_ca import DAY, StrictAuthority, running_authority
from drimbox.certificates.accounts import Authority
from drimbox.certificates.acme.client import AcmeClient, ExternalAccount
from drimbox.certificates.acts import CertificateRefused
from drimbox.certificates.keeper import renewal_of
from drimbox.foundation.http_client import HttpClient
from drimbox.sandbox.pki import TestAuthority
from drimbox.trust.chain import TrustStore
from drimbox.trust.tls import client_context

NOW = dt.datetime.now(dt.UTC)
LEVELS = ("DV", "OV")


@asynccontextmanager
async def site(
    dsn: str, pki: TestAuthority, *authorities: dict[str, Any], roots: tuple[x509.Certificate, ...] = (), **options: Any
) -> AsyncIterator[tuple[Box, list[StrictAuthority]]]:
    """A box with one authority for each dict of options, in that order of preference."""
    [http_port] = free_ports(1)
    clock = MovedClock()
    tls = client_context(TrustStore(tuple(x509.load_pem_x509_certificates(pki.roots.read_bytes()))))
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(HttpClient())
        running = [await stack.enter_async_context(running_authority(pki, http_port, **each)) for each in authorities]
        known = [
            Authority(f"Autorité {n}", AcmeClient(http, tls, one.directory, clock, timeout=5), agreed=True)
            for n, one in enumerate(running, 1)
        ]
        external = options.pop("external", None)
        if external is not None:
            known = [Authority(a.name, a.client, agreed=options.get("agreed", True), external=external) for a in known]
        if options.pop("disagreed", False):
            known = [Authority(a.name, a.client, agreed=False) for a in known]
        believed = roots or tuple(one.root.certificate for one in running)
        box = await stack.enter_async_context(
            box_on(dsn, known, believed, http_port=http_port, levels=LEVELS, clock=clock, **options)
        )
        yield box, running


async def outcome(box: Box) -> str:
    assert await box.work()
    return (await box.plan()).outcome


@pytest.mark.requirement("DB.SO.90")
async def test_a_strict_authority_is_content(dsn: str, authority: TestAuthority) -> None:
    async with site(dsn, authority, {"terms": "https://authority.example/terms"}) as (box, [strict]):
        assert await box.work()
        first = await box.served()
        assert len(strict.orders) == 1
        await box.acts.change_account_key("", OPERATOR)
        await box.acts.renew(OPERATOR)
        assert await box.work()
        await box.acts.revoke(first.id, "cessation", OPERATOR)
        await box.acts.revoke(None, "key-compromise", OPERATOR, with_certificate_key=True, replace=False)
        assert list(strict.revoked.values()) == [5, 1]
        # No other one was wanted: none is ordered until somebody asks.
        box.clock.ahead = 80
        assert await box.work() is False
        box.clock.ahead = 0
        assert len(strict.orders) == 2
        compromised = await box.served()
        with pytest.raises(CertificateRefused, match="compromise"):
            await box.acts.install(compromised.chain.encode(), OPERATOR)
        # Each answer brings the nonce of the next request: none is asked for.
        assert [line for line in strict.heard if "nonce" in line] == []


@pytest.mark.requirement("DB.SO.90", "DB.SO.21")
@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        ({"lied_names": [x509.DNSName("autre.example.org")]}, "n'est pas au nom de"),
        ({"lied_names": [x509.DNSName(HOST), x509.DNSName("autre.example.org")]}, "porte plusieurs noms"),
        ({"lied_names": [x509.DNSName("*.test.mesimagesmedicales.fr")]}, "générique"),
        ({"wrong_key": True}, "La clé privée n'est pas celle du certificat"),
        ({"lies": {"start": NOW - 100 * DAY, "end": NOW - DAY}}, "est expiré depuis"),
        ({"lies": {"start": NOW + DAY}}, "n'est valable qu'à partir du"),
        ({"lies": {"policy": "2.23.140.1.2.3"}}, "est de niveau IV"),
        ({"lies": {"purposes": [ExtendedKeyUsageOID.CLIENT_AUTH]}}, "n'est pas celui d'un serveur TLS"),
        ({"no_chain": True}, "La chaîne est incomplète : il manque l'autorité « CN=Intermédiaire Essai »"),
        ({"broken_order": {"identifiers": [{"type": "dns", "value": "autre.example.org"}]}}, "[identifiers]"),
        ({"broken_order": {"finalize": "http://in.the.clear/"}}, "hors du protocole ACME [URL]"),
        ({"broken_order": {"status": "dreaming"}}, "[order dreaming]"),
    ],
)
async def test_what_a_lying_authority_gives_is_never_served(
    dsn: str, authority: TestAuthority, behaviour: dict[str, Any], told: str
) -> None:
    async with site(dsn, authority, {}) as (box, [strict]):
        assert await box.work()
        good = await box.served()
        for name, value in behaviour.items():
            setattr(strict, name, value)
        await box.acts.renew(OPERATOR)
        text = await outcome(box)
        assert told in text, text
        assert (await box.served()).id == good.id
        assert box.presenting._number == good.id
        [line] = await box.queue()
        assert (line.code, line.reason) == ("market-order", text)
        # It is tried again by itself, not in a hurry.
        assert await box.work() is False
        until = (await box.plan()).troubles[strict.directory].until
        assert dt.timedelta(minutes=7.5) < until - box.clock.now() < dt.timedelta(minutes=12.5)
        # The authority came to its senses: a new order, and the line is closed.
        for name, usual in (("lied_names", None), ("wrong_key", False), ("no_chain", False)):
            setattr(strict, name, usual)
        strict.lies, strict.broken_order = {}, {}
        box.clock.ahead = 1 / 24
        assert await box.work()
        assert (await box.served()).id != good.id
        assert await box.queue() == ()


@pytest.mark.requirement("DB.SO.90")
async def test_the_limits_of_an_authority_are_obeyed_and_the_next_one_asked(dsn: str, authority: TestAuthority) -> None:
    async with site(dsn, authority, {"limits": 1, "retry_after": "36000"}, {}) as (box, [first, second]):
        assert "demande d'attendre" in await outcome(box)
        held = (await box.plan()).troubles[first.directory]
        assert held.imposed
        assert dt.timedelta(hours=9.9) < held.until - box.clock.now() <= dt.timedelta(hours=10)
        # The other one is asked at once; the first not before its time, even when somebody presses the button.
        assert await box.work()
        assert (await box.served()).directory == second.directory
        orders = len(first.orders)
        await box.acts.renew(OPERATOR)
        assert await box.work()
        assert len(first.orders) == orders
        box.clock.ahead = 11 / 24
        await box.acts.renew(OPERATOR)
        assert await box.work()
        assert (await box.served()).directory == first.directory


@pytest.mark.requirement("DB.SO.90")
@pytest.mark.parametrize("wait", ["date", "none", "wild"])
async def test_every_way_to_say_when_to_come_back(dsn: str, authority: TestAuthority, wait: str) -> None:
    at = dt.datetime.now(dt.UTC) + dt.timedelta(hours=5)
    value = {"date": at.strftime("%a, %d %b %Y %H:%M:%S GMT"), "none": "soon", "wild": "999999999"}[wait]
    hours = {"date": 5, "none": 1, "wild": 7 * 24}[wait]
    async with site(dsn, authority, {"limits": 1, "retry_after": value}) as (box, [strict]):
        await outcome(box)
        until = (await box.plan()).troubles[strict.directory].until
        assert abs((until - box.clock.now()).total_seconds() / 3600 - hours) < 0.1


async def test_an_authority_that_is_away_is_given_time_then_replaced(dsn: str, authority: TestAuthority) -> None:
    async with site(dsn, authority, {"outages": 1000}, {}) as (box, [first, second]):
        for failures in (1, 2):
            assert "momentanément en panne" in await outcome(box)
            assert (await box.plan()).troubles[first.directory].failures == failures
            # Its own pause first: the other one is not asked for a short outage.
            assert await box.work() is False
            assert second.heard == []
            box.clock.ahead += 0.2
        assert await box.work()
        assert (await box.plan()).troubles[first.directory].failures == 3
        assert await box.work()
        assert (await box.served()).directory == second.directory
        # It came back: it is preferred again once its pause is over.
        first.outages = 0
        box.clock.ahead += 1
        await box.acts.renew(OPERATOR)
        assert await box.work()
        assert (await box.served()).directory == first.directory


async def test_an_order_that_was_cut_goes_on_where_it_was(dsn: str, authority: TestAuthority) -> None:
    """Each answer in turn is lost after the authority did the work; no second order is ever needed for it."""
    async with site(dsn, authority, {}) as (box, [strict]):
        assert await box.work()
        orders = 1
        for path in (
            "/order/{}",
            "/order/{}/authorization",
            "/order/{}/challenge",
            "/order/{}/finalize",
            "/certificate/{}",
        ):
            number = len(strict.certificates) if "certificate" in path else len(strict.orders)
            strict.drops = {path.format(number)}
            before = (await box.served()).id
            await box.acts.renew(OPERATOR)
            assert await box.work()
            if (await box.served()).id == before:
                assert await box.work() is False
                box.clock.ahead += 0.01
                assert await box.work()
            orders += 1
            assert (await box.served()).id != before, path
            assert len(strict.orders) == orders, path
            assert await box.queue() == ()


async def test_an_account_whose_answer_was_lost_is_found_again(dsn: str, authority: TestAuthority) -> None:
    async with site(dsn, authority, {"drops": {"/account"}}) as (box, [strict]):
        await outcome(box)
        assert len(strict.accounts) == 1
        box.clock.ahead += 0.01
        assert await box.work()
        await box.served()
        assert len(strict.accounts) == 1
        # An account that the authority forgot is opened again.
        strict.accounts.clear()
        await box.acts.renew(OPERATOR)
        assert "ne connaît pas ou plus ce compte" in await outcome(box)
        box.clock.ahead += 0.01
        assert await box.work()
        assert len((await box.acts.state()).certificates) == 2


async def test_a_slow_authority_is_waited_for_as_it_asks(dsn: str, authority: TestAuthority) -> None:
    async with site(dsn, authority, {"slow": 3}) as (box, _):
        assert await box.work()
        await box.served()
        assert box.pauses.count(1.0) == 3
    async with site(dsn, authority, {"slow": 1000}, patience=2.0) as (box, [strict]):
        await box.acts.renew(OPERATOR)
        assert "n'a pas fini dans le délai" in await outcome(box)
        orders, strict.slow = len(strict.orders), 0
        box.clock.ahead += 0.01
        assert await box.work()
        assert len(strict.orders) == orders


@pytest.mark.parametrize("status", ["pending", "ready"])
async def test_an_authority_that_stands_still_is_not_run_over(dsn: str, authority: TestAuthority, status: str) -> None:
    async with site(dsn, authority, {}, patience=3.0) as (box, [strict]):
        strict.broken_order = {"status": status}
        text = await outcome(box)
        assert "n'a pas fini dans le délai" in text or "pas encore validé" in text, text
        assert len(strict.heard) < 30
        strict.broken_order = {}
        box.clock.ahead += 0.01
        assert await box.work()
        await box.served()
        assert len(strict.orders) == 1


async def test_who_asks_while_a_try_fails_is_not_forgotten(dsn: str, authority: TestAuthority) -> None:
    async with site(dsn, authority, {"slow": 1000}, patience=2.5) as (box, [strict]):

        async def asks_meanwhile(seconds: float) -> None:
            if (await box.plan()).asked_at is None:
                await box.acts.renew(OPERATOR)
            await asyncio.sleep(0.05)

        object.__setattr__(box.keeper.ordering, "sleep", asks_meanwhile)
        await outcome(box)
        assert (await box.plan()).asked_at is not None
        strict.slow = 0
        box.clock.ahead += 0.01
        assert await box.work()
        assert (await box.plan()).asked_at is None


@pytest.mark.requirement("DB.SO.90")
async def test_what_the_authority_wants_of_the_site_is_told(dsn: str, authority: TestAuthority) -> None:
    terms = {"terms": "https://authority.example/terms-2026"}
    async with site(dsn, authority, terms, disagreed=True) as (box, [strict]):
        text = await outcome(box)
        assert "https://authority.example/terms-2026" in text
        assert "terms_agreed = true" in text
        assert strict.accounts == {}
    secret = "c2VjcmV0LW9mLXRoZS1jb250cmFjdA"
    bound = {"externals": {"contract-7": b"secret-of-the-contract"}}
    async with site(dsn, authority, bound) as (box, _):
        await box.acts.renew(OPERATOR)
        assert "external_account_id" in await outcome(box)
    async with site(dsn, authority, bound, external=ExternalAccount("contract-7", secret)) as (box, _):
        await box.acts.renew(OPERATOR)
        assert await box.work()
        await box.served()


# --- renewal information and clocks -----------------------------------------------------------------------------------


def window(start: dt.datetime, days: float) -> dict[str, str]:
    return {
        "start": start.isoformat().replace("+00:00", "Z"),
        "end": (start + dt.timedelta(days=days)).isoformat().replace("+00:00", "Z"),
    }


@pytest.mark.requirement("DB.SO.90")
async def test_renewal_is_in_the_window_that_the_authority_suggests(dsn: str, authority: TestAuthority) -> None:
    start = NOW + 30 * DAY
    async with site(dsn, authority, {"window": window(start, 2)}) as (box, [strict]):
        assert await box.work()
        assert await box.work() is False
        one = await box.served()
        assert start <= renewal_of(one) <= start + 2 * DAY
        asked = [line for line in strict.heard if line.startswith("GET /renewal/")]
        assert len(asked) == 1
        # Not asked again before the authority likes it.
        for _ in range(3):
            await box.work()
        assert len([line for line in strict.heard if line.startswith("GET /renewal/")]) == 1
        # It changes its mind (a mass revocation): the next look renews at once, and says what is replaced.
        strict.window = {**window(NOW - DAY, 0.5), "explanationURL": "x"}
        box.clock.ahead = 0.3
        assert await box.work()
        assert (await box.served()).id != one.id
        assert len(strict.replaced) == 1


async def test_an_authority_that_is_never_content_does_not_make_us_hurry(dsn: str, authority: TestAuthority) -> None:
    async with site(dsn, authority, {"window": window(NOW - DAY, 0.5)}) as (box, [strict]):
        assert await box.work()
        for _ in range(5):
            assert await box.work() is False
        box.clock.ahead = 1.5 / 24
        assert await box.work()
        assert await box.work() is False
        assert len(strict.orders) == 2


async def test_a_defect_of_our_own_is_told_and_does_not_run_wild(dsn: str, authority: TestAuthority) -> None:
    async with site(dsn, authority, {}, {}) as (box, [first, second]):
        client = box.keeper.authorities[0].client
        box.keeper.authorities = (replace(box.keeper.authorities[0], client=Broken(client)), box.keeper.authorities[1])  # type: ignore[arg-type]
        text = await outcome(box)
        assert "Défaut de la passerelle (RuntimeError, test_bad_authorities.py" in text
        assert "secret detail" not in text
        assert await box.work()
        assert (await box.served()).directory == second.directory
        assert len(first.orders) == 1


class Broken:
    """A client that fails in an unforeseen way once the certificate is to be fetched."""

    def __init__(self, client: AcmeClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def chains(self, account: object, url: str) -> None:
        raise RuntimeError("secret detail")


@pytest.mark.parametrize(
    "nonsense",
    [
        {"start": "2026-13-45T00:00:00Z", "end": "never"},
        {"start": "2030-01-01T00:00:00Z", "end": "2029-01-01T00:00:00Z"},
        {"start": "0001-01-01T00:00:00+23:59", "end": "9999-12-31T23:59:59-23:59"},
        {"start": "2090-01-01T00:00:00Z", "end": "2091-01-01T00:00:00Z"},
        {},
    ],
)
async def test_a_window_that_makes_no_sense_leaves_two_thirds_of_the_life(
    dsn: str, authority: TestAuthority, nonsense: dict[str, str]
) -> None:
    async with site(dsn, authority, {"window": nonsense}) as (box, _):
        assert await box.work()
        assert await box.work() is False
        one = await box.served()
        part = (renewal_of(one) - one.not_before) / (one.not_after - one.not_before)
        assert 0.63 < part <= 2 / 3


@pytest.mark.requirement("DB.SO.90", "DB.SO.21")
async def test_a_clock_that_jumps_ahead_does_not_throw_a_good_certificate_away(
    dsn: str, authority: TestAuthority
) -> None:
    async with site(dsn, authority, {}) as (box, [strict]):
        assert await box.work()
        good = await box.served()
        box.clock.ahead = 400
        text = await outcome(box)
        assert "vérifiez l'heure de la machine" in text
        assert (await box.served()).id == good.id
        codes = {line.code for line in await box.queue()}
        assert codes == {"market-order", "market-late"}
        # It comes back: nothing is due, and the pauses of another time do not hold.
        box.clock.ahead = 0
        assert await box.work() is False
        await box.acts.renew(OPERATOR)
        assert await box.work()
        assert (await box.served()).id != good.id
        assert await box.queue() == ()
        assert len(strict.orders) == 3


async def test_a_clock_that_jumps_back_orders_nothing_and_waits_for_nothing(dsn: str, authority: TestAuthority) -> None:
    async with site(dsn, authority, {"outages": 1}) as (box, _):
        box.clock.ahead = 3
        await outcome(box)
        # The pause was counted on a clock that was three days ahead.
        box.clock.ahead = -1
        assert await box.work()
        text = (await box.plan()).outcome
        assert "n'est valable qu'à partir du" in text, text
        box.clock.ahead = 0
        assert await box.work()
        await box.served()
        box.clock.ahead = -30
        assert await box.work() is False
        assert [line.code for line in await box.queue()] == []


async def test_no_authority_at_all_reminds_in_time(dsn: str, authority: TestAuthority) -> None:
    async with site(dsn, authority, {}) as (box, [strict]):
        assert await box.work()
        one = await box.served()
        box.keeper.authorities = ()
        assert await box.work() is False
        assert await box.queue() == ()
        box.clock.ahead = 65
        assert await box.work() is False
        [line] = await box.queue()
        assert line.code == "market-by-hand"
        assert re.search(r"expire le \d\d/\d\d/\d{4}", line.reason)
        assert len(strict.orders) == 1
        assert (await box.served()).id == one.id
