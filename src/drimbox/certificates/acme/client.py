"""Requests to one authority: the directory, nonces, signed POSTs, and what each operation of RFC 8555 7 sends."""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from drimbox.certificates.acme import jose, messages
from drimbox.certificates.acme.messages import Authorization, Directory, Order, RenewalWindow
from drimbox.certificates.acme.refusals import Refusal, refusal
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import OutcomeUnknown, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient, Reply
from drimbox.trust.keystore import UNREADABLE, PrivateKey

MAX_ANSWER = 2**20
MAX_ALTERNATES = 10
_NONCES_KEPT = 8
# An authority under test may refuse most nonces; a sound one refuses a stale one once.
_NONCE_TRIES = 25
_DIRECTORY_SECONDS = 3600.0
# RFC 9773 4.3: how often renewal information may be asked for when the authority does not say, and its bounds.
_WINDOW_PAUSES = (60.0, 6 * 3600.0, 86400.0)
_LINK = re.compile(r'<([^<>]{1,2000})>\s*;[^,]*?\brel="?([A-Za-z0-9 _:-]{1,60})"?')


@dataclass(frozen=True, slots=True)
class Account:
    """Who we are at an authority: the address that it gave, and the key that signs."""

    url: str
    key: PrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class ExternalAccount:
    """What a commercial authority hands out to bind a new account to a contract: an id, and a MAC key in base64url."""

    identifier: str
    secret: str = field(repr=False)


@dataclass(slots=True)
class AcmeClient:
    """Talks to the authority whose directory is at ``url``, over ``tls``.

    Every call raises ``Unavailable`` when nothing was done, ``OutcomeUnknown`` when that is not known, ``Busy`` when
    the authority says when to come back, ``Rejected`` (``acme-refused`` with its own words, ``acme-syntax``) and
    ``Misconfigured`` (``acme-account``) when it wants something of the site.
    """

    http: HttpClient
    tls: ssl.SSLContext = field(repr=False)
    url: str
    clock: Clock
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    timeout: float = 30.0
    _nonces: deque[str] = field(default_factory=lambda: deque(maxlen=_NONCES_KEPT), repr=False)
    _directory: tuple[Directory, float] | None = None

    async def directory(self) -> Directory:
        """Where everything is; asked again from time to time."""
        if self._directory is None or self.clock.monotonic() - self._directory[1] > _DIRECTORY_SECONDS:
            reply = self._good(await self._send("GET", self.url))
            self._directory = (messages.directory(reply.body), self.clock.monotonic())
        return self._directory[0]

    async def register(
        self, key: PrivateKey, *, contact: Sequence[str], agreed: bool, external: ExternalAccount | None = None
    ) -> Account:
        """A new account, or the one that the authority already has for this key (RFC 8555 7.3)."""
        where = await self.directory()
        payload: dict[str, Any] = {"contact": [f"mailto:{address}" for address in contact]}
        if agreed:
            payload["termsOfServiceAgreed"] = True
        if external is not None:
            payload["externalAccountBinding"] = jose.external_binding(
                key, where.new_account, external.identifier, external.secret
            )
        return self._account(await self._post(where.new_account, key, payload), key)

    async def find(self, key: PrivateKey) -> Account | None:
        """The account of this key, None when the authority has none (RFC 8555 7.3.1)."""
        try:
            reply = await self._post((await self.directory()).new_account, key, {"onlyReturnExisting": True})
        except Refusal as error:
            if error.kind == "accountDoesNotExist":
                return None
            raise
        return self._account(reply, key)

    async def change_key(self, account: Account, new: PrivateKey) -> Account:
        """The same account under another key (RFC 8555 7.3.5)."""
        where = await self.directory()
        inner = jose.key_change(account.key, new, where.key_change, account.url)
        await self._post(where.key_change, account.key, inner, account.url)
        return Account(account.url, new)

    async def new_order(
        self, account: Account, host: str, *, replaces: str = "", profile: str = ""
    ) -> tuple[str, Order]:
        """Ask for a certificate of one name; the order's address and what it says (RFC 8555 7.4).

        ``replaces`` is the identifier of the certificate that it is to take the place of (RFC 9773 5).
        """
        where = await self.directory()
        payload: dict[str, Any] = {"identifiers": [{"type": "dns", "value": host}]}
        if profile:
            payload["profile"] = profile
        if replaces and where.renewal_info:
            payload["replaces"] = replaces
        try:
            reply = await self._post(where.new_order, account.key, payload, account.url)
        except Refusal as error:
            # The authority no longer knows what it replaces, or was told so already: the order itself is sound.
            if "replaces" not in payload or error.kind not in ("alreadyReplaced", "malformed", "unauthorized"):
                raise
            del payload["replaces"]
            reply = await self._post(where.new_order, account.key, payload, account.url)
        return self._location(reply), messages.order(reply.body)

    async def order(self, account: Account, url: str) -> tuple[Order, float | None]:
        """What became of an order, and after how many seconds the authority likes to be asked again."""
        reply = await self._post(url, account.key, None, account.url)
        return messages.order(reply.body), self._retry_after(reply)

    async def authorization(self, account: Account, url: str) -> tuple[Authorization, float | None]:
        reply = await self._post(url, account.key, None, account.url)
        return messages.authorization(reply.body), self._retry_after(reply)

    async def ready(self, account: Account, challenge_url: str) -> None:
        """Tell the authority that a challenge may be validated (RFC 8555 7.5.1)."""
        await self._post(challenge_url, account.key, {}, account.url)

    async def finalize(self, account: Account, url: str, request: x509.CertificateSigningRequest) -> None:
        payload = {"csr": jose.b64url(request.public_bytes(Encoding.DER))}
        await self._post(url, account.key, payload, account.url)

    async def chains(self, account: Account, url: str) -> tuple[tuple[x509.Certificate, ...], ...]:
        """The certificate with its chain, then with each other chain that the authority offers (RFC 8555 7.4.2)."""
        reply = await self._post(url, account.key, None, account.url, accept="application/pem-certificate-chain")
        found = [_certificates(reply.body)]
        for other in self._links(reply, url, "alternate")[:MAX_ALTERNATES]:
            alternate = await self._post(
                other, account.key, None, account.url, accept="application/pem-certificate-chain"
            )
            found.append(_certificates(alternate.body))
        return tuple(found)

    async def revoke(
        self,
        certificate: x509.Certificate,
        reason: int,
        *,
        account: Account | None = None,
        key: PrivateKey | None = None,
    ) -> None:
        """Revoke a certificate, as its account or by its own key alone (RFC 8555 7.6); revoked already is done."""
        payload = {"certificate": jose.b64url(certificate.public_bytes(Encoding.DER)), "reason": reason}
        where = await self.directory()
        try:
            if account is not None:
                await self._post(where.revoke, account.key, payload, account.url)
            else:
                assert key is not None
                await self._post(where.revoke, key, payload)
        except Refusal as error:
            if error.kind != "alreadyRevoked":
                raise

    async def renewal_window(self, certificate: x509.Certificate) -> RenewalWindow | None:
        """When the authority would like this certificate renewed; None when it has no such service (RFC 9773)."""
        where = await self.directory()
        identifier = renewal_identifier(certificate)
        if not where.renewal_info or not identifier:
            return None
        reply = self._good(await self._send("GET", f"{where.renewal_info.rstrip('/')}/{identifier}"))
        least, usual, most = _WINDOW_PAUSES
        asked = self._retry_after(reply)
        pause = usual if asked is None else min(max(asked, least), most)
        return messages.renewal_window(reply.body, self.clock.now() + dt.timedelta(seconds=pause))

    async def _post(
        self,
        url: str,
        key: PrivateKey,
        payload: Mapping[str, Any] | None,
        account: str = "",
        *,
        accept: str = "application/json",
    ) -> Reply:
        """One signed request, tried again with another nonce for as long as the authority asks for that."""
        headers = {"Content-Type": jose.JOSE, "Accept": accept}
        for tried in range(1, _NONCE_TRIES + 1):
            body = jose.signed(key, url, payload, nonce=await self._nonce(), account=account)
            reply = await self._send("POST", url, headers=headers, body=body)
            if reply.status != 400 or messages.problem(reply.body).kind != "badNonce" or tried == _NONCE_TRIES:
                break
        return self._good(reply)

    async def _nonce(self) -> str:
        if not self._nonces:
            where = await self.directory()
            self._good(await self._send("HEAD", where.new_nonce))
        if not self._nonces:
            raise Rejected("L'autorité a répondu hors du protocole ACME", code="acme-syntax", peer_code="Replay-Nonce")
        return self._nonces.popleft()

    async def _send(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Reply:
        """Raises ``Unavailable`` too where a cut answer did nothing: reading."""
        try:
            reply = await self.http.send(
                method, url, tls=self.tls, headers=headers, body=body, timeout=self.timeout, max_bytes=MAX_ANSWER
            )
        except OutcomeUnknown as error:
            if method == "POST":
                raise
            raise Unavailable(error.reason, code=error.code, peer_code=error.peer_code) from error
        nonce = reply.headers.get("Replay-Nonce", "")
        # RFC 8555 6.5.1: base64url; anything else is not for us to send back.
        if re.fullmatch(r"[A-Za-z0-9_-]{1,512}", nonce):
            self._nonces.append(nonce)
        return reply

    def _good(self, reply: Reply) -> Reply:
        if reply.status not in (200, 201, 202, 204):
            raise refusal(reply.status, messages.problem(reply.body), self._retry_after(reply))
        return reply

    def _retry_after(self, reply: Reply) -> float | None:
        """Seconds, from either form of the field (RFC 9110 10.2.3)."""
        value = reply.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"[0-9]{1,9}", value):
            return float(value)
        try:
            at = email.utils.parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        at = at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)
        return max(0.0, (at - self.clock.now()).total_seconds())

    def _account(self, reply: Reply, key: PrivateKey) -> Account:
        return Account(self._location(reply), key)

    @staticmethod
    def _location(reply: Reply) -> str:
        return messages.https_url(reply.headers.get("Location", ""))

    @staticmethod
    def _links(reply: Reply, base: str, relation: str) -> list[str]:
        found = [
            match[1]
            for header in reply.headers.getall("Link", [])
            for match in _LINK.finditer(header)
            if relation in match[2].split()
        ]
        return [messages.https_url(urljoin(base, url)) for url in found]


def renewal_identifier(certificate: x509.Certificate) -> str:
    """How renewal information names a certificate (RFC 9773 4.1); empty without an authority key identifier."""
    try:
        key_id = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except (x509.ExtensionNotFound, ValueError):
        return ""
    if not key_id:
        return ""
    serial = certificate.serial_number
    # DER: an integer whose first bit is set would be negative.
    octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    return f"{jose.b64url(key_id)}.{jose.b64url(octets)}"


def _certificates(body: bytes) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(body))
    except UNREADABLE as error:
        raise Rejected(
            "L'autorité a remis un certificat illisible", code="acme-syntax", peer_code="certificate"
        ) from error
