"""Moves the bytes between a socket and the protocol machine: blocking, one thread reads, any thread may ask.

Against the 40 ms stall of a peer that leaves Nagle's algorithm on: no Nagle on our side, every PDU in one send, and a
quick acknowledgement asked for again after each receive, because the kernel forgets it.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from drimbox.pacs.dimse.machine import Indication, UpperLayer
from drimbox.pacs.dimse.transitions import State

_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_LEAST_BUFFER = 1 << 20
# Buffers that one call takes (IOV_MAX).
_MOST_PIECES = 1024


class Connection:
    """A transport connection with its protocol machine; times are in seconds."""

    def __init__(self, sock: socket.socket, machine: UpperLayer, *, artim: float, send_timeout: float) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._machine = machine
        self._artim = artim
        self._artim_since: float | None = None
        self._send_timeout = send_timeout
        self._lock = threading.Lock()
        self._tls = _Tls(sock) if isinstance(sock, ssl.SSLSocket) else None
        self._buffer = memoryview(bytearray(max(_LEAST_BUFFER, 2 * machine.longest_pdu)))
        self._filled = 0
        self._read = 0
        self.bytes_received = 0

    @property
    def finished(self) -> bool:
        """Is there nothing to wait for any more? (Sta1)"""
        return self._machine.state is State.Sta1

    @property
    def established(self) -> bool:
        """Can data still be exchanged? (Sta6)"""
        return self._machine.state is State.Sta6

    @property
    def awaits_association(self) -> bool:
        """Does the peer still wait for our answer to its A-ASSOCIATE-RQ? (Sta3)"""
        return self._machine.state is State.Sta3

    @property
    def awaits_release(self) -> bool:
        """Does the peer still wait for our answer to its A-RELEASE-RQ? (Sta8, and Sta9 and Sta12 in a collision)"""
        return self._machine.state in (State.Sta8, State.Sta9, State.Sta12)

    def ask(self, request: Callable[[UpperLayer], object]) -> None:
        """Let the machine do something, and send what comes of it. Raises ``WrongState``; a break is found later."""
        with self._lock:
            request(self._machine)
            self._settle()

    def receive(self, timeout: float) -> list[Indication]:
        """What the next bytes mean; views in it are good until the next call.

        Raises ``TimeoutError`` when nothing came for ``timeout`` seconds. A connection that breaks is an indication,
        not an error.
        """
        self._compact()
        try:
            count = self._receive(self._buffer[self._filled :], self._patience(timeout))
        except TimeoutError:
            if not self._artim_over():
                raise
            with self._lock:
                self._machine.artim_expired()
                return self._settle()
        except OSError:
            count = 0
        with self._lock:
            if count == 0:
                self._machine.transport_closed()
                self._close()
            else:
                self._quick_ack()
                self.bytes_received += count
                self._filled += count
                self._read = self._machine.receive(self._buffer[: self._filled])
            return self._settle()

    def interrupt(self) -> None:
        """Break the connection from another thread: a pending ``receive`` ends."""
        break_off(self._socket)

    def close(self) -> None:
        """Let go of the socket, whatever the state."""
        with self._lock:
            self._machine.transport_closed()
            self._close()

    def _receive(self, into: memoryview, timeout: float) -> int:
        if self._tls is not None:
            return self._tls.receive(into, timeout)
        self._socket.settimeout(timeout)
        return self._socket.recv_into(into)

    def _compact(self) -> None:
        # Not before: the indications of the last receive pointed into what is thrown away here.
        rest = self._filled - self._read
        if self._read and rest:
            self._buffer[:rest] = self._buffer[self._read : self._filled]
        self._filled, self._read = rest, 0

    def _quick_ack(self) -> None:
        if _QUICK_ACK is not None:
            with suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)

    def _patience(self, timeout: float) -> float:
        if self._artim_since is None:
            return max(timeout, 0.001)
        return max(min(timeout, self._artim_since + self._artim - time.monotonic()), 0.001)

    def _artim_over(self) -> bool:
        return self._artim_since is not None and time.monotonic() >= self._artim_since + self._artim

    def _settle(self) -> list[Indication]:
        machine = self._machine
        output, machine.output = machine.output, []
        if output:
            try:
                self._send(output)
            except OSError:
                machine.transport_closed()
                self._close()
        if machine.closing:
            self._close()
        if not machine.artim_running:
            self._artim_since = None
        elif self._artim_since is None:
            self._artim_since = time.monotonic()
        indications, machine.indications = machine.indications, []
        return indications

    def _send(self, output: list[bytes | memoryview]) -> None:
        if self._tls is not None:
            self._tls.send(output[0] if len(output) == 1 else b"".join(output), self._send_timeout)
            return
        self._socket.settimeout(self._send_timeout)
        if len(output) == 1:
            self._socket.sendall(output[0])
            return
        for start in range(0, len(output), _MOST_PIECES):
            _send_pieces(self._socket, output[start : start + _MOST_PIECES])

    def _close(self) -> None:
        with suppress(OSError):
            self._socket.close()


class _Tls:
    """Receives and sends over TLS from two threads: OpenSSL lets only one at a time at a connection.

    Neither keeps the other out while it waits for the network.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._lock = threading.Lock()

    def receive(self, into: memoryview, timeout: float) -> int:
        return self._done(lambda: self._socket.recv_into(into), timeout)

    def send(self, data: bytes | memoryview, timeout: float) -> None:
        left = memoryview(data)
        while left:
            sent = self._done(lambda: self._socket.send(left), timeout)  # noqa: B023 - called at once
            left = left[sent:]

    def _done(self, work: Callable[[], int], timeout: float) -> int:
        """What it gives once the network lets it be done. Raises ``TimeoutError``, and ``OSError`` when it breaks."""
        end = time.monotonic() + timeout
        while True:
            with self._lock:
                try:
                    return work()
                except ssl.SSLWantReadError:
                    awaited = select.POLLIN
                except ssl.SSLWantWriteError:
                    awaited = select.POLLOUT
            self._wait(awaited, end - time.monotonic())

    def _wait(self, awaited: int, timeout: float) -> None:
        if (descriptor := self._socket.fileno()) < 0:
            raise ConnectionAbortedError("closed meanwhile")
        poll = select.poll()
        poll.register(descriptor, awaited)
        if timeout <= 0 or not poll.poll(timeout * 1000):
            raise TimeoutError


def break_off(sock: socket.socket) -> None:
    """End a connection that another thread waits for; what it waits for ends."""
    with suppress(OSError):
        # Not the method of an SSLSocket, which takes the TLS away under the other thread.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _send_pieces(sock: socket.socket, pieces: list[bytes | memoryview]) -> None:
    """All of the pieces in one call of the kernel, or in as many as it takes."""
    left = sum(map(len, pieces))
    while sent := sock.sendmsg(pieces):
        left -= sent
        if not left:
            return
        while sent >= len(pieces[0]):
            sent -= len(pieces.pop(0))
        pieces[0] = memoryview(pieces[0])[sent:]
    raise BrokenPipeError("nothing sent")
