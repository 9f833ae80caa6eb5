"""What PSC may answer while a device is asked: anything at all ends in a meaning or in an error of ours."""

from __future__ import annotations

import datetime as dt
import json
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from drimbox.foundation.errors import Busy, DrimboxError, Rejected, Unavailable
from drimbox.foundation.http_client import Reply
from drimbox.national.psc.ciba import Waiting, device_request, still_waiting

NOW = dt.datetime(2024, 3, 1, 9, tzinfo=dt.UTC)


def reply(status: int, content: object) -> Reply:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Reply(status, CIMultiDictProxy(CIMultiDict()), body)


def test_an_acknowledgement() -> None:
    request = device_request(reply(200, {"auth_req_id": "x" * 43, "expires_in": 120, "interval": 2}), NOW)
    assert (request.expires_at, request.interval) == (NOW + dt.timedelta(minutes=2), 2.0)
    assert "x" * 43 not in repr(request)


def test_what_is_not_said_is_what_the_protocol_says() -> None:
    request = device_request(reply(200, {"auth_req_id": "x" * 43, "expires_in": 120}), NOW)
    assert request.interval == 5.0


def test_a_request_never_waits_for_ever_nor_asks_without_a_pause() -> None:
    request = device_request(reply(200, {"auth_req_id": "x" * 43, "expires_in": 10**9, "interval": 0}), NOW)
    assert request.expires_at <= NOW + dt.timedelta(minutes=10)
    assert request.interval >= 1


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("access_denied", "login-refused"),
        ("expired_token", "login-late"),
        ("invalid_grant", "login-late"),
        ("transaction_failed", "login-late"),
        ("unknown_user_id", "psc-device"),
    ],
)
def test_why_there_will_be_no_tokens(word: str, code: str) -> None:
    with pytest.raises(Rejected) as refused:
        still_waiting(reply(400, {"error": word, "error_description": "secret"}))
    assert refused.value.code == code
    assert "secret" not in refused.value.reason


def test_not_yet() -> None:
    assert still_waiting(reply(400, {"error": "authorization_pending"})) is Waiting.PENDING
    assert still_waiting(reply(400, {"error": "slow_down"})) is Waiting.SLOW_DOWN
    assert still_waiting(reply(200, {"access_token": "x"})) is None


def test_an_outage_is_one() -> None:
    with pytest.raises(Busy):
        still_waiting(reply(503, b""))
    with pytest.raises(Unavailable):
        device_request(reply(200, b"<html>"), NOW)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)


@given(
    status=st.sampled_from([200, 204, 302, 400, 401, 403, 429, 500, 502, 503]),
    content=st.binary(max_size=60)
    | ANYTHING
    | st.fixed_dictionaries(
        {}, optional={"error": ANYTHING, "auth_req_id": ANYTHING, "expires_in": ANYTHING, "interval": ANYTHING}
    ),
)
@example(status=200, content={"auth_req_id": "x", "expires_in": float("nan")})
@example(status=200, content={"auth_req_id": "x", "expires_in": 1e308, "interval": -5})
@example(status=400, content={"error": ["authorization_pending"]})
def test_anything_ends_in_a_meaning_or_in_an_error(status: int, content: object) -> None:
    for read in (lambda r: device_request(r, NOW), still_waiting):
        with suppress(DrimboxError):
            read(reply(status, content))
