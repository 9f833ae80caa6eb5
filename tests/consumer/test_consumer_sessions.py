"""Sessions: a call belongs to one browser, for a time, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from urllib.parse import urlencode

import pytest
from consumer_world import DOMINIQUE, KIT, OTHER, SECOND, FakePsc, TestPatient

from drimbox.consumer.call import ContextualCall, parse_call
from drimbox.consumer.professional import LoginEnded, Professional, practice_named
from drimbox.consumer.sessions import Gone, Limits, Session, Sessions
from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import Busy, Unavailable
from drimbox.national.psc.tokens import Tokens
from drimbox.national.psc.userinfo import UserInfo


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(dt.datetime(2024, 3, 1, 9, tzinfo=dt.UTC))


@pytest.fixture
def sessions(tmp_path: Path, clock: FixedClock) -> Sessions:
    return Sessions(folder=tmp_path / "sessions", clock=clock, limits=Limits())


def call_for(patient: TestPatient = DOMINIQUE) -> ContextualCall:
    return parse_call(urlencode(patient.call()).encode(), environment="test", consent_values={"yes": "yes"})


def professional(info: UserInfo, clock: FixedClock, psc: FakePsc | None = None) -> Professional:
    psc = psc or FakePsc(lambda: "", clock)
    now = clock.now()
    tokens = Tokens("a", "r", "i", now + psc.life, now + dt.timedelta(minutes=30), info.subject, "sid", now)
    return Professional(info, tokens, psc=psc, clock=clock)


@pytest.mark.requirement("DB.CO.48")
async def test_the_first_browser_owns_the_call(sessions: Sessions) -> None:
    ticket = sessions.announce(call_for())
    session, call = sessions.enter(ticket, None)
    assert sessions.enter(ticket, session) == (session, call)
    with pytest.raises(Gone):
        sessions.enter(ticket, None)
    other, _ = sessions.enter(sessions.announce(call_for()), None)
    with pytest.raises(Gone):
        sessions.enter(ticket, other)
    with pytest.raises(Gone):
        other.call(call.id)


@pytest.mark.requirement("DB.CO.48")
async def test_an_unopened_call_expires(sessions: Sessions, clock: FixedClock) -> None:
    ticket = sessions.announce(call_for())
    clock.advance(Limits().call)
    with pytest.raises(Gone):
        sessions.enter(ticket, None)


async def test_a_session_ends_when_idle_and_when_too_old(sessions: Sessions, clock: FixedClock) -> None:
    session, _ = sessions.enter(sessions.announce(call_for()), None)
    clock.advance(Limits().idle - 1)
    assert sessions.find(session.secret) is session
    clock.advance(Limits().idle - 1)
    assert sessions.find(session.secret, active=False) is session
    clock.advance(2)
    assert sessions.find(session.secret) is None
    session, _ = sessions.enter(sessions.announce(call_for()), None)
    for _ in range(17):
        clock.advance(Limits().session / 16)
        alive = sessions.find(session.secret)
    assert alive is None


async def test_nothing_of_a_session_stays_on_disk(sessions: Sessions, tmp_path: Path) -> None:
    ended: list[str] = []

    async def tell(session: Session, why: str) -> None:
        ended.append(why)

    sessions.on_end(tell)
    session, call = sessions.enter(sessions.announce(call_for()), None)
    call.folder.mkdir(parents=True)
    (call.folder / "image.dcm").write_bytes(b"x")
    await sessions.end(session)
    assert list((tmp_path / "sessions").iterdir()) == []
    assert ended == ["logout"]
    assert sessions.find(session.secret) is None


async def test_the_images_of_an_earlier_process_go_at_the_start(tmp_path: Path, clock: FixedClock) -> None:
    folder = tmp_path / "sessions"
    (folder / "old").mkdir(parents=True)
    (folder / "old" / "image.dcm").write_bytes(b"x")
    Sessions(folder=folder, clock=clock, limits=Limits())
    assert list(folder.iterdir()) == []


async def test_calls_and_sessions_are_bounded(tmp_path: Path, clock: FixedClock) -> None:
    limits = Limits(pending_calls=3, sessions=2, calls_per_session=2)
    sessions = Sessions(folder=tmp_path / "s", clock=clock, limits=limits)
    tickets = [sessions.announce(call_for()) for _ in range(3)]
    with pytest.raises(Busy):
        sessions.announce(call_for())
    session, first = sessions.enter(tickets[0], None)
    clock.advance(1)
    sessions.enter(tickets[1], session)
    clock.advance(1)
    sessions.enter(tickets[2], session)
    assert first.id not in session.calls
    assert len(session.calls) == 2
    sessions.enter(sessions.announce(call_for()), None)
    with pytest.raises(Busy):
        sessions.enter(sessions.announce(call_for()), None)


async def test_logging_in_renews_the_cookie_and_keeps_the_open_calls(sessions: Sessions, clock: FixedClock) -> None:
    session, call = sessions.enter(sessions.announce(call_for()), None)
    former = session.secret
    await sessions.log_in(session, professional(KIT, clock), call.id)
    assert sessions.find(former) is None
    assert sessions.find(session.secret) is session
    assert call.id in session.calls


async def test_another_person_on_the_same_browser_finds_nothing_of_the_first(
    sessions: Sessions, clock: FixedClock
) -> None:
    session, first = sessions.enter(sessions.announce(call_for()), None)
    one = professional(KIT, clock)
    await sessions.log_in(session, one, first.id)
    one.notice_accepted = True
    _, second = sessions.enter(sessions.announce(call_for(SECOND)), session)
    await sessions.log_in(session, professional(OTHER, clock), second.id)
    assert list(session.calls) == [second.id]
    assert session.professional is not None
    assert session.professional.info is OTHER
    assert not session.professional.notice_accepted
    with pytest.raises(LoginEnded):
        await one.access_token()


async def test_the_same_person_again_keeps_everything(sessions: Sessions, clock: FixedClock) -> None:
    session, call = sessions.enter(sessions.announce(call_for()), None)
    one = professional(KIT, clock)
    await sessions.log_in(session, one, call.id)
    one.notice_accepted = True
    await sessions.log_in(session, professional(KIT, clock), call.id)
    assert list(session.calls) == [call.id]
    assert session.professional is not None
    assert session.professional.notice_accepted
    # What was begun under the former login goes on with the tokens of the new one, and ends with it.
    assert one.ended
    assert await one.access_token() == await session.professional.access_token()
    session.professional.end()
    with pytest.raises(LoginEnded):
        await one.access_token()
    with pytest.raises(ValueError, match="another person"):
        one.go_on_as(professional(OTHER, clock))


async def test_a_login_answer_is_taken_once_and_by_its_browser(sessions: Sessions, clock: FixedClock) -> None:
    session, call = sessions.enter(sessions.announce(call_for()), None)
    other, _ = sessions.enter(sessions.announce(call_for()), None)
    login = sessions.expect_login(session, call.id)
    with pytest.raises(Gone):
        sessions.take_login(other, login.state)
    assert sessions.take_login(session, login.state) is login
    with pytest.raises(Gone):
        sessions.take_login(session, login.state)
    late = sessions.expect_login(session, call.id)
    clock.advance(Limits().login)
    with pytest.raises(Gone):
        sessions.take_login(session, late.state)


async def test_psc_ends_the_sessions_it_names(sessions: Sessions, clock: FixedClock) -> None:
    session, call = sessions.enter(sessions.announce(call_for()), None)
    await sessions.log_in(session, professional(KIT, clock), call.id)
    assert await sessions.end_of("another", "") == 0
    assert await sessions.end_of("sid", "") == 1
    assert sessions.find(session.secret) is None


@pytest.mark.requirement("DB.CO.65")
async def test_tokens_are_refreshed_just_before_use_once_for_all(clock: FixedClock) -> None:
    psc = FakePsc(lambda: "", clock)
    person = professional(KIT, clock, psc)
    assert await person.access_token() == "a"
    clock.advance(105)
    tokens = await asyncio.gather(*(person.access_token() for _ in range(5)))
    assert set(tokens) == {"access-sid-1"}
    assert psc.refreshed == 1


@pytest.mark.requirement("DB.CO.65")
async def test_a_refused_refresh_ends_the_login_and_an_outage_does_not(clock: FixedClock) -> None:
    psc = FakePsc(lambda: "", clock)
    person = professional(KIT, clock, psc)
    clock.advance(200)
    psc.down = True
    with pytest.raises(Unavailable):
        await person.access_token()
    psc.down, psc.refuse_refresh = False, True
    with pytest.raises(LoginEnded):
        await person.access_token()
    psc.refuse_refresh = False
    with pytest.raises(LoginEnded):
        await person.access_token()


@pytest.mark.requirement("DB.CO.49")
@pytest.mark.parametrize(
    ("situation", "found"),
    [
        ("1750803447", 0),
        ("750803447", 0),
        ("499700367909006", 1),
        ("cabinet m doc0036790", 1),
        ("inconnue", None),
        ("", None),
    ],
)
def test_the_practice_of_the_call_is_recognised(situation: str, found: int | None) -> None:
    from consumer_world import KIT_TWO_PLACES

    expected = None if found is None else KIT_TWO_PLACES.practices[found]
    assert practice_named(KIT_TWO_PLACES, situation) == expected
