"""The pair in service at each place. A new one takes over without a restart; one that does not fit is refused.

A place has up to two pairs: that of its files (or token) and one installed in the box itself. Of those that fit, the
one issued last is in service: whoever brings a renewed pair, by either way, is served with it, on every node and after
every restart, and nothing has to be remembered. When none fits, the one in service stays.

Two files of a pair are not replaced at the same instant: what changed is read once it has stopped changing.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, Misconfigured, Unavailable
from drimbox.keyring.places import Place
from drimbox.keyring.records import Installed
from drimbox.trust.fitness import breaches_of, fitting
from drimbox.trust.keystore import Credential, matches, strong_key
from drimbox.trust.token import Tokens
from drimbox.trust.vault import Vault

Origin = Literal["file", "installed"]
Follower = Callable[[Credential], Callable[[], None]]
"""Makes ready for a pair, which may raise ``Misconfigured``; what it gives back puts it to use, and does not."""

_log = logging.getLogger(__name__)
# What a pair depends on besides itself - dates, revocation, roots - is looked at again this often.
_JUDGED_EVERY = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pair that was brought to a place: read, or not, and why it cannot be used (empty: it can)."""

    origin: Origin
    credential: Credential | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a place stands. ``pair`` is in service (None: nothing fits, and ``problem`` says why).

    ``refused`` are the pairs that were brought and do not fit.
    """

    place: Place
    pair: Credential | None
    origin: Origin | None
    problem: str
    refused: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A place stands otherwise than before: another pair, or another problem."""

    before: Standing
    now: Standing


@dataclass(slots=True)
class _Slot:
    """What is remembered of a place between two looks."""

    standing: Standing
    seen: bytes = b""
    pending: bytes = b""
    judged_at: dt.datetime | None = None
    file: Candidate | None = None
    installed: Candidate | None = None
    installed_id: int | None = None
    followers: list[Follower] = field(default_factory=list)


class Keyring:
    """The pairs of a box. The first look is taken when it is made; nothing is raised for a pair that is wrong."""

    def __init__(self, places: Sequence[Place], clock: Clock, tokens: Tokens | None = None) -> None:
        self._clock = clock
        self._tokens = tokens or Tokens()
        self._lock = threading.Lock()
        self._slots = {place.name: _Slot(Standing(place, None, None, "", ())) for place in places}
        self._changes: list[Change] = []
        self.look()

    @property
    def places(self) -> tuple[Place, ...]:
        return tuple(slot.standing.place for slot in self._slots.values())

    @property
    def standings(self) -> tuple[Standing, ...]:
        return tuple(slot.standing for slot in self._slots.values())

    def standing(self, name: str) -> Standing:
        return self._slots[name].standing

    def pair(self, name: str) -> Credential:
        """The pair in service at a place. Raises ``Misconfigured`` (``credential``) with the reason for none."""
        standing = self._slots[name].standing
        if standing.pair is None:
            raise Misconfigured(f"{standing.place.use} [{name}] : {standing.problem}", code="credential")
        return standing.pair

    def follow(self, name: str, follower: Follower) -> None:
        """Have the pair in service put to use, now and whenever another takes over.

        What ``follower`` raises refuses the pair: now, it is raised here, and the place has none; later, the one in
        service stays.
        """
        slot = self._slots[name]
        with self._lock:
            slot.followers.append(follower)
            if slot.standing.pair is None:
                return
            try:
                follower(slot.standing.pair)()
            except DrimboxError as error:
                slot.standing = replace(slot.standing, pair=None, origin=None, problem=error.reason)
                raise

    def changes(self) -> list[Change]:
        """What changed since this was last asked, oldest first; the first time, how every place stood at first."""
        with self._lock:
            found, self._changes = self._changes, []
        return found

    async def refresh(self, installed: Mapping[str, Installed], vault: Vault | None) -> None:
        """Look without holding up the event loop."""
        await asyncio.to_thread(self.look, installed, vault)

    def look(self, installed: Mapping[str, Installed] | None = None, vault: Vault | None = None) -> None:
        """Take in what changed at every place; ``installed`` is None where that is not known."""
        with self._lock:
            found = [self._look(slot, installed, vault) for slot in self._slots.values()]
            self._changes += [change for change in found if change is not None]

    def _look(self, slot: _Slot, installed: Mapping[str, Installed] | None, vault: Vault | None) -> Change | None:
        now = self._clock.now()
        news = self._read_file(slot)
        if installed is not None and vault is not None:
            news = _read_installed(slot, installed.get(slot.standing.place.name), vault) or news
        if not news and slot.judged_at is not None and abs(now - slot.judged_at) < _JUDGED_EVERY:
            return None
        slot.judged_at = now
        before, slot.standing = slot.standing, _judged(slot, now)
        told = (before.problem, [c.problem for c in before.refused])
        if slot.standing.pair is before.pair and told == (
            slot.standing.problem,
            [c.problem for c in slot.standing.refused],
        ):
            return None
        _tell(before, slot.standing)
        return Change(before, slot.standing)

    def _read_file(self, slot: _Slot) -> bool:
        """Read the pair of a place again when its files changed, and have stopped changing."""
        source = slot.standing.place.source
        state = source.state()
        if state == slot.seen:
            return False
        if slot.file is not None and slot.seen and state != slot.pending:
            slot.pending = state
            return False
        slot.seen = slot.pending = state
        try:
            slot.file = Candidate("file", source.read(self._tokens))
        except Misconfigured as error:
            slot.file = Candidate("file", None, error.reason)
        except Unavailable as error:
            # A token that is not there: asked for again at the next look.
            slot.file, slot.seen = Candidate("file", None, error.reason), b""
        return True


def _read_installed(slot: _Slot, row: Installed | None, vault: Vault) -> bool:
    number = row.id if row is not None else None
    if number == slot.installed_id:
        return False
    slot.installed_id = number
    slot.installed = _opened(row, vault) if row is not None else None
    return True


def _opened(row: Installed, vault: Vault) -> Candidate:
    leaf, *chain = row.certificates
    try:
        key = strong_key(vault.open(row.key, purpose(row.place)), "installée")
    except Misconfigured as error:
        return Candidate("installed", None, error.reason)
    credential = Credential(leaf, tuple(chain), key)
    return Candidate("installed", credential, "" if matches(credential) else "La clé n'est pas celle du certificat")


def purpose(place: str) -> str:
    """What the seal of an installed key is bound to."""
    return f"pair {place}"


def _judged(slot: _Slot, now: dt.datetime) -> Standing:
    """How a place stands with the pairs that it has."""
    standing = slot.standing
    demand = standing.place.demand()
    fit: list[Candidate] = []
    refused: list[Candidate] = []
    for candidate in (slot.file, slot.installed):
        if candidate is None:
            continue
        if candidate.credential is None or candidate.problem:
            refused.append(candidate)
            continue
        try:
            fit.append(replace(candidate, credential=fitting(candidate.credential, demand, now)))
        except Misconfigured as error:
            refused.append(replace(candidate, problem=error.reason))
    for candidate in sorted(fit, key=_newest, reverse=True):
        assert candidate.credential is not None
        if standing.pair is not None and _same(standing.pair, candidate.credential):
            return replace(standing, origin=candidate.origin, problem="", refused=tuple(refused))
        try:
            ready = [follower(candidate.credential) for follower in slot.followers]
        except DrimboxError as error:
            refused.append(replace(candidate, problem=error.reason))
            continue
        for use in ready:
            use()
        return Standing(standing.place, candidate.credential, candidate.origin, "", tuple(refused))
    problem = " ".join(f"{c.problem.rstrip('.')}." for c in refused).rstrip(".") or "Aucune paire"
    if standing.pair is None or any(b.code == "revoked" for b in breaches_of(standing.pair, demand, now)):
        return Standing(standing.place, None, None, problem, tuple(refused))
    return replace(standing, problem=problem, refused=tuple(refused))


def _newest(candidate: Candidate) -> tuple[dt.datetime, bool]:
    assert candidate.credential is not None
    return candidate.credential.certificate.not_valid_before_utc, candidate.origin == "installed"


def _same(one: Credential, other: Credential) -> bool:
    """The same certificate and chain, and so the same key, in another object."""
    return one.certificate == other.certificate and one.chain == other.chain and type(one.key) is type(other.key)


def _tell(before: Standing, now: Standing) -> None:
    name = now.place.name
    if now.pair is None:
        _log.error("pair %s cannot be used: %s", name, now.problem)
    elif now.pair is not before.pair:
        _log.info("pair %s in service, until %s", name, f"{now.pair.expires_at:%Y-%m-%d}")
    for candidate in now.refused if now.pair is not None else ():
        _log.warning("pair %s refused (%s), the one in service stays: %s", name, candidate.origin, candidate.problem)
