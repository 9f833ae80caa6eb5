"""Who is logged in: sessions of the console, in the memory of this process.

A session begins at a login, under a secret of its own, and ends by logout, inactivity, age, or a change of its account.
Before a login there is none: strangers take no memory.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from drimbox.console.account import Account
from drimbox.foundation.clock import Clock
from drimbox.foundation.uids import new_secret

_MAX_FLASHES = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """How long (seconds) and how many. ``idle`` is without a request, ``session`` from login to the next login;
    ``psc`` is what Pro Santé Connect allows at the most."""

    idle: float = 15 * 60
    session: float = 8 * 3600
    psc: float = 4 * 3600
    sessions: int = 500
    per_account: int = 5


@dataclass(slots=True)
class Session:
    """One browser of one person. ``id`` may be written down; ``secret`` is the cookie and may not; ``csrf`` stands in
    each form. ``id_token`` is there when Pro Santé Connect vouched for the person."""

    id: str
    secret: str = field(repr=False)
    csrf: str = field(repr=False)
    account: Account = field(repr=False)
    address: str
    created: float
    seen: float
    id_token: str = field(default="", repr=False)
    told: list[str] = field(default_factory=list, repr=False)

    @property
    def by_password(self) -> bool:
        return not self.id_token

    def tell(self, text: str) -> None:
        """Say something on the next page."""
        self.told = [*self.told, text][-_MAX_FLASHES:]

    def take_told(self) -> list[str]:
        told, self.told = self.told, []
        return told


class Sessions:
    """All sessions of this process, found by the digest of their secret."""

    def __init__(self, clock: Clock, limits: Limits) -> None:
        self._clock = clock
        self._limits = limits
        self._by_digest: dict[bytes, Session] = {}
        self._made_room: list[Session] = []

    def __len__(self) -> int:
        return len(self._by_digest)

    def open(self, account: Account, address: str, id_token: str = "") -> Session:
        """A new session; the least used of the person's, or of all, makes room."""
        mine = [s for s in self._by_digest.values() if s.account.id == account.id]
        if len(mine) >= self._limits.per_account:
            self._make_room(mine)
        if len(self._by_digest) >= self._limits.sessions:
            self._make_room(list(self._by_digest.values()))
        now = self._clock.monotonic()
        session = Session(new_secret()[:16], new_secret(), new_secret(), account, address, now, now, id_token)
        self._by_digest[_digest(session.secret)] = session
        return session

    def find(self, secret: str | None) -> Session | None:
        """The session of a cookie, None when it is over; its idle time starts again."""
        session = self._by_digest.get(_digest(secret or ""))
        if session is None or self._over(session):
            return None
        session.seen = self._clock.monotonic()
        return session

    def end(self, session: Session) -> bool:
        """Close it now; False when it was closed already."""
        return self._by_digest.pop(_digest(session.secret), None) is not None

    def expired(self) -> tuple[Session, ...]:
        """Close what has lasted too long; gives it, with what made room for others since the last time."""
        over = [s for s in self._by_digest.values() if self._over(s)]
        for session in over:
            self.end(session)
        made_room, self._made_room = self._made_room, []
        return (*made_room, *over)

    def all(self) -> tuple[Session, ...]:
        return tuple(self._by_digest.values())

    def _make_room(self, among: list[Session]) -> None:
        oldest = min(among, key=lambda s: s.seen)
        self.end(oldest)
        self._made_room.append(oldest)

    def _over(self, session: Session) -> bool:
        now = self._clock.monotonic()
        longest = self._limits.session if session.by_password else min(self._limits.session, self._limits.psc)
        return now - session.created >= longest or now - session.seen >= self._limits.idle


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
