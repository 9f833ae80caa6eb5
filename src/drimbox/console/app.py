"""The console, put together as one ASGI application."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from drimbox.certificates.acts import CertificateActs
from drimbox.console.account import LockRules, Role
from drimbox.console.accounts import Accounts, AuditJournal
from drimbox.console.acts import Acts
from drimbox.console.backlog import BacklogReader
from drimbox.console.circle import CircleRoom
from drimbox.console.health import Check, HealthWatch
from drimbox.console.journal import JournalRoom
from drimbox.console.keys import KeyRoom
from drimbox.console.login import PasswordDesk
from drimbox.console.messages import Messages
from drimbox.console.passwords import Cost, Hasher, PasswordRules
from drimbox.console.psc import CALLBACK_PATH, GOODBYE_PATH, Psc, PscDesk
from drimbox.console.sessions import Limits, Sessions
from drimbox.console.studies import Studies
from drimbox.console.walks import WalkRoom
from drimbox.console.web import accounts, circle, links, pairs, queue, signin, statistics, studies, walks
from drimbox.console.web import certificates as market
from drimbox.console.web import journal as traces
from drimbox.console.web.desk import LOGIN_PATH, PASSWORD_PATH, Desk, SettingLine, cookie_name, for_people
from drimbox.console.web.guard import (
    DATABASE_ERRORS,
    complete,
    on_crash,
    on_database_error,
    on_error,
    on_http_error,
)
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError
from drimbox.foundation.http_guard import Guard
from drimbox.publication.incidents import Incidents
from drimbox.record.audit import Event, Kind, Object, Thing
from drimbox.record.logs import correlated
from drimbox.store.database import Pool

PSC_PATH = "/connexion/psc"
_STYLE = Path(__file__).parent / "pages" / "style.css"
_SWEEP_SECONDS = 30
_log = logging.getLogger(__name__)


@asynccontextmanager
async def console_app(
    *,
    box_name: str,
    version: str,
    public_url: str,
    pool: Pool,
    clock: Clock,
    journal: AuditJournal,
    structures: Mapping[str, str],
    psc: Psc | None = None,
    health: Check | None = None,
    settings: Sequence[SettingLine] = (),
    limits: Limits | None = None,
    passwords: PasswordRules | None = None,
    locking: LockRules | None = None,
    cost: Cost | None = None,
    logins_per_minute: int = 60,
    walk_room: WalkRoom | None = None,
    certificates: CertificateActs | None = None,
    journal_room: JournalRoom | None = None,
    keys: KeyRoom | None = None,
    circle_room: CircleRoom | None = None,
    link_origin: str = "",
) -> AsyncIterator[ASGIApp]:
    """The console as long as the block lasts; at its end every session is closed.

    ``public_url`` is the origin that browsers see (no path); ``structures`` are names by short name; ``health`` tells
    which peers answer; ``logins_per_minute`` limits the logins of one address.
    """
    table = Accounts(pool, clock, journal)
    rules = passwords or PasswordRules()
    incidents = Incidents(pool, clock)
    desk = Desk(
        box_name=box_name,
        version=version,
        public_url=public_url,
        cookie=cookie_name(box_name, public_url, "session"),
        form_cookie=cookie_name(box_name, public_url, "login"),
        structures=structures,
        settings=settings,
        clock=clock,
        journal=journal,
        sessions=Sessions(clock, limits or Limits()),
        accounts=table,
        passwords=PasswordDesk(table, Hasher(cost), journal, clock, rules, locking or LockRules()),
        psc=PscDesk(psc, table, journal, clock, public_url) if psc is not None else None,
        incidents=incidents,
        acts=Acts(pool, incidents, journal),
        studies=Studies(pool),
        messages=Messages(pool),
        backlog=BacklogReader(pool),
        health=HealthWatch(health, clock),
        form_key=secrets.token_bytes(32),
        walks=walk_room,
        certificates=certificates,
        journal_room=journal_room,
        keys=keys,
        circle=circle_room,
        link_origin=link_origin,
    )
    app = Starlette(
        routes=routes(),
        exception_handlers={
            DrimboxError: on_error,
            HTTPException: on_http_error,
            **dict.fromkeys(DATABASE_ERRORS, on_database_error),
            Exception: on_crash,
        },
    )
    app.state.desk = desk
    sweeper = asyncio.create_task(_sweep(desk))
    doors = frozenset((LOGIN_PATH, PSC_PATH, CALLBACK_PATH))
    try:
        # Outermost, so that even the page of an internal error carries the headers.
        yield Guard(
            app,
            clock=clock,
            public_url=public_url,
            doors=doors,
            per_minute=logins_per_minute,
            complete=complete,
            correlated=correlated,
        )
    finally:
        sweeper.cancel()
        with suppress(asyncio.CancelledError):
            await sweeper
        await desk.health.close()
        await _end_all(desk)


def routes() -> list[Route]:
    """Every page, with the right that it asks for. What is not in the first four lines is for people who logged in."""
    operator, administrator, messages, auditor = Role.OPERATOR, Role.ADMINISTRATOR, Role.MESSAGES, Role.AUDITOR
    incident, study, account = "/file/{incident}", "/examens/{study}", "/comptes/{account}"
    walk = walks.PLACE + "/{walk}"
    trace, counting = traces.PLACE, (operator, administrator)
    request_of = market.PLACE + "/demandes/{request}"
    return [
        Route("/style.css", _style, methods=["GET"]),
        Route(LOGIN_PATH, signin.ask, methods=["GET"]),
        Route(LOGIN_PATH, signin.enter, methods=["POST"]),
        Route(PSC_PATH, signin.to_psc, methods=["GET"]),
        Route(CALLBACK_PATH, signin.from_psc, methods=["GET"]),
        Route(GOODBYE_PATH, signin.goodbye, methods=["GET"]),
        Route("/", for_people(signin.home), methods=["GET"]),
        Route("/deconnexion", for_people(signin.ask_leave, before_password=True), methods=["GET"]),
        Route("/deconnexion", for_people(signin.leave, before_password=True), methods=["POST"]),
        Route(PASSWORD_PATH, for_people(signin.ask_password, before_password=True), methods=["GET"]),
        Route(PASSWORD_PATH, for_people(signin.change_password, before_password=True), methods=["POST"]),
        Route("/file", for_people(queue.listed, operator), methods=["GET"]),
        Route(incident, for_people(queue.shown, operator), methods=["GET"]),
        Route(incident + "/reessayer", for_people(queue.retry, operator), methods=["POST"]),
        Route(incident + "/resynchroniser", for_people(queue.resync, operator), methods=["POST"]),
        Route(incident + "/classer", for_people(queue.discard, operator), methods=["POST"]),
        Route(incident + "/message", for_people(queue.message, messages), methods=["GET"]),
        Route(incident + "/message/fichier", for_people(queue.download, messages), methods=["GET"]),
        Route("/examens", for_people(studies.ask, operator), methods=["GET"]),
        Route("/examens", for_people(studies.search, operator), methods=["POST"]),
        Route(study, for_people(studies.shown, operator), methods=["GET"]),
        Route(study + "/resynchroniser", for_people(studies.resync, operator), methods=["POST"]),
        Route(trace, for_people(traces.ask, auditor), methods=["GET"]),
        Route(trace, for_people(traces.search, auditor), methods=["POST"]),
        Route(trace + "/export", for_people(traces.export, auditor), methods=["POST"]),
        Route(trace + "/verifier", for_people(traces.verify, auditor), methods=["POST"]),
        Route(statistics.PLACE, for_people(statistics.shown, *counting), methods=["GET"]),
        Route(statistics.PLACE + "/lignes.csv", for_people(statistics.download, *counting), methods=["GET"]),
        Route(statistics.PLACE + "/appels.csv", for_people(statistics.calls, *counting), methods=["GET"]),
        Route("/comptes", for_people(accounts.listed, administrator), methods=["GET"]),
        Route("/comptes", for_people(accounts.add, administrator), methods=["POST"]),
        Route(account, for_people(accounts.shown, administrator), methods=["GET"]),
        Route(account + "/identite", for_people(accounts.set_identity, administrator), methods=["POST"]),
        Route(account + "/droits", for_people(accounts.set_roles, administrator), methods=["POST"]),
        Route(account + "/verrouiller", for_people(accounts.lock, administrator), methods=["POST"]),
        Route(account + "/deverrouiller", for_people(accounts.unlock, administrator), methods=["POST"]),
        Route(account + "/mot-de-passe", for_people(accounts.new_password, administrator), methods=["POST"]),
        Route("/reglages", for_people(accounts.settings, administrator), methods=["GET"]),
        Route(market.PLACE, for_people(market.shown, administrator), methods=["GET"]),
        Route(market.PLACE + "/commander", for_people(market.order, administrator), methods=["POST"]),
        Route(market.PLACE + "/demander", for_people(market.request_one, administrator), methods=["POST"]),
        Route(market.PLACE + "/installer", for_people(market.install, administrator), methods=["POST"]),
        Route(market.PLACE + "/revoquer", for_people(market.revoke, administrator), methods=["POST"]),
        Route(market.PLACE + "/cle-de-compte", for_people(market.change_account_key, administrator), methods=["POST"]),
        Route(request_of, for_people(market.download, administrator), methods=["GET"]),
        Route(request_of + "/retirer", for_people(market.withdraw, administrator), methods=["POST"]),
        Route(pairs.PLACE, for_people(pairs.shown, administrator), methods=["GET"]),
        Route(pairs.PLACE + ".csv", for_people(pairs.download, administrator), methods=["GET"]),
        Route(pairs.PLACE + "/installer", for_people(pairs.install, administrator), methods=["POST"]),
        Route(pairs.PLACE + "/retirer", for_people(pairs.remove, administrator), methods=["POST"]),
        Route(circle.PLACE, for_people(circle.shown, administrator), methods=["GET"]),
        Route(circle.PLACE + "/liste-blanche", for_people(circle.renew, administrator), methods=["POST"]),
        Route(links.PLACE, for_people(links.shown, administrator), methods=["GET"]),
        Route(links.PLACE, for_people(links.made, administrator), methods=["POST"]),
        Route(walks.PLACE, for_people(walks.listed, administrator), methods=["GET"]),
        Route(walks.PLACE, for_people(walks.begin, administrator), methods=["POST"]),
        Route(walk, for_people(walks.shown, administrator), methods=["GET"]),
        Route(walk + "/constats.csv", for_people(walks.download, administrator), methods=["GET"]),
        Route(walk + "/pause", for_people(walks.pause, administrator), methods=["POST"]),
        Route(walk + "/reprendre", for_people(walks.resume, administrator), methods=["POST"]),
        Route(walk + "/arreter", for_people(walks.stop, administrator), methods=["POST"]),
    ]


async def _style(request: Request) -> Response:
    body = await asyncio.to_thread(_STYLE.read_bytes)
    return Response(body, media_type="text/css", headers={"Cache-Control": "no-cache"})


async def _sweep(desk: Desk) -> None:
    """Close sessions that lasted too long, and write it down (IE.39)."""
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        try:
            await end_expired(desk)
        except Exception:  # noqa: BLE001 - a task boundary: the next round must come
            _log.exception("ended sessions not written down")


async def end_expired(desk: Desk) -> None:
    """Close what has lasted too long; the journal knows."""
    for session in desk.sessions.expired():
        actor = session.account.actor(session.address)
        await desk.journal.write(None, Event(Kind.LOGOUT, actor, (Object(Thing.SESSION, session.id, "expired"),)))


async def _end_all(desk: Desk) -> None:
    for session in desk.sessions.all():
        desk.sessions.end(session)
        actor = session.account.actor(session.address)
        with suppress(*DATABASE_ERRORS):
            await desk.journal.write(None, Event(Kind.LOGOUT, actor, (Object(Thing.SESSION, session.id, "shutdown"),)))
