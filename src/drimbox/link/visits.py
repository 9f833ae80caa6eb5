"""Doors that are open: one visitor, one study, read only, in the memory of this process.

A visit begins at a login under a secret of its own, whatever cookie the browser came with, and ends by logout, idle
time, age, or once its study may not be seen any more. Each has a cookie of its own: a professional who opens two links
has two doors, and neither opens the other's study.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import new_secret
from drimbox.link.address import Link
from drimbox.link.visit import Visit, Who
from drimbox.publication.kos import ArchivedKos
from drimbox.record.audit import Actor


class Closed(Refused):
    """No door of this browser is open there: never was, is over, or is another's."""

    def __init__(self) -> None:
        super().__init__(
            "Cette page n'est plus ouverte : ouvrez de nouveau le lien du compte rendu", code="link-closed"
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """How long (seconds) and how many. ``idle`` is without a request; ``recheck`` is how long the archive is believed
    once it was asked."""

    idle: float = 15 * 60
    visit: float = 2 * 3600
    visits: int = 2000
    recheck: float = 30.0


@dataclass(frozen=True, slots=True, repr=False)
class Elsewhere:
    """The session of a provider that vouched for a visitor: ``id_token`` ends it from here; by ``session_id`` and
    ``subject`` Pro Santé Connect tells that it is over."""

    id_token: str
    session_id: str = ""
    subject: str = ""


@dataclass(slots=True)
class Door:
    """A visit with what it hangs on. ``secret`` is the cookie, ``csrf`` stands in its forms; ``elsewhere`` is there
    when a provider vouched for the person."""

    visit: Visit
    link: Link
    structure: str
    actor: Actor
    secret: str = field(repr=False)
    csrf: str = field(repr=False)
    created: float
    seen: float
    checked: float
    elsewhere: Elsewhere | None = None
    checking: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    def moved_to(self, archived: ArchivedKos) -> None:
        """The study has another version of its KOS since."""
        self.visit = replace(self.visit, kos_uid=archived.kos_uid)


class Visits:
    """All doors that are open, by key."""

    def __init__(self, clock: Clock, limits: Limits, ended: Callable[[str], None] = lambda _key: None) -> None:
        """``ended`` is told the key of each door that was closed."""
        self._clock = clock
        self._ended = ended
        self.limits = limits
        self._doors: dict[str, Door] = {}
        self._made_room: list[Door] = []

    def __len__(self) -> int:
        return len(self._doors)

    def prepare(
        self, who: Who, archived: ArchivedKos, link: Link, actor: Actor, elsewhere: Elsewhere | None = None
    ) -> Door:
        """A door that is not open yet: ``open`` it once the journal knows."""
        now = self._clock.monotonic()
        visit = Visit(new_secret()[:22], who, archived.ins, archived.study_uid, archived.kos_uid, link.series_uid)
        return Door(visit, link, archived.structure, actor, new_secret(), new_secret(), now, now, now, elsewhere)

    def open(self, door: Door) -> None:
        """The least used makes room where there are too many."""
        if len(self._doors) >= self.limits.visits:
            oldest = min(self._doors.values(), key=lambda d: d.seen)
            self.end(oldest)
            self._made_room.append(oldest)
        self._doors[door.visit.key] = door

    def find(self, key: str, secret: str | None, *, active: bool = True) -> Door:
        """The door of a key, for the browser that holds its secret; ``active``: its idle time starts again.

        Raises ``Closed``.
        """
        door = self._doors.get(key)
        known = door.secret if door is not None else new_secret()
        # As long, whether there is such a door or not.
        if not hmac.compare_digest(_digest(known), _digest(secret or "")) or door is None or self._over(door):
            raise Closed
        if active:
            door.seen = self._clock.monotonic()
        return door

    def lasting(self, key: str) -> bool:
        """Is there still a door of that key?"""
        door = self._doors.get(key)
        return door is not None and not self._over(door)

    def due(self, door: Door) -> bool:
        """Is it time to ask the archive again?"""
        return self._clock.monotonic() - door.checked >= self.limits.recheck

    def checked(self, door: Door) -> None:
        door.checked = self._clock.monotonic()

    def end(self, door: Door) -> bool:
        """Close it now; False when it was closed already."""
        if self._doors.pop(door.visit.key, None) is None:
            return False
        self._ended(door.visit.key)
        return True

    def expired(self) -> tuple[Door, ...]:
        """Close what has lasted too long; gives it, with what made room for others since the last time."""
        over = [door for door in self._doors.values() if self._over(door)]
        for door in over:
            self.end(door)
        made_room, self._made_room = self._made_room, []
        return (*made_room, *over)

    def all(self) -> tuple[Door, ...]:
        return tuple(self._doors.values())

    def _over(self, door: Door) -> bool:
        now = self._clock.monotonic()
        return now - door.created >= self.limits.visit or now - door.seen >= self.limits.idle


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
