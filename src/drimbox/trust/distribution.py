"""Revocation lists fetched by the box itself: from where the authorities say, kept on disk, renewed ahead of time.

A list is taken in when one of the pinned authorities signed it, when it is complete, in force, and no older than the
one that is held; anything else changes nothing. The last good one stays, on disk too, until its ``nextUpdate``: past
it the certificates of its issuer are refused (standards.md K.4). No connection ever waits for a list.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, Misconfigured, Refused
from drimbox.trust.keystore import UNREADABLE
from drimbox.trust.revocation import SKEW, RevocationLists, parse_lists

# The lists of national authorities weigh some hundred kilobytes; a public one's may weigh ten megabytes.
MAX_LIST_BYTES = 32 * 2**20
_AT_ONCE = dt.datetime.min.replace(tzinfo=dt.UTC)
_RETRY, _LONGEST_RETRY = dt.timedelta(minutes=1), dt.timedelta(hours=1)

_log = logging.getLogger(__name__)
Fetch = Callable[[str], Awaitable[bytes]]


def addresses(certificates: Iterable[x509.Certificate]) -> tuple[str, ...]:
    """Where the lists that speak of these certificates are published (CRL distribution points, over HTTP), each once.

    Points of another issuer's or of partial lists, and LDAP, are left out.
    """
    found: dict[str, None] = {}
    for certificate in certificates:
        for name in _names(certificate):
            if name.lower().startswith(("http://", "https://")):
                found[name] = None
    return tuple(found)


def _names(certificate: x509.Certificate) -> Iterable[str]:
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return
    for point in points:
        if point.crl_issuer is None and point.reasons is None:
            yield from (str(n.value) for n in point.full_name or () if isinstance(n, x509.UniformResourceIdentifier))


@dataclass(frozen=True, slots=True)
class ListState:
    """One address: the list held from it, when it was last fetched, when it is looked at next, what went wrong since.

    ``ends_at`` is its ``nextUpdate``; ``problem`` is French, empty while all is well.
    """

    url: str
    issuer: str = ""
    issued_at: dt.datetime | None = None
    ends_at: dt.datetime | None = None
    fetched_at: dt.datetime | None = None
    due: dt.datetime = _AT_ONCE
    problem: str = ""
    failures: int = 0


@dataclass(slots=True)
class _Kept:
    state: ListState
    crl: x509.CertificateRevocationList | None = field(default=None, repr=False)


class ListKeeper:
    """Keeps the lists of some addresses.

    ``fetch`` downloads one (its limits on size and time are its own); ``authorities`` are those pinned: the only ones
    whose signature counts; ``folder`` is where lists outlive the process; a list is fetched again after ``every``, and
    in any case once three quarters of its life are over.
    """

    def __init__(
        self,
        urls: Sequence[str],
        authorities: Sequence[x509.Certificate],
        fetch: Fetch,
        clock: Clock,
        folder: Path,
        *,
        every: dt.timedelta = dt.timedelta(hours=6),
    ) -> None:
        self._authorities = tuple(authorities)
        self._fetch = fetch
        self._clock = clock
        self._folder = folder
        self._every = every
        self._kept = {url: _Kept(ListState(url)) for url in urls}
        for url in urls:
            self._recall(url)

    @property
    def lists(self) -> RevocationLists:
        """Those that are held; required as soon as there is an address."""
        return RevocationLists(tuple(k.crl for k in tuple(self._kept.values()) if k.crl is not None), bool(self._kept))

    @property
    def states(self) -> tuple[ListState, ...]:
        """For people: every address with its list."""
        return tuple(kept.state for kept in tuple(self._kept.values()))

    @property
    def next_due(self) -> dt.datetime | None:
        """When there is something to do; None without any address."""
        return min((kept.state.due for kept in tuple(self._kept.values())), default=None)

    def add(self, url: str, authority: x509.Certificate) -> None:
        """Keep the list of another address too, which this authority signs; what is on disk of it is taken up."""
        if authority not in self._authorities:
            self._authorities = (*self._authorities, authority)
        if url not in self._kept:
            self._kept[url] = _Kept(ListState(url))
            self._recall(url)

    def forget(self, url: str) -> None:
        """Keep the list of an address no more."""
        self._kept.pop(url, None)

    def held(self, url: str) -> x509.CertificateRevocationList | None:
        """The list held from an address, in force or past its end; None without one."""
        kept = self._kept.get(url)
        return kept.crl if kept is not None else None

    def path(self, url: str) -> Path:
        """Where the list of an address is kept."""
        return self._folder / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.crl"

    async def round(self, *, all_of_them: bool = False) -> bool:
        """Fetch what is due; True when a newer list was taken in. Failures are kept in ``states`` and logged."""
        changed = False
        # Another address may be added meanwhile.
        for url, kept in tuple(self._kept.items()):
            if all_of_them or kept.state.due <= self._clock.now():
                changed = await self._renew(url) or changed
        return changed

    def reread(self) -> bool:
        """Take in what another process (a command, another node on the same disk) put there; True when it is newer."""
        changed = False
        for url, kept in tuple(self._kept.items()):
            before, known = kept.crl, kept.state.fetched_at
            try:
                written = dt.datetime.fromtimestamp(self.path(url).stat().st_mtime, dt.UTC)
            except OSError:
                continue
            if known is None or written > known + dt.timedelta(seconds=1):
                self._recall(url)
                changed = changed or kept.crl != before
        return changed

    async def _renew(self, url: str) -> bool:
        kept = self._kept.get(url)
        if kept is None:
            return False
        try:
            data = await self._fetch(url)
            crl, issuer = self._judged(data)
            if kept.crl is not None and crl.last_update_utc < kept.crl.last_update_utc:
                raise Refused("liste plus ancienne que celle qui est en service", code="revocation-older")
        except DrimboxError as error:
            self._failed(kept, error)
            return False
        fresh = kept.crl is None or crl != kept.crl
        if fresh:
            self._remember(url, data)
        self._hold(kept, crl, issuer, self._clock.now())
        return fresh

    def _failed(self, kept: _Kept, error: DrimboxError) -> None:
        state = kept.state
        pause = min(_RETRY * 2 ** min(state.failures, 8), _LONGEST_RETRY)
        problem = f"{error.reason}{f' [{error.peer_code}]' if error.peer_code else ''}"
        _log.error("revocation list of %s not renewed: %s", state.url, problem)
        kept.state = _changed(state, due=self._clock.now() + pause, problem=problem, failures=state.failures + 1)

    def _hold(
        self, kept: _Kept, crl: x509.CertificateRevocationList, issuer: x509.Certificate, fetched: dt.datetime
    ) -> None:
        ends = crl.next_update_utc
        assert ends is not None
        due = min(fetched + self._every, crl.last_update_utc + (ends - crl.last_update_utc) * 3 / 4)
        if due <= fetched:
            # The authority is late: asked again in a while, not without end.
            due = fetched + min(self._every, _LONGEST_RETRY)
        kept.crl = crl
        kept.state = ListState(
            kept.state.url, issuer.subject.rfc4514_string(), crl.last_update_utc, ends, fetched, due, "", 0
        )

    def _judged(self, data: bytes) -> tuple[x509.CertificateRevocationList, x509.Certificate]:
        """The one list in ``data`` and the authority that signed it. Raises ``Refused``, ``Misconfigured``."""
        crls = parse_lists(data, "Ce qui a été reçu")
        if len(crls) != 1:
            raise Refused("plusieurs listes à une adresse", code="revocation-list")
        crl, now = crls[0], self._clock.now()
        alone = RevocationLists((crl,))
        issuer = next((authority for authority in self._authorities if alone.of(authority) is not None), None)
        if issuer is None:
            raise Refused("liste qui n'est signée par aucune autorité reconnue", code="revocation-signer")
        if crl.next_update_utc is None or crl.next_update_utc < now or crl.last_update_utc > now + SKEW:
            raise Refused("liste périmée, ou pas encore en vigueur", code="revocation-unknown")
        return crl, issuer

    def _recall(self, url: str) -> None:
        """What an earlier process kept; a file that is no good is fetched again, as if there were none."""
        path, kept = self.path(url), self._kept[url]
        try:
            data = path.read_bytes()
            crl, issuer = self._judged(data)
            if kept.crl is not None and crl.last_update_utc < kept.crl.last_update_utc:
                return
            self._hold(kept, crl, issuer, dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC))
        except FileNotFoundError:
            return
        except (OSError, Refused, Misconfigured) as error:
            _log.info("kept revocation list of %s not used: %s", url, error)

    def _remember(self, url: str, data: bytes) -> None:
        """Written whole, or not at all. A disk that refuses costs the next process a download, no more."""
        path = self.path(url)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_bytes(data)
            os.replace(draft, path)
        except OSError as error:
            _log.error("revocation list not kept on disk: %s", error.strerror)
            with contextlib.suppress(OSError):
                draft.unlink()


def _changed(state: ListState, *, due: dt.datetime, problem: str, failures: int) -> ListState:
    return ListState(state.url, state.issuer, state.issued_at, state.ends_at, state.fetched_at, due, problem, failures)
