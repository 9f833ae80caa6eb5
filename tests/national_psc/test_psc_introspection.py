"""Whose bearer is it, is it still good, and how long may we remember the answer?"""

import asyncio
import base64
import datetime as dt
import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psc_double import SUBJECT, PscDouble, error, raw

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import Misconfigured, Unavailable
from drimbox.national.psc.cache import IntrospectionCache
from drimbox.national.psc.client import PscClient
from drimbox.national.psc.introspection import INACTIVE, Introspection, read_introspection

START = dt.datetime(2026, 1, 5, 12, tzinfo=dt.UTC)
CERTIFICATE = b"a certificate"
HASH = hashlib.sha256(CERTIFICATE)
TOKEN = "eyJhbGciOiJSUzI1NiJ9.token"


@pytest.mark.requirement("DB.SO.33", "D17")
async def test_an_active_token(psc: PscDouble, client: PscClient) -> None:
    psc.answers["introspect"] = {
        "active": True,
        "exp": psc.seconds(100),
        "typ": "Bearer",
        "sub": SUBJECT,
        "SubjectNameID": "899700218896",
        "SubjectRole": ["10^1.2.250.1.213.1.1.5.5"],
        "cnf": {"x5t#S256": "abc"},
    }
    assert await client.introspect(TOKEN) == Introspection(
        active=True,
        expires_at=psc.clock.now() + dt.timedelta(seconds=100),
        national_id="899700218896",
        subject=SUBJECT,
        profession="10",
        confirmation="abc",
    )
    assert psc.asked[-1].form == {"token": TOKEN}


@pytest.mark.requirement("DB.SO.33")
@pytest.mark.parametrize(
    "content",
    [
        {},
        {"active": False, "exp": 4_000_000_000},
        {"active": "true"},
        {"active": 1},
        {"active": True, "typ": "Refresh"},
        {"active": True, "typ": "ID"},
    ],
)
def test_what_does_not_say_active_is_not(content: dict[str, Any]) -> None:
    assert read_introspection(content) == INACTIVE


@given(
    st.dictionaries(
        st.sampled_from(["active", "exp", "typ", "sub", "SubjectRole", "cnf"]),
        st.just(None) | st.booleans() | st.floats() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2),
    )
)
def test_any_answer_is_read(content: dict[str, Any]) -> None:
    read = read_introspection(content)
    assert not read.active or content["active"] is True


@pytest.mark.requirement("DB.SO.33")
async def test_what_is_no_token_is_refused_without_asking(psc: PscDouble, client: PscClient) -> None:
    for junk in ("", " ", "a b", "é" * 20, "x" * 20_000, "token\r\nX: y", "short"):
        assert await client.introspect(junk) == INACTIVE
    assert psc.asked == []


async def test_psc_that_cannot_say_is_not_a_no(psc: PscDouble, client: PscClient) -> None:
    for answer in (raw(b"", 503), raw(b"<html>"), raw(b"", 404)):
        psc.answers["introspect"] = answer
        with pytest.raises(Unavailable):
            await client.introspect(TOKEN)
    psc.answers["introspect"] = error("invalid_client", 401)
    with pytest.raises(Misconfigured):
        await client.introspect(TOKEN)


@pytest.mark.requirement("D17")
@pytest.mark.parametrize(
    "confirmation",
    [
        base64.urlsafe_b64encode(HASH.digest()).rstrip(b"=").decode(),
        base64.urlsafe_b64encode(HASH.digest()).decode(),
        base64.b64encode(HASH.digest()).decode(),
        base64.b64encode(HASH.hexdigest().encode()).decode(),
        base64.urlsafe_b64encode(HASH.hexdigest().upper().encode()).rstrip(b"=").decode(),
    ],
)
def test_a_token_bound_to_a_certificate(confirmation: str) -> None:
    bound = Introspection(active=True, confirmation=confirmation)
    assert bound.allows(CERTIFICATE)
    assert not bound.allows(CERTIFICATE + b"!")
    assert not bound.allows(None)


@pytest.mark.requirement("D17")
def test_how_a_token_is_bound() -> None:
    free = read_introspection({"active": True})
    assert free.allows(None)
    assert free.allows(CERTIFICATE)
    for unknown in ({}, {"jkt": "abc"}, {"x5t#S256": 7}, {"x5t#S256": "é"}, "abc", []):
        strange = read_introspection({"active": True, "cnf": unknown})
        assert not strange.allows(CERTIFICATE)
        assert not strange.allows(None)


class Psc:
    """Answers after a while, and counts."""

    def __init__(self, answer: Introspection | Exception) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def introspect(self, token: str) -> Introspection:
        self.asked.append(token)
        await self.open.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def active(seconds: float | None = 120) -> Introspection:
    return Introspection(active=True, expires_at=None if seconds is None else START + dt.timedelta(seconds=seconds))


@pytest.mark.requirement("D17")
async def test_a_yes_is_remembered_for_a_minute_at_most() -> None:
    clock, psc = FixedClock(START), Psc(active())
    cache = IntrospectionCache(psc, clock, 3600)
    for _ in range(3):
        assert (await cache.introspect(TOKEN)).active
    clock.advance(59)
    await cache.introspect(TOKEN)
    assert len(psc.asked) == 1
    clock.advance(1)
    await cache.introspect(TOKEN)
    assert len(psc.asked) == 2


@pytest.mark.requirement("D17")
async def test_never_past_the_end_of_the_token() -> None:
    clock, psc = FixedClock(START), Psc(active(10))
    cache = IntrospectionCache(psc, clock, 60)
    await cache.introspect(TOKEN)
    clock.advance(10)
    psc.answer = INACTIVE
    assert not (await cache.introspect(TOKEN)).active
    assert len(psc.asked) == 2


@pytest.mark.requirement("D17")
@pytest.mark.parametrize("answer", [INACTIVE, active(None), active(-1)])
async def test_a_no_and_a_yes_without_an_end_are_not_remembered(answer: Introspection) -> None:
    psc = Psc(answer)
    cache = IntrospectionCache(psc, FixedClock(START), 60)
    for _ in range(3):
        assert await cache.introspect(TOKEN) == answer
    assert len(psc.asked) == 3


async def test_zero_seconds_means_no_memory() -> None:
    psc = Psc(active())
    cache = IntrospectionCache(psc, FixedClock(START), 0)
    await cache.introspect(TOKEN)
    await cache.introspect(TOKEN)
    assert len(psc.asked) == 2


async def test_those_who_ask_together_share_one_question() -> None:
    psc = Psc(active())
    psc.open.clear()
    cache = IntrospectionCache(psc, FixedClock(START), 60)
    first = asyncio.create_task(cache.introspect(TOKEN))
    others = [asyncio.create_task(cache.introspect(TOKEN)) for _ in range(5)]
    stranger = asyncio.create_task(cache.introspect(TOKEN + "2"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    psc.open.set()
    assert all(answer.active for answer in await asyncio.gather(*others))
    assert (await stranger).active
    assert sorted(psc.asked) == [TOKEN, TOKEN + "2"]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_an_outage_is_shared_and_not_remembered() -> None:
    psc = Psc(Unavailable("down"))
    cache = IntrospectionCache(psc, FixedClock(START), 60)
    outcomes = await asyncio.gather(*(cache.introspect(TOKEN) for _ in range(4)), return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert len(psc.asked) == 1
    psc.answer = active()
    assert (await cache.introspect(TOKEN)).active


async def test_memory_is_bounded_and_holds_no_token() -> None:
    psc = Psc(active())
    cache = IntrospectionCache(psc, FixedClock(START), 60, capacity=10)
    for number in range(50):
        await cache.introspect(f"token-{number:04}")
    assert len(cache._kept) == 10
    assert "token-" not in repr(vars(cache))
    await cache.introspect("token-0049")
    assert len(psc.asked) == 50
    await cache.introspect("token-0000")
    assert len(psc.asked) == 51


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 90), st.integers(0, 2), st.floats(-5, 150), st.booleans()), max_size=12),
    st.floats(0, 200),
)
def test_no_history_lets_a_token_live_too_long(steps: list[tuple[float, int, float, bool]], max_seconds: float) -> None:
    asyncio.run(_history(steps, max_seconds))


async def _history(steps: list[tuple[float, int, float, bool]], max_seconds: float) -> None:
    clock, psc = FixedClock(START), Psc(INACTIVE)
    cache = IntrospectionCache(psc, clock, max_seconds)
    told: dict[str, tuple[dt.datetime, Introspection]] = {}
    for wait, which, life, is_active in steps:
        clock.advance(wait)
        token = f"token-{which:04}"
        psc.answer = Introspection(is_active, clock.now() + dt.timedelta(seconds=life))
        before = len(psc.asked)
        answer = await cache.introspect(token)
        if len(psc.asked) > before:
            told[token] = (clock.now(), answer)
            continue
        at, remembered = told[token]
        assert answer == remembered
        assert answer.active
        assert answer.expires_at is not None
        assert clock.now() < answer.expires_at
        assert (clock.now() - at).total_seconds() < min(max_seconds, 60) + 1e-3
