"""The listener of the viewer host, put together as one ASGI application."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeGuard

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError
from drimbox.foundation.http_guard import Guard
from drimbox.link.address import PATH
from drimbox.link.agreement import Agreement
from drimbox.link.codes import Codes
from drimbox.link.entrance import Entrance
from drimbox.link.limits import Attempts
from drimbox.link.logouts import BACKCHANNEL_PATH, FRONTCHANNEL_PATH, Logouts, Over
from drimbox.link.patients import OpenIncident, PatientDesk
from drimbox.link.ports import AuditJournal, Contacts, IdentityProvider, Images, Psc, Sender
from drimbox.link.professionals import CALLBACK_PATH, GOODBYE_PATH, ProfessionalDesk
from drimbox.link.visits import Limits, Visits
from drimbox.link.vouched import CALLBACK_PATH as VOUCHED_PATH
from drimbox.link.vouched import GOODBYE_PATH as VOUCHED_GOODBYE_PATH
from drimbox.link.vouched import KEYS_PATH, VouchedDesk
from drimbox.link.web import doors
from drimbox.link.web.desk import STYLE_PATH, VISITS_PATH, Desk, Portal, cookie_prefix
from drimbox.link.web.guard import (
    DATABASE_ERRORS,
    complete,
    on_crash,
    on_database_error,
    on_error,
    on_http_error,
    opened,
)
from drimbox.record.logs import correlated

CHOICE_PATH = "/lien/visiteur"
IDENTITY_PATH = "/lien/identite"
CODE_PATH = "/lien/code"
_OPEN_TO_STRANGERS = frozenset(
    (
        PATH,
        CHOICE_PATH,
        IDENTITY_PATH,
        CODE_PATH,
        CALLBACK_PATH,
        VOUCHED_PATH,
        KEYS_PATH,
        BACKCHANNEL_PATH,
        FRONTCHANNEL_PATH,
    )
)
_SWEEP_SECONDS = 30
_FOLLOW_SECONDS = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OneTimeCodes:
    """How patients are let in by a code: where it goes, how often it may be asked for, how long it is good for."""

    contacts: Contacts
    attempts: Attempts
    senders: tuple[Sender, ...]
    open_incident: OpenIncident
    minutes: int = 10


@dataclass(frozen=True, slots=True)
class Federation:
    """How patients are let in by an identity provider, and what the pages call it."""

    name: str
    provider: IdentityProvider
    attempts: Attempts


@asynccontextmanager
async def link_app(
    *,
    place: str,
    version: str,
    public_url: str,
    agreement: Agreement,
    psc: Psc,
    over: Over,
    journal: AuditJournal,
    clock: Clock,
    images: Images,
    beside: Sequence[BaseRoute] = (),
    ended: Callable[[str], None] = lambda _key: None,
    patients: OneTimeCodes | Federation | Portal | None = None,
    professions: frozenset[str] = frozenset(),
    limits: Limits | None = None,
    per_minute: int = 60,
    beat: float = 1.0,
) -> AsyncIterator[ASGIApp]:
    """The door as long as the block lasts; at its end every visit is closed.

    ``public_url`` is the origin that browsers see (no path), ``place`` the name of the site; ``images`` makes the
    routes of what is shown once the door is open, ``beside`` those of the files that it needs; ``ended`` is told the
    key of each visit that is over; ``over`` is what all nodes know of sessions that ended at Pro Santé Connect;
    ``per_minute`` limits what strangers of one address may ask for; ``beat`` is that of
    ``Entrance``.
    """
    visits = Visits(clock, limits or Limits(), ended)
    entrance = Entrance(agreement, visits, journal, clock, beat)
    desk = Desk(
        place=place,
        version=version,
        public_url=public_url,
        cookies=cookie_prefix(public_url),
        clock=clock,
        journal=journal,
        visits=visits,
        entrance=entrance,
        professionals=ProfessionalDesk(psc, entrance, journal, clock, public_url, professions),
        patients=_patients(patients, entrance, public_url),
        logouts=Logouts(psc, over, entrance),
        form_key=secrets.token_bytes(32),
    )
    app = Starlette(
        routes=routes(images, beside),
        exception_handlers={
            DrimboxError: on_error,
            HTTPException: on_http_error,
            **dict.fromkeys(DATABASE_ERRORS, on_database_error),
            Exception: on_crash,
        },
    )
    app.state.desk = desk
    tasks = [asyncio.create_task(_sweep(desk)), asyncio.create_task(_follow(desk))]
    try:
        # Outermost, so that even the page of an internal error carries the headers.
        yield Guard(
            app,
            clock=clock,
            public_url=public_url,
            doors=_OPEN_TO_STRANGERS,
            per_minute=per_minute,
            complete=complete,
            correlated=correlated,
        )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(desk.patients, PatientDesk):
            await desk.patients.close()
        for door in visits.all():
            with suppress(*DATABASE_ERRORS):
                await entrance.leave(door, "shutdown")


def routes(images: Images, beside: Sequence[BaseRoute] = ()) -> list[BaseRoute]:
    """Every page. What is below a visit's address is for who holds it: ``opened`` is asked by each of ``images``.

    ``beside`` are files without anything of a patient that those pages need under addresses of their own.
    """
    visit = VISITS_PATH + "/{key}"
    inside = tuple(images(opened))
    # The address of a visit itself, which a mount has with a slash at its end alone.
    first = [Route(visit, r.endpoint, methods=list(r.methods or ())) for r in inside if _is_first(r)]
    return [
        Route(PATH, doors.invoke, methods=["GET"]),
        Route(CHOICE_PATH, doors.choose, methods=["POST"]),
        Route(IDENTITY_PATH, doors.say_who, methods=["POST"]),
        Route(CODE_PATH, doors.say_code, methods=["POST"]),
        Route(CALLBACK_PATH, doors.back_from_psc, methods=["GET"]),
        Route(VOUCHED_PATH, doors.back_from_provider, methods=["GET"]),
        Route(KEYS_PATH, doors.keys, methods=["GET"]),
        Route(BACKCHANNEL_PATH, doors.told_over, methods=["POST"]),
        Route(FRONTCHANNEL_PATH, doors.shown_over, methods=["GET"]),
        Route(GOODBYE_PATH, doors.goodbye, methods=["GET"]),
        Route(VOUCHED_GOODBYE_PATH, doors.goodbye, methods=["GET"]),
        Route(STYLE_PATH, doors.style, methods=["GET"]),
        Route("/robots.txt", doors.robots, methods=["GET"]),
        Route(visit + "/fin", doors.ask_leave, methods=["GET"]),
        Route(visit + "/fin", doors.leave, methods=["POST"]),
        *first,
        Mount(visit, routes=inside),
        *beside,
    ]


def _is_first(route: BaseRoute) -> TypeGuard[Route]:
    return isinstance(route, Route) and route.path == "/"


def _patients(
    chosen: OneTimeCodes | Federation | Portal | None, entrance: Entrance, public_url: str
) -> PatientDesk | VouchedDesk | Portal | None:
    agreement, journal, clock = entrance.agreement, entrance.journal, entrance.clock
    if isinstance(chosen, Federation):
        return VouchedDesk(
            name=chosen.name,
            provider=chosen.provider,
            agreement=agreement,
            entrance=entrance,
            attempts=chosen.attempts,
            journal=journal,
            clock=clock,
            public_url=public_url,
        )
    if not isinstance(chosen, OneTimeCodes):
        return chosen
    return PatientDesk(
        agreement=agreement,
        entrance=entrance,
        contacts=chosen.contacts,
        attempts=chosen.attempts,
        codes=Codes(clock, chosen.minutes * 60),
        senders=chosen.senders,
        journal=journal,
        clock=clock,
        open_incident=chosen.open_incident,
        minutes=chosen.minutes,
    )


async def _follow(desk: Desk) -> None:
    """End what another node was told to be over."""
    while True:
        await asyncio.sleep(_FOLLOW_SECONDS)
        try:
            await desk.logouts.follow()
        except Exception:  # noqa: BLE001 - a task boundary: the next round must come
            _log.exception("sessions that are over not looked up")


async def _sweep(desk: Desk) -> None:
    """Close visits that lasted too long, and write it down."""
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        try:
            await end_expired(desk)
        except Exception:  # noqa: BLE001 - a task boundary: the next round must come
            _log.exception("ended visits not written down")


async def end_expired(desk: Desk) -> None:
    """Close what has lasted too long; the journal knows."""
    for door in desk.visits.expired():
        await desk.entrance.tell_left(door, "expired")
