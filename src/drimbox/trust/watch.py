"""Keeps what the box knows of revocation up to date while it runs.

IGC-Sante's lists live for days; a box runs for months. The site (or a timer) replaces the files; ``TrustWatch``
notices, and gives the new lists to every context in use, so that neither a revoked certificate stays welcome nor an
expired list shuts the box until someone restarts it.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from drimbox.foundation.errors import Misconfigured
from drimbox.trust.chain import TrustStore
from drimbox.trust.keystore import read_certificates, read_file
from drimbox.trust.revocation import load_revocation_lists
from drimbox.trust.tls import add_revocation_lists, load_trust

_log = logging.getLogger(__name__)


class TrustWatch:
    """The trust of a running box. Raises what ``load_trust`` raises when it is made."""

    def __init__(self, roots: Sequence[Path], revocation_lists: Sequence[Path] = ()) -> None:
        self._files = tuple(revocation_lists)
        self._seen = self._digest()
        self._trust = load_trust(roots, self._files)
        self._contexts: list[ssl.SSLContext] = []
        self._beside: list[TrustWatch] = []

    @property
    def trust(self) -> TrustStore:
        """What is believed now."""
        return self._trust

    def enrol(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """Keep this context, made from ``trust``, up to date from now on; returns it."""
        add_revocation_lists(context, self._trust.revocation)
        self._contexts.append(context)
        return context

    def beside(self, roots: Sequence[Path], revocation_lists: Sequence[Path] = ()) -> TrustWatch:
        """Another trust (authorities of a site's own), kept up to date together with this one.

        Without lists of its own it takes those of this one, where these authorities are all among its own: a list that
        is lacking would refuse every certificate. Raises what ``load_trust`` raises.
        """
        pinned = {certificate for path in roots for certificate in read_certificates(path)}
        shared = self._files if pinned <= set(self._trust.roots) else ()
        other = TrustWatch(roots, revocation_lists or shared)
        self._beside.append(other)
        return other

    def refresh(self) -> bool:
        """Take in the lists whose files changed; True when there were any. Call it every few minutes.

        Raises ``Misconfigured`` (``credential``, ``revocation-list``) when a file cannot be read; what was known
        before is kept, and the next call tries again. The others take in theirs all the same.
        """
        changed, problem = False, None
        for each in (self, *self._beside):
            try:
                changed = each._refresh() or changed
            except Misconfigured as error:
                problem = problem or error
        if problem is not None:
            raise problem
        return changed

    def _refresh(self) -> bool:
        digest = self._digest()
        if digest == self._seen:
            return False
        lists = self._trust.revocation.newest(load_revocation_lists(self._files))
        for context in self._contexts:
            add_revocation_lists(context, lists)
        self._trust = replace(self._trust, revocation=lists)
        self._seen = digest
        _log.info("revocation lists taken in: %d", len(lists.lists))
        return True

    def _digest(self) -> bytes:
        digest = hashlib.sha256()
        for path in self._files:
            digest.update(hashlib.sha256(read_file(path)).digest())
        return digest.digest()
