"""When a certificate is renewed, when a failure is tried again, and whom to ask: for any dates and any failures."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.certificates import schedule
from drimbox.certificates.acme.messages import RenewalWindow
from drimbox.certificates.schedule import Trouble, authority_for, renewal_time

UTC = st.just(dt.UTC)
INSTANTS = st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2090, 1, 1), timezones=UTC)  # noqa: DTZ001 - UTC is added
LIVES = st.timedeltas(dt.timedelta(hours=1), dt.timedelta(days=400))
SERIALS = st.integers(1, 2**160)


@pytest.mark.requirement("DB.SO.90")
@given(INSTANTS, LIVES, SERIALS)
def test_by_two_thirds_of_the_life(start: dt.datetime, life: dt.timedelta, serial: int) -> None:
    at = renewal_time(start, start + life, serial)
    assert 0.6366 <= (at - start) / life <= 0.6667
    # The same on every node and after every restart.
    assert renewal_time(start, start + life, serial) == at


def test_sites_that_began_together_do_not_stay_together() -> None:
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    days = {renewal_time(start, start + dt.timedelta(days=90), serial).date() for serial in range(1, 200)}
    assert len(days) >= 3


@given(INSTANTS, LIVES, SERIALS, INSTANTS, LIVES)
def test_a_window_is_followed_as_long_as_it_leaves_time(
    start: dt.datetime, life: dt.timedelta, serial: int, opens: dt.datetime, length: dt.timedelta
) -> None:
    at = renewal_time(start, start + life, serial, RenewalWindow(opens, opens + length))
    assert at <= start + life * schedule.LAST_CHANCE
    if opens < start + life * schedule.LAST_CHANCE:
        assert opens <= at <= opens + length
    else:
        assert at == renewal_time(start, start + life, serial)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_and_end(failures: int, drawn: float) -> None:
    found = schedule.pause(failures, drawn)
    assert 0.8 * schedule.FIRST_PAUSE <= found <= 1.2 * schedule.LONGEST_PAUSE
    assert schedule.pause(failures + 1, drawn) >= found


TROUBLES = st.builds(
    lambda failures, until, imposed, final: Trouble(failures, until, imposed, final),
    st.integers(1, 50),
    INSTANTS,
    st.booleans(),
    st.booleans(),
)


@given(TROUBLES)
def test_a_trouble_is_kept_as_it_is(trouble: Trouble) -> None:
    assert Trouble.of_json(trouble.to_json()) == trouble


@given(
    st.lists(st.sampled_from("abcd"), unique=True, max_size=4),
    st.dictionaries(st.sampled_from("abcd"), TROUBLES),
    INSTANTS,
)
def test_who_is_asked(directories: list[str], troubles: dict[str, Trouble], now: dt.datetime) -> None:
    chosen, until = authority_for(directories, troubles, now)
    if chosen is not None:
        met = troubles.get(chosen)
        # Nobody is asked before the time, and those before it stand aside for a reason.
        assert met is None or met.over(now)
        for earlier in directories[: directories.index(chosen)]:
            assert troubles[earlier].steps_aside
            assert not troubles[earlier].over(now)
    elif directories:
        # Never for ever, whatever the clock did.
        assert until is not None
        assert dt.timedelta(0) < until - now <= dt.timedelta(seconds=1.2 * schedule.LONGEST_IMPOSED)
    else:
        assert until is None
