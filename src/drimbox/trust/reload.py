"""A TLS context that is replaced while it serves: no connection is dropped, none is made to wait.

A listener is given one ``ReloadableServerContext`` for its whole life. Each new connection is wrapped by the context
presented at that moment; those that are open keep the one they began with, until they end by themselves. So a renewed
certificate, newer revocation lists or another trust are a matter of one ``present``.

With TLS-ALPN-01 (RFC 8737) the same port also answers the validation of a certificate authority: a connection whose
ClientHello offers the protocol ``acme-tls/1`` alone for a name under validation gets the answer's own context, every
other one the presented context, at the same time.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from typing import Any

from drimbox.trust import client_hello
from drimbox.trust.keystore import Credential
from drimbox.trust.tls import server_context

ACME_PROTOCOL = "acme-tls/1"


class ReloadableServerContext(ssl.SSLContext):
    """Make it with ``reloadable()``. Until something is presented, every handshake is refused."""

    _presented: ssl.SSLContext
    _answers: Mapping[str, ssl.SSLContext]

    def present(self, context: ssl.SSLContext) -> None:
        """Serve the next connections with this context (``tls.server_context``)."""
        self._presented = context

    def answer(self, contexts: Mapping[str, ssl.SSLContext]) -> None:
        """Answer validations for these host names, each with its context; for none: no connection is looked into."""
        self._answers = {name.lower(): context for name, context in contexts.items()}

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """What asyncio and uvloop call for each connection."""
        if self._answers:
            # It does all that they ask of an SSLObject.
            return _Undecided(self._presented, self._answers, incoming, outgoing)  # type: ignore[return-value]
        return self._presented.wrap_bio(incoming, outgoing, server_side=True)

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        """What listeners call whose connections have a thread each (DICOM)."""
        return self._presented.wrap_socket(sock, True, do_handshake_on_connect, suppress_ragged_eofs)


def reloadable() -> ReloadableServerContext:
    """A context that presents nothing yet."""
    context = ReloadableServerContext(ssl.PROTOCOL_TLS_SERVER)
    # Without a certificate, OpenSSL refuses every handshake with an alert.
    context._presented = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context._answers = {}
    return context


class ReloadableClientContext(ssl.SSLContext):
    """The same for a client: each new connection is wrapped by the context presented at that moment."""

    _presented: ssl.SSLContext

    def present(self, context: ssl.SSLContext) -> None:
        """Use this context (``tls.client_context``) for the next connections."""
        self._presented = context

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """What asyncio and uvloop call for each connection."""
        return self._presented.wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        """What clients call whose connections have a thread each (DICOM, SMTP)."""
        return self._presented.wrap_socket(
            sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, server_hostname, session
        )


def reloadable_client(context: ssl.SSLContext) -> ReloadableClientContext:
    """A client's context that uses ``context`` until another is presented."""
    made = ReloadableClientContext(ssl.PROTOCOL_TLS_CLIENT)
    made.present(context)
    return made


def validation_context(credential: Credential) -> ssl.SSLContext:
    """The context that answers a TLS-ALPN-01 validation with its certificate (RFC 8737 3)."""
    context = server_context(credential)
    context.set_alpn_protocols([ACME_PROTOCOL])
    return context


class _Undecided:
    """A connection whose context is chosen once its ClientHello has come in whole."""

    def __init__(
        self,
        presented: ssl.SSLContext,
        answers: Mapping[str, ssl.SSLContext],
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        self._presented, self._answers = presented, answers
        self._incoming, self._outgoing = incoming, outgoing
        self._hello = bytearray()
        self._chosen: ssl.SSLObject | None = None

    def do_handshake(self) -> None:
        if self._chosen is None:
            self._chosen = self._choose()
        self._chosen.do_handshake()

    @property
    def _decided(self) -> ssl.SSLObject:
        if self._chosen is None:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "ClientHello")
        return self._chosen

    def _choose(self) -> ssl.SSLObject:
        self._hello += self._incoming.read()
        hello = client_hello.read(self._hello)
        if hello is client_hello.INCOMPLETE:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "ClientHello")
        # OpenSSL reads it again, from its first byte.
        self._incoming.write(bytes(self._hello))
        self._hello.clear()
        context = self._presented
        if isinstance(hello, client_hello.Hello) and hello.protocols == (ACME_PROTOCOL,):
            context = self._answers.get(hello.host, self._presented)
        return context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def __getattr__(self, name: str) -> Any:
        if self._chosen is not None:
            return getattr(self._chosen, name)
        if name == "context":
            return self._presented
        if not callable(getattr(ssl.SSLObject, name, None)):
            raise AttributeError(name)
        # uvloop takes hold of methods before the handshake, and calls them after it.
        return lambda *arguments: getattr(self._decided, name)(*arguments)
