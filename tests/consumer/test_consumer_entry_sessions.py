"""Many browsers, patients and people at once, in any order: what is whose never changes hands (DB.CO.48)."""

from __future__ import annotations

import asyncio
import datetime as dt
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import pytest
from consumer_world import DOMINIQUE, KIT, OTHER, SECOND, THIRD, FakePsc, Site, TestPatient, text_of
from hypothesis import given, settings
from hypothesis import strategies as st

from drimbox.consumer.call import ContextualCall, parse_call
from drimbox.consumer.professional import Professional
from drimbox.consumer.sessions import Gone, Limits, Sessions
from drimbox.foundation.clock import FixedClock
from drimbox.national.psc.tokens import Tokens
from drimbox.national.psc.userinfo import UserInfo

PATIENTS = (DOMINIQUE, SECOND, THIRD)
PEOPLE = (KIT, OTHER)
NOW = dt.datetime(2024, 3, 1, 9, tzinfo=dt.UTC)


def call_for(patient: TestPatient) -> ContextualCall:
    return parse_call(urlencode(patient.call()).encode(), environment="test", consent_values={"yes": "yes"})


@dataclass
class Known:
    """What the model knows of one browser: its cookie, who is in it, and whose calls it opened."""

    cookie: str | None = None
    person: UserInfo | None = None
    calls: dict[str, TestPatient] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["call", "login", "logout", "practice", "idle", "again"]), st.integers(0, 2), st.integers(0, 5)
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_calls_stay_with_their_browser_and_their_person(steps: list[Step]) -> None:
    asyncio.run(_played(steps))


async def _played(steps: list[Step]) -> None:
    clock = FixedClock(NOW)
    psc = FakePsc(lambda: "", clock)
    browsers = [Known() for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        sessions = Sessions(folder=Path(folder) / "sessions", clock=clock, limits=Limits())
        used: list[tuple[str, Known]] = []
        for action, who, what in steps:
            browser = browsers[who]
            session = sessions.find(browser.cookie, active=False)
            if action == "call":
                patient = PATIENTS[what % 3]
                ticket = sessions.announce(call_for(patient))
                session, opened = sessions.enter(ticket, session)
                if session.secret != browser.cookie:
                    browser.cookie, browser.person, browser.calls = session.secret, None, {}
                browser.calls[opened.id] = patient
                used.append((ticket, browser))
            elif action == "again" and used:
                ticket, owner = used[what % len(used)]
                mine = owner is browser and session is not None
                try:
                    found, opened = sessions.enter(ticket, session)
                except Gone:
                    found = None
                # By the same address, only the browser that opened it comes back to it.
                assert found is None or (mine and opened.id in browser.calls)
            elif action == "login" and session is not None and browser.calls:
                person, chosen = PEOPLE[what % 2], sorted(browser.calls)[what % len(browser.calls)]
                former = browser.cookie
                await sessions.log_in(session, professional(person, clock, psc), chosen)
                browser.ended.append(former or "")
                if browser.person is not None and browser.person != person:
                    browser.calls = {chosen: browser.calls[chosen]}
                    fresh = session.call(chosen)
                    assert (fresh.consultation, fresh.practice, fresh.exams) == (None, None, {})
                browser.cookie, browser.person = session.secret, person
            elif action == "practice" and session is not None and browser.calls and browser.person:
                chosen = sorted(browser.calls)[what % len(browser.calls)]
                before = session.call(chosen)
                await sessions.renew(session, before, browser.person.practices[0])
                assert session.call(chosen) is not before
            elif action == "logout" and session is not None:
                await sessions.end(session)
                _over(browser)
            elif action == "idle":
                clock.advance(what * 400)
            _agrees(sessions, browsers)
        await sessions.close()
        assert not (Path(folder) / "sessions").exists()


def professional(info: UserInfo, clock: FixedClock, psc: FakePsc) -> Professional:
    now = clock.now()
    tokens = Tokens("a", "r", "i", now + psc.life, now + dt.timedelta(minutes=30), info.subject, "sid", now)
    return Professional(info, tokens, psc=psc, clock=clock)


def _over(browser: Known) -> None:
    browser.ended.append(browser.cookie or "")
    browser.cookie, browser.person, browser.calls = None, None, {}


def _agrees(sessions: Sessions, browsers: list[Known]) -> None:
    seen: dict[str, int] = {}
    for number, browser in enumerate(browsers):
        session = sessions.find(browser.cookie, active=False)
        if session is None:
            _over(browser)
            continue
        assert session.professional is None or session.professional.info == browser.person
        assert {i: c.call.ins.matricule for i, c in session.calls.items()} == {
            i: p.matricule for i, p in browser.calls.items()
        }
        assert len({c.folder for c in session.calls.values()}) == len(session.calls)
        for call_id in session.calls:
            assert seen.setdefault(call_id, number) == number
    for browser in browsers:
        for cookie in browser.ended:
            assert sessions.find(cookie, active=False) is None
            assert sessions.find("", active=False) is None


@pytest.mark.requirement("DB.CO.48")
async def test_twenty_browsers_at_once(site: Site) -> None:
    """Each with its own person and patients, all at the same time: every page is whose it says it is."""
    for patient in PATIENTS:
        site.hold(patient)
    # Who logs in is decided by PSC at the moment of the redirect: one at a time there, all the rest at once.
    door = asyncio.Lock()

    async def visit(number: int) -> None:
        person, browser = PEOPLE[number % 2], site.browser()
        first, second = PATIENTS[number % 3], PATIENTS[(number + 1) % 3]
        await browser.get(await site.call(first))
        call = browser.path
        async with door:
            site.psc.next_user = person
            away = await browser.send("GET", f"{call}/connexion", follow=False)
        page = await browser.get(away.headers["Location"])
        if b"/information" in page.body:
            page = await browser.submit(page, "/information", lu="oui")
        await browser.get(await site.call(second))
        for path, patient in ((call, first), (browser.path, second)):
            shown = text_of(await browser.get(path))
            assert f"RPPS {person.national_id[1:]}" in shown
            digits = "".join(shown.split())
            assert patient.matricule in digits
            assert not [p for p in PATIENTS if p is not patient and p.matricule in digits]

    await asyncio.gather(*(visit(number) for number in range(20)))
