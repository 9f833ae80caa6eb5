"""The one HTTP server: uvicorn under TLS, the peer's certificate made known to the application."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CLIENT_CERTIFICATE = "drimbox.client_certificate"


class _PeerAwareProtocol(HttpToolsProtocol):
    """Puts the TLS client certificate (DER) into each request's scope; uvicorn itself drops it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self._peer_certificate: bytes | None = tls.getpeercert(binary_form=True) if tls is not None else None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CLIENT_CERTIFICATE: {"der": self._peer_certificate}}


def client_certificate(connection: HTTPConnection) -> bytes | None:
    """The DER certificate that the peer proved in the TLS handshake, None without one."""
    extension: dict[str, Any] = connection.scope.get("extensions", {}).get(CLIENT_CERTIFICATE, {})
    der: bytes | None = extension.get("der")
    return der


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the process that runs several of them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(
    app: ASGIApp, *, host: str, port: int, tls: ssl.SSLContext | None, keep_alive: int = 30
) -> AsyncIterator[int]:
    """Serve ``app`` until the block ends; yields the port once it accepts connections.

    Raises ``OSError`` when the address cannot be bound. Requests in flight get 10 seconds to end.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_PeerAwareProtocol,
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=keep_alive,
        timeout_graceful_shutdown=10,
        ssl_context_factory=(lambda _config, _default: tls) if tls is not None else None,
    )
    server = _Server(config)
    listener = _bind(host, port)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        if task.done():
            task.result()
            raise OSError(f"cannot listen on {host}:{port}")
        await asyncio.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's delay off only then: an answer would wait 40 ms for its body.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(False)
    return listener
