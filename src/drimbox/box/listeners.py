"""TLS of the listeners for the site's own machines (RIS, PACS): our certificate, and theirs where it is asked for."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Protocol

from drimbox.box.keys import listener_context
from drimbox.box.settings.common import KeyPair
from drimbox.keyring.keeper import Keyring
from drimbox.trust.watch import TrustWatch


class Listener(Protocol):
    """The settings of such a listener."""

    @property
    def tls(self) -> KeyPair | None: ...
    @property
    def client_roots(self) -> tuple[Path, ...]: ...
    @property
    def client_revocation_lists(self) -> tuple[Path, ...]: ...


def listener_tls(listener: Listener, trust: TrustWatch, keyring: Keyring, place: str) -> ssl.SSLContext | None:
    """None for a listener in clear. Its pair is at ``place`` in the ``keyring``.

    A new pair and newer revocation lists are taken in while it serves. Raises ``Misconfigured``.
    """
    if listener.tls is None:
        return None
    theirs = trust.beside(listener.client_roots, listener.client_revocation_lists) if listener.client_roots else None
    return listener_context(keyring, place, theirs)
