"""Carries one order through (RFC 8555 7.1.3), from wherever it was cut: the order and its key are kept first."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from drimbox.certificates import records
from drimbox.certificates.accounts import Authority
from drimbox.certificates.acme import jose
from drimbox.certificates.acme.client import Account, renewal_identifier
from drimbox.certificates.acme.messages import Authorization, Order, Problem
from drimbox.certificates.acme.refusals import Refusal
from drimbox.certificates.records import Challenge, Installed, KeptOrder
from drimbox.certificates.requests import new_key, signing_request
from drimbox.certificates.rules import Checked, Rules, RulesBroken, check
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Busy, OutcomeUnknown, Rejected
from drimbox.store.database import Connection
from drimbox.trust.keystore import PrivateKey
from drimbox.trust.vault import Vault

HTTP_01, TLS_ALPN_01 = "http-01", "tls-alpn-01"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,512}")
_CHALLENGE_HOURS = 1.0
_FIRST_POLL, _LONGEST_POLL = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class Ordering:
    """How orders are carried through.

    ``announced`` is awaited once an answer is in the database, and ``spread`` seconds more, so that every node answers
    before the authority asks; ``patience`` seconds are waited for the authority in one try.
    """

    rules: Rules
    vault: Vault
    clock: Clock
    validation: str = HTTP_01
    key_kind: str = "P-256"
    spread: float = 0.0
    patience: float = 300.0
    announced: Callable[[], Awaitable[None]] | None = None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def begin(
        self, connection: Connection, authority: Authority, account: Account, *, by: str, replaces: Installed | None
    ) -> KeptOrder:
        """A new order, kept with a key of its own. Raises ``RulesBroken`` before anything is asked."""
        host = self.rules.host
        key = new_key(self.key_kind)
        request = signing_request(key, self.rules)
        known = replaces is not None and replaces.directory == authority.directory
        url, order = await authority.client.new_order(
            account,
            host,
            replaces=renewal_identifier(replaces.leaf) if replaces is not None and known else "",
            profile=authority.profile,
        )
        self._check_names(order)
        return await records.add_order(
            connection,
            host=host,
            directory=authority.directory,
            url=url,
            key=self.vault.seal(key, purpose(host)),
            request=request.public_bytes(Encoding.DER),
            by=by,
            now=self.clock.now(),
        )

    async def carry_through(
        self, connection: Connection, authority: Authority, account: Account, kept: KeptOrder
    ) -> Checked:
        """The certificate, checked against the rules.

        Raises what ``AcmeClient`` raises; ``Rejected`` (``acme-order``) for an order that came to nothing;
        ``RulesBroken`` for a certificate that is not what was asked for; ``Busy`` (``acme-slow``) when the
        authority takes too long: the order goes on at the next try.
        """
        key = self.vault.open(kept.key, purpose(kept.host))
        deadline = self.clock.monotonic() + self.patience
        pauses, seen = _Pauses(), ""
        while True:
            order, wished = await authority.client.order(account, kept.url)
            self._check_names(order)
            if order.status == seen or order.status == "processing":
                await self._wait(deadline, pauses.next(wished))
            seen = order.status
            if order.status == "pending":
                await self._validate(connection, authority, account, order, deadline)
            elif order.status == "ready":
                # When its answer is lost, the order itself says whether it was received.
                with suppress(OutcomeUnknown):
                    await authority.client.finalize(account, order.finalize, kept.signing_request)
            elif order.status == "valid" and order.certificate:
                chains = await authority.client.chains(account, order.certificate)
                return self._chosen(chains, key, authority.preferred_chain)
            elif order.status != "processing":
                raise await self._failure(authority, account, order)

    async def _validate(
        self, connection: Connection, authority: Authority, account: Account, order: Order, deadline: float
    ) -> None:
        try:
            for url in order.authorizations:
                await self._authorize(connection, authority, account, url, deadline)
        finally:
            await records.withdraw(connection, self.rules.host)

    async def _authorize(
        self, connection: Connection, authority: Authority, account: Account, url: str, deadline: float
    ) -> None:
        found, _ = await authority.client.authorization(account, url)
        if found.name != self.rules.host:
            raise _strange("identifier")
        if found.status == "pending":
            challenge = next((c for c in found.challenges if c.kind == self.validation), None)
            if challenge is None:
                raise Rejected(
                    f"L'autorité ne propose pas la validation {self.validation} : changez le réglage validation",
                    code="acme-challenge",
                    peer_code=", ".join(sorted(c.kind for c in found.challenges))[:100],
                )
            if _TOKEN.fullmatch(challenge.token) is None:
                raise _strange("token")
            if challenge.status == "pending":
                await self._announce(connection, challenge.token, account.key)
                await authority.client.ready(account, challenge.url)
        pauses = _Pauses()
        while True:
            found, wished = await authority.client.authorization(account, url)
            if found.status == "valid":
                return
            if found.status != "pending":
                raise Refusal(_problem_of(found))
            await self._wait(deadline, pauses.next(wished))

    async def _announce(self, connection: Connection, token: str, key: PrivateKey) -> None:
        expires = self.clock.now() + dt.timedelta(hours=_CHALLENGE_HOURS)
        proof = jose.key_authorization(token, key)
        await records.announce(connection, Challenge(token, self.rules.host, self.validation, proof, expires))
        if self.announced is not None:
            await self.announced()
        if self.spread:
            await self.sleep(self.spread)

    async def _wait(self, deadline: float, seconds: float) -> None:
        if self.clock.monotonic() + seconds > deadline:
            raise Busy(
                "L'autorité n'a pas fini dans le délai : la commande reprendra", code="acme-slow", retry_after=seconds
            )
        await self.sleep(seconds)

    async def _failure(self, authority: Authority, account: Account, order: Order) -> Rejected:
        """Why an order came to nothing: its own problem, else that of a validation."""
        problem = order.problem
        if problem is None:
            for url in order.authorizations:
                found, _ = await authority.client.authorization(account, url)
                if found.status == "invalid":
                    problem = _problem_of(found)
        return Refusal(problem or Problem(detail=f"order {order.status}"[:60]))

    def _chosen(self, chains: Sequence[Sequence[x509.Certificate]], key: PrivateKey, preferred: str) -> Checked:
        """The preferred one of the chains that keep the rules, else the first of them."""
        kept: list[Checked] = []
        broken: RulesBroken | None = None
        for chain in chains:
            try:
                kept.append(check(chain, key, self.rules, self.clock.now()))
            except RulesBroken as error:
                broken = broken or error
        if not kept:
            assert broken is not None
            raise broken
        return next((c for c in kept if preferred and preferred in _common_names(c)), kept[0])

    def _check_names(self, order: Order) -> None:
        if order.names != (self.rules.host,):
            raise _strange("identifiers")


def purpose(host: str) -> str:
    """What a certificate's key is sealed for."""
    return f"market certificate {host}"


class _Pauses:
    """Between two looks: what the authority wishes, else longer and longer."""

    def __init__(self) -> None:
        self._next = _FIRST_POLL

    def next(self, wished: float | None) -> float:
        grown, self._next = self._next, min(2 * self._next, _LONGEST_POLL)
        return grown if wished is None else min(max(wished, 0.1), 3600.0)


def _problem_of(found: Authorization) -> Problem:
    return next((c.problem for c in found.challenges if c.problem is not None), Problem(detail=found.status[:60]))


def _common_names(checked: Checked) -> set[str]:
    issuers = (*checked.chain, checked.root)
    return {str(a.value) for c in issuers for a in c.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}


def _strange(what: str) -> Rejected:
    return Rejected("L'autorité a répondu autre chose que ce qui était demandé", code="acme-syntax", peer_code=what)
