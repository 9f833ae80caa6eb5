"""The bulk receiver: a Storage SCP that writes what a peer stores, as it comes, to files (PS3.4 Annex B).

One thread per association, constant memory: a received PDU is written to the file from the receive buffer itself. What
may land, and where, is decided by a ``StoreHandler``; this module knows the protocol, not the reason.
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from drimbox.foundation.errors import Misconfigured
from drimbox.pacs.dimse.session import ReceiverSettings, Session
from drimbox.pacs.dimse.storage import StoreHandler

_log = logging.getLogger(__name__)
# Seconds without looking for connections after one that could not be accepted.
_BREATH = 0.2

__all__ = ["ReceiverSettings", "StorageReceiver", "receiving"]


class StorageReceiver:
    """Listens for associations until it is stopped."""

    def __init__(self, settings: ReceiverSettings, handler: StoreHandler, *, tls: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._handler = handler
        self._tls = tls
        self._lock = threading.Lock()
        self._sessions: set[Session] = set()
        self._listener = _listener(settings)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, name="dicom-receiver", daemon=True)
        self._stopping = False

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        return int(self._listener.getsockname()[1])

    @property
    def associations(self) -> int:
        """Associations open now."""
        with self._lock:
            return sum(session.established for session in self._sessions)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and break every association; returns when all is quiet."""
        self._stopping = True
        self._woken.send(b"x")
        self._thread.join()
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.interrupt()
        for session in sessions:
            session.join()
        for sock in (self._listener, self._wake, self._woken):
            sock.close()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while not self._stopping:
                selector.select()
                try:
                    self._begin(self._listener.accept()[0])
                except BlockingIOError:
                    pass
                except (OSError, RuntimeError) as error:
                    # No file or thread is left for now, or the peer has gone already: the next one may have more luck.
                    _log.error("DICOM connection not accepted: %s", error)
                    selector.unregister(self._listener)
                    selector.select(_BREATH)
                    selector.register(self._listener, selectors.EVENT_READ)

    def _begin(self, sock: socket.socket) -> None:
        with self._lock:
            # A few more than may associate: who comes too late is told so in an A-ASSOCIATE-RJ, the others are cut.
            if self._stopping or len(self._sessions) >= self._settings.max_associations + 8:
                sock.close()
                return
            session = Session(
                self._settings, self._handler, sock, self._tls, has_room=self._has_room, ended=self._ended
            )
            self._sessions.add(session)
        try:
            session.start()
        except RuntimeError:
            self._ended(session)
            sock.close()
            raise

    def _has_room(self) -> bool:
        return self.associations < self._settings.max_associations

    def _ended(self, session: Session) -> None:
        with self._lock:
            self._sessions.discard(session)


@contextmanager
def receiving(
    settings: ReceiverSettings, handler: StoreHandler, *, tls: ssl.SSLContext | None = None
) -> Iterator[StorageReceiver]:
    """A receiver that listens for the time of the block. Raises ``Misconfigured`` where its port cannot be had."""
    receiver = StorageReceiver(settings, handler, tls=tls)
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()


def _listener(settings: ReceiverSettings) -> socket.socket:
    try:
        listener = socket.create_server((settings.host, settings.port), backlog=64)
    except OSError as error:
        raise Misconfigured(
            f"Le port DICOM {settings.host}:{settings.port} ne peut pas être ouvert ({error.strerror}).",
            code="dicom-port",
        ) from error
    listener.setblocking(False)
    return listener
