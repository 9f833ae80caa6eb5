"""How passwords are kept, and which are good enough."""

from __future__ import annotations

import asyncio
import time
import unicodedata

import pytest
from console_world import CHEAP
from hypothesis import given
from hypothesis import strategies as st

from drimbox.console.passwords import (
    Cost,
    Hasher,
    PasswordRules,
    hashed,
    matches,
    outdated,
    provisional,
    weaknesses,
)
from drimbox.foundation.errors import Busy


@given(st.text(max_size=100), st.text(max_size=100))
def test_only_the_same_password_matches(password: str, other: str) -> None:
    kept = hashed(password, CHEAP)
    assert matches(password, kept)
    assert matches(unicodedata.normalize("NFD", password), kept)
    same = unicodedata.normalize("NFC", password) == unicodedata.normalize("NFC", other)
    assert matches(other, kept) == same


def test_what_is_kept_is_salted_versioned_and_strong() -> None:
    first, second = hashed("Vert-de-gris 1950 !"), hashed("Vert-de-gris 1950 !")
    assert first != second
    scheme, log2_n, r, p, salt, digest = first.split("$")
    assert scheme == "scrypt-1"
    assert 128 * int(r) * 2 ** int(log2_n) * int(p) >= 128 * 2**20
    assert (len(salt), len(digest)) == (24, 44)
    assert not outdated(first)
    assert outdated(hashed("x", CHEAP))
    with pytest.raises(ValueError, match="scheme"):
        matches("x", first.replace("scrypt-1", "scrypt-9"))


RULES = PasswordRules()
REFUSED = {
    "eight, lower and upper": "abcdEFGH",
    "eight, lower and digits": "abcd1234",
    "eight, lower and others": "abcd-_!?",
    "fourteen digits": "12345678901234",
    "long, but two kinds": "abcdefghijklmnopQRSTUV",
    "eleven of four kinds": "aB3-efghijk",
    "the login in it": "xX1!kit.doc0036790-zz",
    "one character again and again": "aA1!aA1!aA1!aA1!",
    "a control character": "Vert-de-gris\x001950 !",
    "endless": "aB3-efghijkl" * 40,
}


@pytest.mark.requirement("IAM.92", "SSI/IE.36")
@pytest.mark.parametrize("name", REFUSED)
def test_weak_passwords_are_refused_with_the_reason(name: str) -> None:
    assert weaknesses(REFUSED[name], RULES, login="Kit.Doc0036790", administrator=False)


@pytest.mark.requirement("IAM.92")
def test_administrators_need_fifteen_characters() -> None:
    twelve = "aB3-efghijkl"
    assert weaknesses(twelve, RULES, login="x.y", administrator=False) == ()
    [wrong] = weaknesses(twelve, RULES, login="x.y", administrator=True)
    assert "15" in wrong
    assert weaknesses(twelve + "mno", RULES, login="x.y", administrator=True) == ()
    # A longer length for everybody holds for administrators too.
    long = PasswordRules(min_length=20)
    assert weaknesses("aB3-efghijklmno", long, login="x.y", administrator=True)


def test_provisional_passwords_pass_any_rules_and_never_repeat() -> None:
    made = {provisional() for _ in range(200)}
    assert len(made) == 200
    for password in made:
        assert weaknesses(password, PasswordRules(min_length=24), login="x.y", administrator=True) == ()


async def test_without_a_hash_to_compare_to_the_time_is_the_same_and_the_answer_no() -> None:
    hasher = Hasher(Cost())
    kept = await hasher.hashed("Vert-de-gris 1950 !")

    async def seconds(against: str | None) -> float:
        times = []
        for _ in range(3):
            began = time.perf_counter()
            assert not await hasher.matches("autre chose", against)
            times.append(time.perf_counter() - began)
        return min(times)

    assert not await hasher.matches("Vert-de-gris 1950 !", None)
    known, unknown = await seconds(kept), await seconds(None)
    assert 0.5 < unknown / known < 2
    assert min(known, unknown) > 0.05


async def test_a_crowd_at_the_door_is_sent_away_rather_than_take_the_memory() -> None:
    hasher = Hasher(Cost(log2_n=13))
    answers = await asyncio.gather(*(hasher.matches("x", None) for _ in range(60)), return_exceptions=True)
    busy = [a for a in answers if isinstance(a, Busy)]
    assert len(busy) == 60 - 18
    assert [a for a in answers if not isinstance(a, Busy)] == [False] * 18
    # The door is open again.
    assert await hasher.matches("x", await hasher.hashed("x"))
