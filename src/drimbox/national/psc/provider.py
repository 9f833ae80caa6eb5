"""What PSC publishes of itself: the wallet discovery document and the signing keys, fetched and remembered.

PSC's document is ``wallet-openid-configuration``, not the usual ``openid-configuration`` (standards.md F.1).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Misconfigured
from drimbox.national.psc.answers import Document, text
from drimbox.national.psc.jwt import SigningKey, refused, signing_keys
from drimbox.national.psc.sharing import Shared

LIFE = 3600.0
# A token with an unknown key makes us fetch the keys again, but a flood of them must not make us flood PSC.
KEYS_AGAIN = 30.0

Fetch = Callable[[str], Awaitable[Document]]


@dataclass(frozen=True, slots=True)
class Metadata:
    """The discovery document, its addresses all https. An endpoint that PSC does not offer is empty.

    ``names_itself``: every answer that a browser brings back says whose it is (``iss``, RFC 9207).
    """

    issuer: str
    authorization: str
    token: str
    keys: str
    userinfo: str
    introspection: str
    revocation: str
    logout: str
    backchannel: str = ""
    names_itself: bool = False


def read_metadata(content: Document, discovery_url: str, *, mutual_tls: bool) -> Metadata:
    """Read a discovery document; with ``mutual_tls``, the addresses of RFC 8705 5 come first.

    Raises ``Misconfigured`` (``psc-discovery``) when its issuer is not the one it was fetched from (OpenID Connect
    Discovery 4.3) or an address is not https: whoever wrote it, tokens must not be sent there.
    """
    issuer = text(content, "issuer")
    if not issuer or discovery_url.partition("/.well-known/")[0] != issuer.rstrip("/"):
        raise _bad("le document ne vient pas de l'émetteur qu'il annonce")
    aliases = content.get("mtls_endpoint_aliases") if mutual_tls else None
    named = aliases if isinstance(aliases, dict) else {}

    def address(name: str, *, needed: bool = False) -> str:
        value = text(named, name) or text(content, name)
        if not value and not needed:
            return ""
        parts = urlsplit(value)
        if parts.scheme != "https" or not parts.hostname or parts.username is not None:
            raise _bad(f"{name} n'est pas une adresse https")
        return value

    return Metadata(
        issuer=issuer,
        authorization=address("authorization_endpoint", needed=True),
        token=address("token_endpoint", needed=True),
        keys=address("jwks_uri", needed=True),
        userinfo=address("userinfo_endpoint"),
        introspection=address("introspection_endpoint"),
        revocation=address("revocation_endpoint"),
        logout=address("end_session_endpoint"),
        backchannel=address("backchannel_authentication_endpoint"),
        names_itself=content.get("authorization_response_iss_parameter_supported") is True,
    )


class Provider:
    """Remembers PSC's document and keys for an hour; ``fetch`` gets a JSON document."""

    def __init__(self, fetch: Fetch, discovery_url: str, clock: Clock, *, mutual_tls: bool) -> None:
        self._fetch = fetch
        self._discovery_url = discovery_url
        self._clock = clock
        self._mutual_tls = mutual_tls
        self._fetching = Shared[None]()
        self._metadata: Metadata | None = None
        self._metadata_at = 0.0
        self._keys: dict[str, SigningKey] = {}
        self._keys_at: float | None = None

    async def metadata(self) -> Metadata:
        """The discovery document. Raises ``Misconfigured`` (``psc-discovery``), and what ``fetch`` raises."""
        if self._metadata is None or self._clock.monotonic() - self._metadata_at >= LIFE:
            await self._fetching.join("metadata", self._load_metadata)
        assert self._metadata is not None
        return self._metadata

    async def key(self, kid: str) -> SigningKey:
        """The signing key of that name, fetched again when it is not known yet.

        Raises ``Refused`` (``psc-jwt``) for a key that PSC does not publish, and what ``metadata`` raises.
        """
        age = None if self._keys_at is None else self._clock.monotonic() - self._keys_at
        if age is None or age >= LIFE or (kid not in self._keys and age >= KEYS_AGAIN):
            await self._fetching.join("keys", self._load_keys)
        found = self._keys.get(kid)
        if found is None:
            raise refused("clé de signature inconnue")
        return found

    async def _load_metadata(self) -> None:
        now = self._clock.monotonic()
        content = await self._fetch(self._discovery_url)
        self._metadata = read_metadata(content, self._discovery_url, mutual_tls=self._mutual_tls)
        self._metadata_at = now

    async def _load_keys(self) -> None:
        address = (await self.metadata()).keys
        self._keys = signing_keys(await self._fetch(address))
        self._keys_at = self._clock.monotonic()


def offered(address: str, what: str) -> str:
    """An endpoint's address. Raises ``Misconfigured`` (``psc-discovery``) when PSC does not offer it."""
    if not address:
        raise _bad(f"{what} n'y est pas offert")
    return address


def _bad(what: str) -> Misconfigured:
    return Misconfigured(
        f"Document de découverte de Pro Santé Connect refusé : {what}. Vérifiez psc.discovery", code="psc-discovery"
    )
