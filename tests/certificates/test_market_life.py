"""The whole life of a market certificate against Pebble, Debian's ACME authority."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from certificates.acme_world import HOST, OPERATOR, Pebble, authority_of, box_on, free_ports, rows, running_pebble
from drimbox.certificates import records
from drimbox.certificates.acme.client import ExternalAccount
from drimbox.certificates.acts import CertificateRefused
from drimbox.certificates.keeper import renewal_of
from drimbox.certificates.ordering import purpose
from drimbox.record.audit import Actor, Journal, Search
from drimbox.sandbox.pki import TestAuthority
from drimbox.trust.vault import Vault


@pytest.mark.requirement("DB.SO.90", "DB.VI-SO.04", "DB.VI-CS.02")
async def test_a_certificate_is_ordered_renewed_and_revoked(dsn: str, pebble: Pebble) -> None:
    """Every third nonce is refused on the way."""
    async with box_on(dsn, [pebble], pebble.roots(), http_port=pebble.http_port) as box:
        assert await box.work()
        first = await box.served()
        assert pebble.status(first.leaf) == "Valid"
        assert (first.host, first.directory, first.installed_by) == (HOST, pebble.directory, "drimbox")
        assert len(first.certificates) == 3
        assert await box.work() is False

        # By two thirds of its life at the latest, and not before.
        due = renewal_of(first)
        life = first.not_after - first.not_before
        assert 0.63 < (due - first.not_before) / life <= 2 / 3
        with pytest.raises(CertificateRefused, match="renouveler"):
            await box.acts.order(OPERATOR)
        box.clock.ahead = (due - first.not_before).total_seconds() / 86400 - 1
        assert await box.work() is False
        box.clock.ahead += 2
        assert await box.work()
        second = await box.served()
        assert second.leaf.public_key() != first.leaf.public_key()
        box.clock.ahead = 0

        # As the account, then by the certificate's own key alone; a new one follows at once.
        assert await box.acts.revoke(first.id, "superseded", OPERATOR) == "Certificat révoqué."
        assert pebble.status(first.leaf) == "Revoked"
        with pytest.raises(CertificateRefused, match="déjà révoqué"):
            await box.acts.revoke(first.id, "superseded", OPERATOR)
        done = await box.acts.revoke(None, "key-compromise", OPERATOR, with_certificate_key=True)
        assert done == "Certificat révoqué ; un autre est commandé."
        assert pebble.status(second.leaf) == "Revoked"
        assert await box.work()
        third = await box.served()
        assert third.revoked_at is None
        assert pebble.status(third.leaf) == "Valid"

        found = await Journal(box.pool).search(Search(limit=100), Actor(person="test"))
        acts = [r.event.objects[0].detail for r in reversed(found) if r.event.kind.name == "CONFIGURATION_CHANGED"]
        assert acts == ["installed", "installed", "revoke:superseded", "revoke:key-compromise", "installed"]


async def test_the_account_is_kept_and_its_key_changes(dsn: str, pebble: Pebble) -> None:
    async with box_on(dsn, [pebble], pebble.roots(), http_port=pebble.http_port) as box:
        assert await box.work()
        [before] = (await box.acts.state()).accounts
        assert await box.acts.change_account_key("Pebble", OPERATOR) == "La clé du compte chez Pebble est changée."
        [after] = (await box.acts.state()).accounts
        assert (after.url, after.next_key) == (before.url, None)
        assert after.key != before.key
        assert after.rolled_at is not None
        await box.acts.renew(OPERATOR)
        assert await box.work()
        # The key of before is nobody's any more.
        client = authority_of(pebble, box.http, box.clock).client
        assert await client.find(Vault(bytes(range(32))).open(before.key, f"acme account {pebble.directory}")) is None
        with pytest.raises(CertificateRefused, match="n'est pas configurée"):
            await box.acts.change_account_key("Autre", OPERATOR)


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_change_of_account_key_that_was_cut_is_settled(dsn: str, pebble: Pebble, cut: str) -> None:
    """Killed between our note and the authority's, or between its note and ours: the right key is found."""
    async with box_on(dsn, [pebble], pebble.roots(), http_port=pebble.http_port) as box:
        assert await box.work()
        [kept] = (await box.acts.state()).accounts
        vault, name = Vault(bytes(range(32))), f"acme account {pebble.directory}"
        from drimbox.certificates.acme.client import Account
        from drimbox.certificates.requests import new_key

        fresh = new_key("P-256")
        async with box.pool.connection() as connection:
            await records.prepare_key(connection, pebble.directory, vault.seal(fresh, name))
        if cut == "after":
            client = authority_of(pebble, box.http, box.clock).client
            await client.change_key(Account(kept.url, vault.open(kept.key, name)), fresh)
        await box.acts.renew(OPERATOR)
        assert await box.work()
        [settled] = (await box.acts.state()).accounts
        assert settled.next_key is None
        expected = fresh if cut == "after" else vault.open(kept.key, name)
        assert vault.open(settled.key, name).public_key() == expected.public_key()
        assert len((await box.acts.state()).certificates) == 2


async def test_the_preferred_chain_is_chosen_among_those_offered(dsn: str, pebble: Pebble) -> None:
    for number in (0, 1):
        # Only one root is believed: the chain that leads there is taken, whichever is offered first.
        async with box_on(dsn, [pebble], pebble.roots(number), http_port=pebble.http_port) as box:
            await box.acts.renew(OPERATOR)
            assert await box.work()
            top = (await box.served()).certificates[-1]
            top.verify_directly_issued_by(pebble.roots(number)[0])
    both = (*pebble.roots(0), *pebble.roots(1))
    name = str(pebble.roots(1)[0].subject.get_attributes_for_oid(_common_name())[0].value)
    async with box_on(dsn, [pebble], both, http_port=pebble.http_port, preferred_chain=name) as box:
        await box.acts.renew(OPERATOR)
        assert await box.work()
        (await box.served()).certificates[-1].verify_directly_issued_by(both[1])


async def test_keys_are_new_sealed_and_nowhere_in_the_logs(
    dsn: str, pebble: Pebble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with box_on(dsn, [pebble], pebble.roots(), http_port=pebble.http_port, key_kind="RSA-2048") as box:
        assert await box.work()
        one = await box.served()
        assert isinstance(one.leaf.public_key(), RSAPublicKey)
        key = Vault(bytes(range(32))).open(one.key, purpose(HOST))
        assert key.public_key() == one.leaf.public_key()
        secret = str(key.private_numbers().d)  # type: ignore[union-attr]
        [account] = await rows(dsn, "SELECT key FROM acme_account")
        for row in [account, *await rows(dsn, "SELECT key FROM certificate_order")]:
            kept = bytes(row["key"])  # type: ignore[call-overload]
            assert b"PRIVATE" not in kept
            assert kept[:1] == b"\x01"
        assert "PRIVATE KEY" not in caplog.text
        assert secret not in caplog.text
        assert repr(one.key)[2:20] not in repr(one)


@pytest.mark.requirement("DB.SO.90")
async def test_several_nodes_one_orders_and_all_answer(dsn: str, pebble: Pebble) -> None:
    """The node that orders has no door here: only the other one answers the validation."""
    async with (
        box_on(dsn, [pebble], pebble.roots()) as orders,
        box_on(dsn, [pebble], pebble.roots(), http_port=pebble.http_port) as answers,
        orders.keeper.leading() as leader,
    ):
        assert leader is not None
        async with answers.keeper.leading() as second:
            assert second is None
        assert await orders.keeper.round(leader)
        one = await answers.served()
        assert [c for c in await rows(dsn, "SELECT * FROM certificate_challenge") if c] == []
        # The other node takes it in by itself.
        await answers.presenting.refresh()
        assert answers.presenting._number == one.id


async def test_a_keeper_that_runs_survives_the_loss_of_its_database(dsn: str, pebble: Pebble) -> None:
    async with box_on(dsn, [pebble], pebble.roots(), http_port=pebble.http_port) as box:
        running = asyncio.create_task(box.keeper.run())
        try:
            await until(box.current)
            await rows(dsn, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
            await box.acts.renew(OPERATOR)

            async def renewed() -> bool:
                return len((await box.acts.state()).certificates) == 2

            await until(renewed)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.mark.requirement("DB.SO.90", "DB.SO.21")
async def test_a_closed_port_is_told_and_tried_again(dsn: str, pebble: Pebble) -> None:
    async with box_on(dsn, [pebble], pebble.roots()) as box:
        assert await box.work()
        assert await box.current() is None
        [line] = await box.queue()
        assert line.code == "market-order"
        assert line.reason.startswith("Pebble : L'autorité n'a pas pu joindre ce serveur : ouvrez le port 80")
        assert "[connection: " in line.reason
        # Its own pause holds until somebody asks.
        assert await box.work() is False
        [kept] = (await box.acts.state()).accounts
        assert kept.url
        plan = await box.plan()
        assert plan.outcome.startswith("Pebble : ")
        assert plan.troubles[pebble.directory].failures == 1
    async with box_on(dsn, [pebble], pebble.roots(), http_port=pebble.http_port) as box:
        await box.acts.order(OPERATOR)
        assert await box.work()
        await box.served()
        assert await box.queue() == ()
        assert (await box.acts.state()).accounts[0].url == kept.url


@pytest.mark.requirement("DB.SO.90")
async def test_an_account_that_is_bound_to_a_contract(dsn: str, authority: TestAuthority, tmp_path: Path) -> None:
    secret = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    http_port, tls_port = free_ports(2)
    with running_pebble(
        tmp_path / "pebble", authority, http_port=http_port, tls_port=tls_port, bindings={"kid-1": secret}
    ) as bound:
        for external, told in (
            (None, "demande un compte externe"),
            (ExternalAccount("kid-2", secret), "[unauthorized: "),
            (ExternalAccount("kid-1", "AAAA" + secret[4:]), "Pebble : "),
            (ExternalAccount("kid-1", "!"), "n'est pas en base64url"),
        ):
            async with box_on(dsn, [bound], bound.roots(), http_port=http_port, external=external) as box:
                await box.acts.renew(OPERATOR)
                assert await box.work()
                assert await box.current() is None
                assert told in (await box.plan()).outcome, (await box.plan()).outcome
                assert secret not in (await box.plan()).outcome
        external = ExternalAccount("kid-1", secret)
        assert secret not in repr(external)
        async with box_on(dsn, [bound], bound.roots(), http_port=http_port, external=external) as box:
            await box.acts.renew(OPERATOR)
            assert await box.work()
            await box.served()


async def until(true, seconds: float = 20.0) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(seconds):
        while True:
            if await true():
                return
            await asyncio.sleep(0.05)


def _common_name():  # type: ignore[no-untyped-def]
    from cryptography.x509.oid import NameOID

    return NameOID.COMMON_NAME
