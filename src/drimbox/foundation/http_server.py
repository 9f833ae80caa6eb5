"""The one HTTP server: uvicorn under TLS, bounded; the peer's certificate is made known to the application."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

CLIENT_CERTIFICATE = "drimbox.client_certificate"
# What a request may weigh before its body (request line and fields), and how many fields it may have.
MAX_HEAD_BYTES = 128 * 2**10
MAX_HEADERS = 100
# Seconds that a client has to send a whole request: one sent byte by byte would hold its connection for ever.
REQUEST_SECONDS = 60.0
# Connections of one listener; the next ones are told 503.
MAX_CONNECTIONS = 1000
# The most that the event loops hand over at once.
_READ_BYTES = 256 * 2**10
# From here on a piece of a body is handed to the connection as it is: uvicorn would copy it between two lines.
_LARGE = 16 * 2**10
# What is encrypted before the first of it leaves: the other side deciphers meanwhile.
_SECURED = 256 * 2**10


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol with what it lacks: the client's certificate, and bounds on a request in size and time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self._peer_certificate: bytes | None = tls.getpeercert(binary_form=True) if tls is not None else None
        self._deadline: asyncio.TimerHandle | None = None
        self._expect_head()
        self._expect_end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            # Counted before it is parsed: a field without end stays in the parser, which tells no one of it.
            self._head_received += len(data)
            if self._head_received > MAX_HEAD_BYTES + _READ_BYTES:
                self.transport.abort()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._expect_head()
        self._expect_end()
        super().on_message_begin()
        self.scope["extensions"] = {CLIENT_CERTIFICATE: {"der": self._peer_certificate}}

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._expect_nothing()
        super().on_message_complete()
        self._expect_head()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, partial(_uncopied, app, cycle))

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD_BYTES or self._fields > MAX_HEADERS:
            # The parser ends, and uvicorn answers 400 and closes.
            raise ValueError("request head over its limit")

    def _expect_head(self) -> None:
        self._in_head, self._head_received, self._head_size, self._fields = True, 0, 0, 0

    def _expect_end(self) -> None:
        """From the connection, then from its first byte, a whole request must come in time."""
        self._expect_nothing()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._too_slow)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        # A body that the application leaves unread is the application's own slowness.
        if not self.flow.read_paused:
            self.transport.abort()


async def _uncopied(app: ASGIApp, cycle: RequestResponseCycle, scope: Scope, receive: Receive, send: Send) -> None:
    """Run ``app``; the large pieces of a body of unknown length leave in chunks that nobody copies."""

    secured = scope["scheme"] == "https"

    async def send_uncopied(message: Message) -> None:
        body = message.get("body", b"")
        chunked = cycle.chunked_encoding and message.get("more_body") and scope["method"] != "HEAD"
        if len(body) < _LARGE or not chunked or cycle.disconnected:
            await send(message)
            return
        if await _may_write(cycle):
            await _write_chunk(cycle, memoryview(body), _SECURED if secured else len(body))

    await app(scope, receive, send_uncopied)


async def _write_chunk(cycle: RequestResponseCycle, body: memoryview, piece: int) -> None:
    """One chunk of HTTP, at most ``piece`` bytes of it in the connection's own buffers at a time."""
    lines = (b"%x\r\n" % len(body), body[:piece]) if len(body) > piece else (b"%x\r\n" % len(body), body, b"\r\n")
    cycle.transport.writelines(lines)
    for at in range(piece, len(body), piece):
        if not await _may_write(cycle):
            return
        end = (b"\r\n",) if at + piece >= len(body) else ()
        cycle.transport.writelines((body[at : at + piece], *end))


async def _may_write(cycle: RequestResponseCycle) -> bool:
    """Wait until the client has read what was written; False once it has left."""
    if cycle.flow.write_paused and not cycle.disconnected:
        await cycle.flow.drain()
    return not cycle.disconnected


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


@dataclass(frozen=True, slots=True)
class SocketFile:
    """A unix socket to listen on, for its owner and ``group`` (none: the owner's) alone."""

    path: Path
    group: str = ""


@asynccontextmanager
async def serving(
    app: ASGIApp,
    *,
    host: str = "",
    port: int = 0,
    tls: ssl.SSLContext | None,
    keep_alive: int = 30,
    socket_file: SocketFile | None = None,
) -> AsyncIterator[int]:
    """Serve ``app`` until the block ends; yields the port (0 of a ``socket_file``) once it accepts connections.

    A request whose head is over its limits ends in 400 or a closed connection, one that does not come whole in time is
    cut. Raises ``OSError`` when the address cannot be bound. Requests in flight get 10 seconds to end.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_Protocol,
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=keep_alive,
        timeout_graceful_shutdown=10,
        limit_concurrency=MAX_CONNECTIONS,
        ssl_context_factory=(lambda _config, _default: tls) if tls is not None else None,
    )
    server = _Server(config)
    listener = _bind(host, port) if socket_file is None else _bind_file(socket_file)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        if task.done():
            task.result()
            raise OSError(f"cannot listen on {socket_file.path if socket_file else f'{host}:{port}'}")
        await asyncio.sleep(0.01)
    try:
        yield 0 if socket_file is not None else listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()
        if socket_file is not None:
            socket_file.path.unlink(missing_ok=True)


def _bind_file(file: SocketFile) -> socket.socket:
    """Raises ``OSError``: a socket that is in use, a folder or a group that is not there."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_way(file.path)
        # Nobody but the owner until the group is set.
        mask = os.umask(0o177)
        try:
            listener.bind(str(file.path))
        finally:
            os.umask(mask)
        if file.group:
            shutil.chown(file.path, group=file.group)
        file.path.chmod(0o660)
    except LookupError as error:
        listener.close()
        raise OSError(errno.EINVAL, f"no group {file.group}", str(file.path)) from error
    except OSError:
        listener.close()
        raise
    return listener


def _make_way(path: Path) -> None:
    """Take away the socket that a killed process left; never one that is answered, nor another kind of file."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(path))


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
