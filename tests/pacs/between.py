"""What stands between two peers: passes bytes on, and cuts, stalls or encrypts them."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Between:
    """A proxy on ``port``, in the way of what one side sends: after ``after`` bytes it does ``act``.

    ``act``: ``cut`` (both ends are closed), ``reset`` (as a machine that went down), ``stall`` (nothing passes any
    more). It does so ``times`` times, then lets everything pass; ``calling`` looks at what the caller sends, else at
    what is answered.
    """

    target: int
    port: int = 0
    after: int = 0
    act: str = "cut"
    times: int = 10**6
    calling: bool = False
    connections: int = 0
    acted: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _sockets: list[socket.socket] = field(default_factory=list)

    def serve(self, listener: socket.socket) -> None:
        while not self._over.is_set():
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._link, args=(caller,), daemon=True).start()

    def _link(self, caller: socket.socket) -> None:
        try:
            called = socket.create_connection(("127.0.0.1", self.target), 5)
        except OSError:
            caller.close()
            return
        self._sockets += [caller, called]
        threading.Thread(target=self._pass, args=(caller, called, self.calling), daemon=True).start()
        self._pass(called, caller, not self.calling)

    def _pass(self, source: socket.socket, sink: socket.socket, watched: bool) -> None:
        passed = 0
        with suppress(OSError):
            source.settimeout(30)
            while data := source.recv(4096):
                if watched and self.acted < self.times and passed + len(data) > self.after:
                    sink.sendall(data[: self.after - passed])
                    self.acted += 1
                    self._do(source, sink)
                    return
                sink.sendall(data)
                passed += len(data)
        self._close(source, sink)

    def _do(self, source: socket.socket, sink: socket.socket) -> None:
        if self.act == "stall":
            # Until the one who waits has had enough.
            while source.recv(4096):
                pass
        elif self.act == "reset":
            for sock in (source, sink):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close(source, sink)

    def _close(self, *socks: socket.socket) -> None:
        for sock in socks:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def end(self) -> None:
        self._over.set()
        self._close(*self._sockets)


@contextmanager
def between(target: int, port: int = 0, **how: object) -> Iterator[Between]:
    """The proxy for the time of the block."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        proxy = Between(target, int(listener.getsockname()[1]), **how)  # type: ignore[arg-type]
        threading.Thread(target=proxy.serve, args=(listener,), daemon=True).start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            proxy.end()


@asynccontextmanager
async def tls_front(target: int, tls: ssl.SSLContext) -> AsyncIterator[int]:
    """A TLS proxy before a service that has none, as sites have it; yields its port."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    links: set[asyncio.Task[None]] = set()

    def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        links.add(asyncio.create_task(linked(reader, writer)))

    async def linked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        service_reader, service_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pass_on(reader, service_writer), pass_on(service_reader, writer))

    server = await asyncio.start_server(link, "127.0.0.1", ssl=tls)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in links:
            task.cancel()
        await asyncio.gather(*links, return_exceptions=True)
