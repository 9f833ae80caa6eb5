"""Services that listen while they are fuzzed: an event loop in a thread of its own, raw connections to what it runs."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from drimbox.store import database, embedded
from fuzz.target import Broken, pieces

T = TypeVar("T")
_LINGERING = 6
"""Connections that hostile peers leave open; a good one must be served beside them."""
PATIENCE = 30.0
START = 240.0


class Stage:
    """Runs coroutines on the loop of another thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="fuzzed-service", daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T], patience: float = 60.0) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(patience)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        # One that is held up by other work of the machine ends with this process; what went wrong before is told.
        if not self._thread.is_alive():
            self.loop.close()


@contextmanager
def running(service: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[tuple[T, Stage]]:
    """A service, started and ended on a loop of its own."""
    stage = Stage()
    ended: asyncio.Event = asyncio.Event()
    ready: asyncio.Future[T] = stage.loop.create_future()

    async def live() -> None:
        try:
            async with service() as given:
                ready.set_result(given)
                await ended.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    async def awaited() -> T:
        return await ready

    life = asyncio.run_coroutine_threadsafe(live(), stage.loop)
    try:
        yield stage.do(awaited(), START), stage
    finally:
        stage.loop.call_soon_threadsafe(ended.set)
        with suppress(Exception):
            life.result(30)
        stage.close()


@asynccontextmanager
async def pool() -> AsyncIterator[database.Pool]:
    """A pool on a fresh database of the newest schema, in a PostgreSQL of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="drimbox-fuzz-pg-", ignore_cleanup_errors=True) as folder,
        embedded.running(Path(folder) / "data") as dsn,
    ):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE fuzz")
        named = dsn.replace("/postgres?", "/fuzz?", 1)
        await asyncio.to_thread(database.migrate, named)
        async with database.opened(named, size=4) as opened:
            yield opened


class Door:
    """Connections to a service on this machine."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._tls = tls
        self._left: deque[socket.socket] = deque()

    def connect(self) -> socket.socket:
        """Raises ``Broken`` when the service takes no connection."""
        try:
            sock = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
            return self._tls.wrap_socket(sock, server_hostname="localhost") if self._tls else sock
        except OSError as error:
            raise Broken(f"the service takes no connection any more: {type(error).__name__}") from error

    def throw(self, data: bytes, *, leave_open: bool, first: int = 0) -> bytes:
        """Send hostile bytes in pieces; what comes back, until the service closes or is silent.

        ``first`` bytes are sent alone, and an answer to them awaited for a short while.
        """
        sock = self.connect()
        answer = b""
        try:
            if 0 < first < len(data):
                sock.sendall(data[:first])
                sock.settimeout(0.3)
                with suppress(TimeoutError):
                    answer += sock.recv(65536)
                sock.settimeout(PATIENCE)
            for piece in pieces(data[first:] if 0 < first < len(data) else data):
                sock.sendall(piece)
            if not leave_open and self._tls is None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
            # Half of a TLS connection cannot be closed: its silence ends it.
            sock.settimeout(PATIENCE if not leave_open and self._tls is None else 0.1)
            while more := sock.recv(65536):
                answer += more
        except TimeoutError:
            if not leave_open and self._tls is None:
                raise Broken("the service neither answers nor closes") from None
        except OSError:
            pass
        if leave_open:
            self._left.append(sock)
            while len(self._left) > _LINGERING:
                self._left.popleft().close()
        else:
            sock.close()
        return answer

    def ask(self, data: bytes) -> bytes:
        """Send good bytes; what comes back until the service closes. Raises ``Broken`` when it does not."""
        with self.connect() as sock:
            answer = b""
            try:
                sock.sendall(data)
                while more := sock.recv(65536):
                    answer += more
            except TimeoutError:
                raise Broken("a good peer is not answered any more") from None
            except OSError:
                raise Broken("a good peer is hung up on") from None
            return answer

    def close(self) -> None:
        while self._left:
            self._left.popleft().close()


def exactly(sock: socket.socket, count: int) -> bytes:
    """So many bytes. Raises ``Broken`` when they do not come."""
    data = b""
    while len(data) < count:
        try:
            more = sock.recv(count - len(data))
        except TimeoutError:
            raise Broken("a good peer is not answered any more") from None
        if not more:
            raise Broken("a good peer is hung up on")
        data += more
    return data
