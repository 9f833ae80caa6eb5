"""Who has what open: browser sessions, and the contextual calls that belong to them.

A call waits under an opaque ticket until a browser opens it; that browser's session owns it from then on, and nobody
else can reach it. Everything lives in memory, is bounded in number and in time, and goes when its session goes.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import logging
import shutil
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from drimbox.consumer.call import ContextualCall, Filters
from drimbox.consumer.consultation import Bell, Consultation, Found
from drimbox.consumer.exams import Document, Order
from drimbox.consumer.opening import OpenExam
from drimbox.consumer.permission import Emergency
from drimbox.consumer.professional import Professional
from drimbox.consumer.remote_login import RemoteLogin
from drimbox.consumer.report_document import ReportDocument
from drimbox.consumer.surroundings import Surroundings
from drimbox.consumer.views import View, view_of
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Busy, Refused
from drimbox.foundation.uids import new_secret
from drimbox.identity.traits import Traits
from drimbox.national.psc.userinfo import Practice

_log = logging.getLogger(__name__)


class Gone(Refused):
    """What is asked for does not exist for this browser: never was, is over, or belongs to another one."""

    def __init__(self, reason: str = "Cette page n'existe pas, ou n'est plus ouverte dans ce navigateur") -> None:
        super().__init__(reason, code="gone")


@dataclass(frozen=True, slots=True)
class Limits:
    """How many, and for how long (seconds)."""

    session: float = 4 * 3600
    idle: float = 30 * 60
    call: float = 10 * 60
    login: float = 10 * 60
    pending_calls: int = 2000
    sessions: int = 1000
    calls_per_session: int = 50
    exams_per_call: int = 50
    logins_per_session: int = 20
    remote_logins: int = 5


@dataclass(slots=True)
class Login:
    """One login on its way: what was sent to PSC, and the page to come back to."""

    state: str
    nonce: str
    verifier: str
    call_id: str
    deadline: float


@dataclass(slots=True)
class OpenCall:
    """One patient in one browser session. ``used`` is when it was last looked at (monotonic seconds)."""

    id: str
    call: ContextualCall
    filters: Filters
    folder: Path
    used: float
    practice: Practice | None = None
    consultation: Consultation | None = None
    # What is found out around the rows, and the bell that both ring.
    surroundings: Surroundings | None = None
    bell: Bell = field(default_factory=Bell)
    order: Order = Order.DATE
    # What the search before this one found, shown until this one has something to show.
    former: Found | None = None
    emergency: Emergency | None = None
    timer: asyncio.Task[None] | None = None
    # When this user saw the list of this patient before; read once, or this visit would count as the last one.
    last_visit: dt.datetime | None = None
    last_visit_read: bool = False
    # Documents that the professional chose to open although other traits than the INS differ.
    decided: set[str] = field(default_factory=set)
    # By document key: what is open, and what the professional was warned of and chose to open all the same.
    exams: dict[str, OpenExam] = field(default_factory=dict)
    # Several of these exams beside each other, by address.
    views: dict[str, View] = field(default_factory=dict)
    reports: dict[str, ReportDocument] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)
    # The traits that only documents tell (ans-faq.md 4.2), once one was read.
    details: Traits | None = None
    # The study that the call itself named was opened already.
    directed: bool = False
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    def exam(self, view_id: str) -> OpenExam | None:
        return next((e for e in self.exams.values() if e.id == view_id), None)

    def document(self, key: str) -> Document | None:
        """A document of the rows that are shown."""
        found = self.consultation.shown if self.consultation is not None else None
        exams = found.exams if found is not None else ()
        return next((d for exam in exams for d in exam.documents if d.key == key), None)

    def view(self, view_id: str) -> View | None:
        """What a viewer's address shows: one exam of this call, or several."""
        alone = self.exam(view_id)
        return view_of(alone) if alone is not None else self.views.get(view_id)

    async def forget(self) -> None:
        """Drop all that was found for this patient: the search, the exams, their images."""
        consultation, self.consultation = self.consultation, None
        exams, self.exams = self.exams, {}
        self.views = {}
        self.reports, self.warned, self.details = {}, set(), None
        surroundings, self.surroundings = self.surroundings, None
        self.decided, self.emergency, self.last_visit_read, self.former = set(), None, False, None
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()
        if consultation is not None:
            await consultation.close()
        if surroundings is not None:
            await surroundings.close()
        for exam in exams.values():
            await exam.close()

    async def close(self) -> None:
        await self.forget()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


@dataclass(slots=True)
class Session:
    """One browser. ``id`` may be written down; ``secret`` is the cookie and may not; ``csrf`` stands in each form."""

    id: str
    secret: str
    csrf: str
    folder: Path
    created: float
    seen: float
    professional: Professional | None = None
    calls: dict[str, OpenCall] = field(default_factory=dict)
    logins: dict[str, Login] = field(default_factory=dict)
    # A login on the professional's own device, on its way (CIBA).
    remote: RemoteLogin | None = None

    def __repr__(self) -> str:
        return f"Session({self.id})"

    @property
    def mark(self) -> str:
        """Whose pages these are: another one for each person who logs in, and none of their secrets."""
        person = self.professional.info.national_id if self.professional is not None else ""
        return hashlib.sha256(f"{self.id}|{person}".encode()).hexdigest()[:16]

    def call(self, call_id: str) -> OpenCall:
        """Raises ``Gone`` for a call that this browser has not."""
        found = self.calls.get(call_id)
        if found is None:
            raise Gone
        return found


Ended = Callable[[Session, str], Awaitable[None]]


@dataclass(slots=True)
class _Ticket:
    call: ContextualCall
    deadline: float
    session_id: str = ""
    call_id: str = ""


class Sessions:
    """All browser sessions and waiting calls of this process."""

    def __init__(self, *, folder: Path, clock: Clock, limits: Limits) -> None:
        """``folder`` is emptied: images of an earlier process are nobody's."""
        self._folder = folder
        self._clock = clock
        self._limits = limits
        self._told: list[Ended] = []
        self._tickets: dict[str, _Ticket] = {}
        self._by_secret: dict[str, Session] = {}
        self._closing: set[asyncio.Task[None]] = set()
        # When devices were rung, by browser and by person.
        self._rung: dict[str, list[float]] = {}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)

    def __len__(self) -> int:
        return len(self._by_secret)

    def on_end(self, tell: Ended) -> None:
        """``tell`` is called with each session that has ended, and why."""
        self._told.append(tell)

    def announce(self, call: ContextualCall) -> str:
        """Keep a call until a browser opens it; gives its single-use ticket. Raises ``Busy`` when too many wait."""
        self.sweep()
        if sum(1 for t in self._tickets.values() if not t.session_id) >= self._limits.pending_calls:
            raise Busy("Trop d'appels contextuels en attente", code="calls-waiting", retry_after=30)
        ticket = new_secret()
        self._tickets[ticket] = _Ticket(call, self._clock.monotonic() + self._limits.call)
        return ticket

    def enter(self, ticket: str, session: Session | None) -> tuple[Session, OpenCall]:
        """Give the call to the browser that opens it first: to its session, or to a new one.

        The same browser may come back by the same ticket while it lasts; another one gets ``Gone``. Raises ``Busy``
        when there are too many sessions.
        """
        self.sweep()
        waiting = self._tickets.get(ticket)
        if waiting is None:
            raise Gone("Cet appel n'existe pas ou a expiré : relancez-le depuis votre logiciel")
        if waiting.session_id:
            if session is None or session.id != waiting.session_id or waiting.call_id not in session.calls:
                raise Gone("Cet appel a déjà été ouvert : relancez-le depuis votre logiciel")
            return session, session.calls[waiting.call_id]
        session = session or self._new_session()
        opened = self._add(session, waiting.call)
        waiting.session_id, waiting.call_id = session.id, opened.id
        return session, opened

    def find(self, secret: str | None, *, active: bool = True) -> Session | None:
        """The session of a cookie, None when it is over. ``active``: the user did something, the idle time restarts."""
        session = self._by_secret.get(secret or "")
        if session is None:
            return None
        now = self._clock.monotonic()
        if self._over(session, now):
            self._end(session, "expired")
            return None
        if active:
            session.seen = now
        return session

    def professional(self, national_id: str) -> Professional | None:
        """Somebody who is logged in now, in whichever browser; None when they are not."""
        now = self._clock.monotonic()
        for session in self._by_secret.values():
            found = session.professional
            mine = found is not None and not found.ended and found.info.national_id == national_id
            if mine and not self._over(session, now):
                return found
        return None

    def expect_login(self, session: Session, call_id: str) -> Login:
        """Begin a login: fresh state, nonce and PKCE verifier, good for this browser only and for a short time."""
        now = self._clock.monotonic()
        session.logins = {state: login for state, login in session.logins.items() if login.deadline > now}
        while len(session.logins) >= self._limits.logins_per_session:
            del session.logins[next(iter(session.logins))]
        login = Login(new_secret(), new_secret(), new_secret(), call_id, now + self._limits.login)
        session.logins[login.state] = login
        return login

    def take_login(self, session: Session, state: str) -> Login:
        """The login that PSC answers to, once. Raises ``Gone`` for a state this browser was not given, or too late."""
        login = session.logins.pop(state, None)
        if login is None or login.deadline <= self._clock.monotonic():
            raise Gone("Cette connexion n'a pas été demandée par ce navigateur, ou a expiré : recommencez")
        return login

    def count_remote_login(self, session: Session, national_id: str) -> None:
        """One more request to a professional's device.

        Raises ``Busy`` when too many were made lately by this browser, or for this person, by whatever browsers.
        """
        now = self._clock.monotonic()
        recent = {who: [at for at in asked if now - at < self._limits.login] for who, asked in self._rung.items()}
        self._rung = {who: asked for who, asked in recent.items() if asked}
        for who in (session.id, national_id):
            if len(self._rung.get(who, ())) >= self._limits.remote_logins:
                raise Busy("Trop de demandes de connexion : attendez quelques minutes", code="logins", retry_after=60)
        for who in (session.id, national_id):
            self._rung.setdefault(who, []).append(now)

    async def log_in(self, session: Session, professional: Professional, call_id: str) -> None:
        """Put a person in the session, under a new cookie, and start its time afresh.

        When another person was there, what they had open goes with them: only the call that the login was for stays,
        without anything that was found for it. Raises ``Gone`` when the session ended meanwhile.
        """
        if self._by_secret.pop(session.secret, None) is None:
            raise Gone("Votre session est terminée : relancez l'appel depuis votre logiciel")
        former, session.professional = session.professional, professional
        remote, session.remote = session.remote, None
        if remote is not None:
            self._later(remote.close())
        session.secret, session.csrf = new_secret(), new_secret()
        session.created = session.seen = self._clock.monotonic()
        self._by_secret[session.secret] = session
        if former is None:
            return
        if former.info.national_id == professional.info.national_id:
            former.go_on_as(professional)
            professional.notice_accepted = former.notice_accepted
            if former.practice in professional.info.practices:
                professional.practice = former.practice
            return
        former.end()
        kept = session.calls.get(call_id)
        others, session.calls = session.calls, {}
        if kept is not None:
            session.calls[call_id] = self._blank(session, kept, kept.call.filters)
        for call in others.values():
            await call.close()

    async def renew(self, session: Session, call: OpenCall, practice: Practice) -> None:
        """Begin a call again in another practice: nothing found under the former one stays.

        What is still on its way for the former one belongs to a call that is no longer there.
        """
        fresh = self._blank(session, call, call.filters)
        fresh.practice = practice
        session.calls[call.id] = fresh
        await call.close()

    async def end(self, session: Session, why: str = "logout") -> None:
        """Close a session now: its calls, its searches, its images."""
        self._end(session, why)
        await self._closed()

    async def end_of(self, psc_session: str, subject: str, *, why: str = "back-channel") -> int:
        """End the sessions that PSC says are over: by its session id, else by its subject."""
        ended = [
            s
            for s in self._by_secret.values()
            if s.professional is not None
            and (s.professional.psc_session == psc_session if psc_session else s.professional.subject == subject)
        ]
        for session in ended:
            self._end(session, why)
        await self._closed()
        return len(ended)

    async def close(self) -> None:
        """End everything; nothing of any session is left on disk."""
        for session in list(self._by_secret.values()):
            self._end(session, "shutdown")
        self._tickets.clear()
        await self._closed()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def sweep(self) -> None:
        """End what has lasted too long."""
        now = self._clock.monotonic()
        for session in [s for s in self._by_secret.values() if self._over(s, now)]:
            self._end(session, "expired")
        self._tickets = {key: t for key, t in self._tickets.items() if t.deadline > now}

    def _over(self, session: Session, now: float) -> bool:
        return now - session.created >= self._limits.session or now - session.seen >= self._limits.idle

    def _new_session(self) -> Session:
        if len(self._by_secret) >= self._limits.sessions:
            raise Busy("Trop de sessions ouvertes", code="sessions", retry_after=60)
        now = self._clock.monotonic()
        name = new_secret()[:16]
        session = Session(name, new_secret(), new_secret(), self._folder / new_secret(), now, now)
        self._by_secret[session.secret] = session
        return session

    def _blank(self, session: Session, call: OpenCall, filters: Filters) -> OpenCall:
        """The same call at the same address, as if it had just been made."""
        return OpenCall(call.id, call.call, filters, session.folder / new_secret(), self._clock.monotonic())

    def _add(self, session: Session, call: ContextualCall) -> OpenCall:
        while len(session.calls) >= self._limits.calls_per_session:
            oldest = min(session.calls.values(), key=lambda c: c.used)
            del session.calls[oldest.id]
            self._later(oldest.close())
        call_id = new_secret()
        folder = session.folder / new_secret()
        opened = OpenCall(call_id, call, call.filters, folder, self._clock.monotonic())
        session.calls[call_id] = opened
        return opened

    def _end(self, session: Session, why: str) -> None:
        """Unreachable at once; what it holds is closed right after."""
        if self._by_secret.pop(session.secret, None) is None:
            return
        if session.professional is not None:
            session.professional.end()
        calls, session.calls = session.calls, {}
        self._later(self._finish(session, list(calls.values()), why))

    async def _finish(self, session: Session, calls: list[OpenCall], why: str) -> None:
        if session.remote is not None:
            await session.remote.close()
        for call in calls:
            await call.close()
        await asyncio.to_thread(shutil.rmtree, session.folder, ignore_errors=True)
        for tell in self._told:
            await tell(session, why)

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(_recorded(work))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _closed(self) -> None:
        while self._closing:
            await asyncio.gather(*self._closing)


async def _recorded(work: Coroutine[None, None, None]) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001 - a task boundary
        # Nobody waits for this one, and the others must still be closed.
        _log.exception("a session could not be closed cleanly")
