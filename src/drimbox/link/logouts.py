"""Professionals whose session at Pro Santé Connect is over: told to one node, known to all of one database.

OpenID Connect Back-Channel Logout 1.0 and Front-Channel Logout 1.0. A row outlives every visit that it could concern.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.link.entrance import Entrance
from drimbox.link.ports import Psc
from drimbox.link.visits import Door
from drimbox.store.database import Pool

BACKCHANNEL_PATH = "/psc/deconnexion"
FRONTCHANNEL_PATH = "/psc/deconnexion-navigateur"
# Longer than any visit may last ([link] visit_minutes), and than a login takes.
KEPT = dt.timedelta(hours=5)
WHY = "session terminée à Pro Santé Connect"
_MAX_SESSION = 256


@dataclass(frozen=True, slots=True)
class Over:
    """Which of some doors hang on a session that is over."""

    pool: Pool
    clock: Clock

    async def add(self, session_id: str, subject: str) -> None:
        """PSC says so: of one session by its id, else of every session of a person."""
        now = self.clock.now()
        async with self.pool.connection() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO link_logout (at, session, subject) VALUES (%s, %s, %s)",
                (now, _digest(session_id), "" if session_id else _digest(subject)),
            )
            await connection.execute("DELETE FROM link_logout WHERE at <= %s", (now - KEPT,))

    async def among(self, doors: Sequence[Door]) -> list[Door]:
        """A session that is over never comes back; a person may have logged in anew since."""
        sessions = {_digest(d.elsewhere.session_id) for d in doors if d.elsewhere is not None} - {""}
        subjects = {_digest(d.elsewhere.subject) for d in doors if d.elsewhere is not None} - {""}
        if not sessions and not subjects:
            return []
        async with self.pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT at, session, subject FROM link_logout WHERE session = ANY(%s) OR subject = ANY(%s)",
                (sorted(sessions), sorted(subjects)),
            )
            rows = await cursor.fetchall()
        ended = {row["session"] for row in rows} - {""}
        persons: dict[str, dt.datetime] = {}
        for row in rows:
            if row["subject"]:
                persons[row["subject"]] = max(row["at"], persons.get(row["subject"], row["at"]))
        return [door for door in doors if _hangs(door, ended, persons)]


@dataclass(frozen=True, slots=True)
class Logouts:
    """Hears of sessions that are over, and ends what hangs on them."""

    psc: Psc
    over: Over
    entrance: Entrance

    async def notified(self, logout_token: str) -> None:
        """PSC calls. Raises ``Refused`` (``psc-jwt``) for a token that is not its word: then nobody is logged out."""
        notice = await self.psc.logout_notice(logout_token)
        await self._end(notice.session_id, notice.subject)

    async def shown(self, issuer: str, session_id: str) -> None:
        """PSC's logout page shows our address in a frame. Only PSC and this box know the session id.

        Raises ``Refused`` for another issuer, or without a session id.
        """
        if not session_id or len(session_id) > _MAX_SESSION or issuer != await self.psc.issuer():
            raise Refused("Annonce de déconnexion sans session, ou d'un autre émetteur", code="psc-logout")
        await self._end(session_id, "")

    async def _end(self, session_id: str, subject: str) -> None:
        """Here first, whatever becomes of the database; then the other nodes are told."""
        ended = {_digest(session_id)} - {""}
        persons = {_digest(subject): self.over.clock.now()} if subject and not session_id else {}
        for door in self.entrance.visits.all():
            if _hangs(door, ended, persons):
                await self.entrance.leave(door, WHY)
        await self.over.add(session_id, subject)

    async def follow(self) -> None:
        """End the doors of this node whose session is over, whichever node was told."""
        doors = [door for door in self.entrance.visits.all() if _by_psc(door)]
        for door in await self.over.among(doors):
            await self.entrance.leave(door, WHY)


def _by_psc(door: Door) -> bool:
    return door.elsewhere is not None and bool(door.elsewhere.session_id or door.elsewhere.subject)


def _hangs(door: Door, ended: set[str], persons: dict[str, dt.datetime]) -> bool:
    if door.elsewhere is None:
        return False
    told = persons.get(_digest(door.elsewhere.subject))
    return _digest(door.elsewhere.session_id) in ended or (told is not None and told >= door.visit.who.since)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest() if name else ""
