"""TLS of the listeners for the site's own machines (RIS, PACS): our certificate, and theirs where it is asked for."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Protocol

from drimbox.box.services import credential
from drimbox.box.settings.common import KeyPair
from drimbox.trust.tls import server_context
from drimbox.trust.watch import TrustWatch


class Listener(Protocol):
    """The settings of such a listener."""

    @property
    def tls(self) -> KeyPair | None: ...
    @property
    def client_roots(self) -> tuple[Path, ...]: ...
    @property
    def client_revocation_lists(self) -> tuple[Path, ...]: ...


def listener_tls(listener: Listener, trust: TrustWatch) -> ssl.SSLContext | None:
    """None for a listener in clear; revocation lists are taken in as they are renewed. Raises ``Misconfigured``."""
    if listener.tls is None:
        return None
    if not listener.client_roots:
        return server_context(credential(listener.tls))
    theirs = trust.beside(listener.client_roots, listener.client_revocation_lists)
    return theirs.enrol(server_context(credential(listener.tls), theirs.trust))
