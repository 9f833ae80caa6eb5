"""Keeps what the box knows of revocation up to date while it runs.

IGC-Sante's lists live for days; a box runs for months. The box fetches them (``trust.distribution``), or the site
replaces files by its own means; ``TrustWatch`` gives the new lists to every context in use, so that neither a revoked
certificate stays welcome nor an expired list shuts the box until someone restarts it.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from drimbox.foundation.errors import Misconfigured
from drimbox.trust.chain import TrustStore
from drimbox.trust.keystore import read_certificates, read_file
from drimbox.trust.revocation import RevocationLists, load_revocation_lists
from drimbox.trust.tls import add_revocation_lists, load_trust

_log = logging.getLogger(__name__)


class TrustWatch:
    """The trust of a running box; ``fetched`` are lists known besides the files.

    Raises what ``load_trust`` raises when it is made.
    """

    def __init__(
        self, roots: Sequence[Path], revocation_lists: Sequence[Path] = (), fetched: RevocationLists | None = None
    ) -> None:
        self._files = tuple(revocation_lists)
        self._seen = self._digest()
        self._trust = load_trust(roots, self._files, fetched)
        # Those in use: one that nobody holds any more is forgotten.
        self._contexts: weakref.WeakSet[ssl.SSLContext] = weakref.WeakSet()
        self._beside: list[TrustWatch] = []
        # Those beside whose lists are ours.
        self._sharing: list[TrustWatch] = []

    @property
    def trust(self) -> TrustStore:
        """What is believed now."""
        return self._trust

    def enrol(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """Keep this context, made from ``trust``, up to date from now on; returns it."""
        add_revocation_lists(context, self._trust.revocation)
        self._contexts.add(context)
        return context

    def beside(self, roots: Sequence[Path], revocation_lists: Sequence[Path] = ()) -> TrustWatch:
        """Another trust (authorities of a site's own), kept up to date together with this one.

        Without lists of its own it takes those of this one, where these authorities are all among its own: a list that
        is lacking would refuse every certificate. Raises what ``load_trust`` raises.
        """
        pinned = {certificate for path in roots for certificate in read_certificates(path)}
        sharing = not revocation_lists and pinned <= set(self._trust.roots)
        if sharing:
            other = TrustWatch(roots, self._files, self._trust.revocation)
            self._sharing.append(other)
        else:
            other = TrustWatch(roots, revocation_lists)
        self._beside.append(other)
        return other

    def take_in(self, lists: RevocationLists) -> None:
        """Judge the next connections by these lists too; of two of one issuer, the newer holds."""
        self._judge_by(self._trust.revocation.newest(lists))
        for other in self._sharing:
            other.take_in(lists)

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
        self._judge_by(lists)
        self._seen = digest
        _log.info("revocation lists taken in: %d", len(lists.lists))
        return True

    def _judge_by(self, lists: RevocationLists) -> None:
        for authority in self._trust.roots:
            # Verified and read here, not by the first connection that asks.
            lists.of(authority)
        for context in tuple(self._contexts):
            add_revocation_lists(context, lists)
        self._trust = replace(self._trust, revocation=lists)

    def _digest(self) -> bytes:
        digest = hashlib.sha256()
        for path in self._files:
            digest.update(hashlib.sha256(read_file(path)).digest())
        return digest.digest()
