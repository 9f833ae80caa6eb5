"""Revocation of the certificates of public servers: an ACME authority, Pro Sante Connect, an SMTP relay, a webhook.

Nobody pins their authorities' lists: where a list is stands in each certificate (CRL distribution points, RFC 5280
4.2.1.13). The first connection to a server tells the address; the list is fetched beside it, never in it, kept on disk
and renewed like every other (``trust.distribution``). From then on each connection is judged by it after the handshake,
before anything is sent: a revoked certificate is refused, and so is every certificate whose list was known once and is
past its ``nextUpdate``.

Two kinds of certificate have no list and need none: one that says so (``noRevAvail``, RFC 9608), and a short-lived one,
which authorities may leave without (CA/Browser Forum, Baseline Requirements 1.6.1: ten days at most).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import datetime as dt
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.trust.distribution import Fetch, ListKeeper, ListState, addresses
from drimbox.trust.keystore import UNREADABLE
from drimbox.trust.revocation import MISSING, REVOKED, SKEW, STALE, RevocationLists

Mode = Literal["known", "required"]
"""What becomes of a certificate whose list is not known (yet): it passes, or it is refused."""

# A configuration names a handful of servers; each has two or three lists.
MOST_LISTS = 200
_LONGEST_URL = 500
SHORT_LIVED = dt.timedelta(days=10)
# A list that no certificate asked for in this time is not renewed any more.
FORGOTTEN_AFTER = dt.timedelta(days=45)
_NO_REVOCATION = "2.5.29.56"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a certificate says of its own revocation; ``exempt``: that there is none."""

    urls: tuple[str, ...]
    exempt: bool
    authority: bool
    key: bytes


@dataclass(frozen=True, slots=True)
class _Held:
    """A list as it is asked: by whom (key of the issuer), when, for which certificates, and which are revoked."""

    crl: x509.CertificateRevocationList = field(repr=False)
    issuer: bytes
    begun_at: dt.datetime
    ends_at: dt.datetime
    points: frozenset[str]
    of_authorities: bool | None
    serials: frozenset[int] = field(repr=False)


class PublicLists:
    """Judges chains of public servers. Make it once for each process; ``folder`` outlives it.

    ``fetch`` downloads a list (its limits on size and time are its own). ``asked`` is called, in whatever thread makes
    a connection, when a list that is not held was asked for.
    """

    def __init__(
        self, fetch: Fetch, clock: Clock, folder: Path, mode: Mode, *, every: dt.timedelta = dt.timedelta(hours=6)
    ) -> None:
        self._clock = clock
        self._folder = folder
        self._mode = mode
        self._keeper = ListKeeper((), (), fetch, clock, folder, every=every)
        self._held: dict[str, _Held] = {}
        # Addresses with a list in the past or now: without one in force, they refuse.
        self._known: set[str] = set()
        self._issuers: dict[str, x509.Certificate] = {}
        self._met: set[str] = set()
        self.asked: Callable[[], None] = lambda: None
        self.reread()

    @property
    def states(self) -> tuple[ListState, ...]:
        """Every list that is kept, for people."""
        return self._keeper.states

    @property
    def lenient(self) -> bool:
        """Does a certificate pass whose list was never had?"""
        return self._mode == "known"

    @property
    def next_due(self) -> dt.datetime | None:
        """When there is something to fetch."""
        return self._keeper.next_due

    def judge(self, chain: Sequence[x509.Certificate], now: dt.datetime) -> None:
        """Return when no certificate of a verified chain, up to its root, is known to be revoked.

        Raises ``Refused``: ``certificate-revoked``; ``revocation-unknown`` for a list past its date, and, where lists
        are required, for one that is missing.
        """
        unknown = None
        for certificate, issuer in pairwise(chain):
            facts = _facts(certificate)
            if not facts.exempt:
                # Every list that is lacking is asked for, before the first of them refuses.
                found = self._unknown(certificate, facts, issuer, now)
                unknown = unknown or found
        if unknown is not None:
            raise unknown

    async def round(self, *, all_of_them: bool = False) -> None:
        """Fetch what is due, and judge by it from now on."""
        self._forget()
        await self._keeper.round(all_of_them=all_of_them)
        # A list may name a hundred thousand certificates: connections go on meanwhile.
        await asyncio.to_thread(self._take_in)

    def reread(self) -> None:
        """Take in what is on the disk: of an earlier process, of a command, of another node on the same disk."""
        with contextlib.suppress(OSError):
            for path in sorted(self._folder.glob("*.json"))[:MOST_LISTS]:
                self._recall(path)
        self._keeper.reread()
        self._take_in()

    def _unknown(
        self, certificate: x509.Certificate, facts: _Facts, by: x509.Certificate, now: dt.datetime
    ) -> Refused | None:
        """Why nobody can say whether it is revoked; None where that is known, or need not be.

        Raises ``Refused`` for one that is.
        """
        known, issuer = False, _facts(by)
        for url in facts.urls:
            self._met.add(url)
            known = known or url in self._known
            held = self._held.get(url)
            if held is None or not _speaks_of(held, facts, issuer):
                continue
            if held.begun_at <= now + SKEW and now <= held.ends_at:
                if certificate.serial_number in held.serials:
                    raise Refused(REVOKED, code="certificate-revoked")
                return None
        self._ask(facts, issuer, by)
        if known:
            return Refused(STALE, code="revocation-unknown")
        return Refused(MISSING, code="revocation-unknown") if self._mode == "required" else None

    def _ask(self, facts: _Facts, issuer: _Facts, by: x509.Certificate) -> None:
        """Have the lists of a certificate fetched, from now on."""
        for url in facts.urls:
            asked = self._issuers.get(url)
            if asked is not None and _facts(asked).key == issuer.key:
                continue
            if len(url) > _LONGEST_URL or len(self._issuers) >= MOST_LISTS:
                continue
            self._follow(url, by)
            self._write(url, by)
            _log.info("revocation list of a public authority asked for: %s", url)
            self.asked()

    def _follow(self, url: str, issuer: x509.Certificate) -> None:
        self._issuers[url] = issuer
        self._keeper.add(url, issuer)
        if self._keeper.path(url).exists():
            # Even one that is no good any more was good once.
            self._known.add(url)

    def _take_in(self) -> None:
        for url in tuple(self._issuers):
            crl = self._keeper.held(url)
            kept = self._held.get(url)
            issuer = self._issuers.get(url)
            if crl is None or issuer is None or (kept is not None and kept.crl is crl):
                continue
            if RevocationLists((crl,)).of(issuer) is not None:
                self._known.add(url)
                self._held[url] = _read(crl, _facts(issuer).key)

    def _forget(self) -> None:
        """Lists of certificates that were replaced long ago; those in use are marked, once a day."""
        now = self._clock.now()
        for url in tuple(self._issuers):
            path = self._entry(url)
            try:
                age = now - dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
                if url in self._met and age > dt.timedelta(days=1):
                    os.utime(path, (now.timestamp(), now.timestamp()))
                elif age > FORGOTTEN_AFTER and url not in self._met:
                    path.unlink()
                    self._keeper.path(url).unlink(missing_ok=True)
                    self._keeper.forget(url)
                    self._known.discard(url)
                    self._held.pop(url, None)
                    self._issuers.pop(url, None)
            except OSError:
                continue
        self._met.clear()

    def _entry(self, url: str) -> Path:
        return self._keeper.path(url).with_suffix(".json")

    def _write(self, url: str, issuer: x509.Certificate) -> None:
        """Who is asked for what outlives the process. A disk that refuses costs the next one a connection, no more."""
        path = self._entry(url)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        told = {"url": url, "issuer": base64.b64encode(issuer.public_bytes(Encoding.DER)).decode()}
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_text(json.dumps(told), "ascii")
            os.replace(draft, path)
        except OSError as error:
            _log.error("address of a revocation list not kept: %s", error.strerror)
            with contextlib.suppress(OSError):
                draft.unlink()

    def _recall(self, path: Path) -> None:
        try:
            told = json.loads(path.read_bytes())
            url, issuer = str(told["url"]), x509.load_der_x509_certificate(base64.b64decode(told["issuer"]))
        except (OSError, LookupError, binascii.Error, *UNREADABLE) as error:
            _log.warning("kept address of a revocation list not used: %s", type(error).__name__)
            return
        if url not in self._issuers and self._entry(url) == path:
            self._follow(url, issuer)


def _speaks_of(held: _Held, facts: _Facts, issuer: _Facts) -> bool:
    """Is it this certificate's list: of its issuer's key, of its distribution point (RFC 5280 6.3.3 b)?"""
    if held.issuer != issuer.key or (held.points and held.points.isdisjoint(facts.urls)):
        return False
    return held.of_authorities is None or held.of_authorities == facts.authority


def _read(crl: x509.CertificateRevocationList, issuer: bytes) -> _Held:
    points: frozenset[str] = frozenset()
    of_authorities = None
    with contextlib.suppress(x509.ExtensionNotFound, *UNREADABLE):
        scope = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
        points = frozenset(
            str(name.value) for name in scope.full_name or () if isinstance(name, x509.UniformResourceIdentifier)
        )
        if scope.only_contains_ca_certs or scope.only_contains_user_certs:
            of_authorities = scope.only_contains_ca_certs
    ends = crl.next_update_utc
    assert ends is not None, "the keeper holds none without"
    serials = frozenset(entry.serial_number for entry in crl)
    return _Held(crl, issuer, crl.last_update_utc, ends, points, of_authorities, serials)


@lru_cache(512)
def _facts(certificate: x509.Certificate) -> _Facts:
    """Read once for each certificate that is met."""
    name = certificate.subject.public_bytes()
    public = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    authority, exempt = False, False
    for extension in _extensions(certificate):
        if isinstance(extension.value, x509.BasicConstraints):
            authority = extension.value.ca
        exempt = exempt or extension.oid.dotted_string == _NO_REVOCATION
    urls = tuple(url for url in addresses([certificate]) if url.lower().startswith("http://"))
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    exempt = not authority and (exempt or (not urls and life <= SHORT_LIVED))
    return _Facts(urls, exempt, authority, hashlib.sha256(name + public).digest())


def _extensions(certificate: x509.Certificate) -> Iterator[x509.Extension[x509.ExtensionType]]:
    with contextlib.suppress(*UNREADABLE):
        yield from certificate.extensions
