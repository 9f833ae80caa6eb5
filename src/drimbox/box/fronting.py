"""The listeners for HTTPS, each by one of two ways: the box ends TLS itself, or a reverse proxy before it does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from cryptography import x509
from cryptography.x509.oid import NameOID
from starlette.types import ASGIApp, Scope

from drimbox.box.keys import listener_context
from drimbox.box.settings.common import ProxySection, TlsServer
from drimbox.foundation.clock import Clock
from drimbox.foundation.http_proxy import BehindProxy
from drimbox.foundation.http_server import CLIENT_CERTIFICATE, SocketFile, serving
from drimbox.keyring.keeper import Keyring
from drimbox.trust import names
from drimbox.trust.chain import TrustStore, verify_client
from drimbox.trust.watch import TrustWatch

# Seconds that a certificate which was judged good is not judged again; newer lists end it at once.
_REMEMBERED = 60.0
_MOST = 1000


@asynccontextmanager
async def served(
    app: ASGIApp,
    section: TlsServer,
    trust: TrustWatch,
    clock: Clock,
    keyring: Keyring,
    place: str,
    *,
    client_certificates: bool = False,
) -> AsyncIterator[None]:
    """Serve ``app`` as its section says until the block ends. Raises ``Misconfigured``, ``OSError``.

    ``place`` names the pair of the listener in the ``keyring``. ``client_certificates``: every client must prove one of
    ``trust``; without it, none is asked for (browsers).
    """
    if section.proxy is not None:
        judge = ClientJudge(lambda: trust.trust, clock).judge if client_certificates else None
        async with behind(app, section.proxy, trust, keyring, place, (section.host, section.port), judge):
            yield
        return
    tls = listener_context(keyring, place, trust if client_certificates else None)
    async with serving(app, host=section.host, port=section.port, tls=tls):
        yield


@asynccontextmanager
async def behind(
    app: ASGIApp,
    proxy: ProxySection,
    trust: TrustWatch,
    keyring: Keyring,
    place: str,
    address: tuple[str, int],
    judge: Callable[[bytes], None] | None = None,
) -> AsyncIterator[None]:
    """Serve ``app`` to a proxy alone: by its socket, else at ``address`` over TLS. Raises as ``served``."""
    if proxy.socket is not None:
        fronted = BehindProxy(app, is_proxy=lambda _scope: True, judge=judge)
        file = SocketFile(proxy.socket, proxy.group)
        async with serving(fronted, tls=None, socket_file=file):
            yield
        return
    theirs = trust.beside(proxy.roots)
    tls = listener_context(keyring, place, theirs)
    fronted = BehindProxy(app, is_proxy=known_proxy(proxy), judge=judge)
    async with serving(fronted, host=address[0], port=address[1], tls=tls):
        yield


def known_proxy(proxy: ProxySection) -> Callable[[Scope], bool]:
    """Is it one of the proxies of the configuration, by its address and by the certificate that it proved to us?"""
    addresses, allowed = frozenset(proxy.addresses), frozenset(name.lower() for name in proxy.names)

    def known(scope: Scope) -> bool:
        client, der = scope.get("client"), scope.get("extensions", {}).get(CLIENT_CERTIFICATE, {}).get("der")
        if client is None or client[0] not in addresses or der is None:
            return False
        return not allowed.isdisjoint(_names(der))

    return known


def _names(der: bytes) -> frozenset[str]:
    """The DNS names of a certificate, else its CN."""
    certificate = names.read_certificate(der)
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = alternatives.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        found = []
    common = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return frozenset(name.lower() for name in found or common)


class ClientJudge:
    """Judges the certificates that clients proved to a proxy, by our own trust: the proxy's lists may be older."""

    def __init__(self, trust: Callable[[], TrustStore], clock: Clock) -> None:
        self._trust = trust
        self._clock = clock
        self._by = trust()
        self._good: dict[bytes, float] = {}

    def judge(self, der: bytes) -> None:
        """Raises ``Refused`` as ``trust.chain.verify_client``."""
        trust, now = self._trust(), self._clock.monotonic()
        if trust is not self._by or len(self._good) >= _MOST:
            self._by, self._good = trust, {}
        if now - self._good.get(der, -_REMEMBERED) < _REMEMBERED:
            return
        verify_client(names.read_certificate(der), trust=trust, now=self._clock.now())
        self._good[der] = now
