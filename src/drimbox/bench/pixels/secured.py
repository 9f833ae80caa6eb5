"""TLS for the measuring client: large reads, deciphered from memory.

An ``ssl.SSLSocket`` asks the kernel twice for each record of 16 KiB: the client would be what is measured.
"""

from __future__ import annotations

import socket
import ssl
from types import TracebackType

_RECORD = 1 << 14


class Secured:
    """A TLS connection of a client, over a socket that stands. Raises what the handshake raises."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, host: str, buffer: int) -> None:
        self._plain = plain
        self._received = memoryview(bytearray(buffer))
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ended = False
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        try:
            self._shake_hands()
        except BaseException:
            plain.close()
            raise

    def sendall(self, data: bytes) -> None:
        """Everything, encrypted."""
        self._tls.write(data)
        self._flush()

    def recv_into(self, buffer: memoryview) -> int:
        """What has come, as much as there is room for; 0 at the end."""
        filled = self._deciphered(buffer)
        while not filled and not self._ended and self._receive():
            filled = self._deciphered(buffer)
        return filled

    def __enter__(self) -> Secured:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._plain.close()

    def _deciphered(self, buffer: memoryview) -> int:
        filled = 0
        try:
            while filled < len(buffer) and not self._ended:
                # With a buffer to read into, a number.
                got = int(self._tls.read(_RECORD, buffer[filled:]))
                self._ended = got == 0
                filled += got
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._ended = True
        return filled

    def _receive(self) -> bool:
        got = self._plain.recv_into(self._received)
        if got:
            self._incoming.write(self._received[:got])
        return got > 0

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                if not self._receive():
                    self._incoming.write_eof()
            else:
                self._flush()
                return

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._plain.sendall(data)
