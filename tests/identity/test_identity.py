"""INS keys and the comparison of names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.foundation.errors import Refused
from drimbox.identity.ins import Authority, Ins, key
from drimbox.identity.traits import Sex, normal, parse_date, same_name

TEST = Authority.NIR_TEST.oid
OFFICIAL = [
    "279035121518989",
    "162018885045327",
    "207058575627097",
    "248039263001064",
    "274075176079430",
    "146026322000196",
    "185012A00412389",
    "185012B00412319",
]


@pytest.mark.requirement("D4")
@pytest.mark.parametrize("matricule", OFFICIAL)
def test_official_matricules_have_the_right_key(matricule: str) -> None:
    assert Ins.of(matricule, TEST).cx() == f"{matricule}^^^&1.2.250.1.213.1.4.10&ISO^NH"


@given(st.sampled_from(OFFICIAL), st.integers(0, 14), st.sampled_from("0123456789"))
def test_one_wrong_digit_is_always_seen(matricule: str, position: int, digit: str) -> None:
    changed = matricule[:position] + digit + matricule[position + 1 :]
    if changed == matricule:
        return
    with pytest.raises(Refused) as caught:
        Ins.of(changed, TEST)
    assert changed not in str(caught.value)


@given(st.text(max_size=20))
def test_anything_else_is_refused(text: str) -> None:
    try:
        ins = Ins.of(text, TEST)
    except Refused:
        return
    assert key(ins.matricule[:13]) == ins.matricule[13:]


def test_an_unknown_authority_is_refused_and_nothing_shows_in_a_repr() -> None:
    with pytest.raises(Refused):
        Ins.of(OFFICIAL[0], "1.2.250.1.213.1.4.2")
    assert OFFICIAL[0] not in repr(Ins.of(OFFICIAL[0], TEST))


@pytest.mark.requirement("D4")
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("PAT-TROIS", "pat trois"),
        ("D'ÉTÉ", "D ETE"),
        ("CŒUR", "coeur"),
        ("MÜLLER", "Müller"),
        ("Jean-Noël", "JEAN NOEL"),
    ],
)
def test_names_agree_but_for_writing(left: str, right: str) -> None:
    assert same_name(left, right)
    assert not same_name(left, right + "X")


def test_empty_names_never_agree() -> None:
    assert not same_name("", "")
    assert not same_name("-", " ")


@given(st.text(max_size=30))
def test_normalising_twice_is_normalising_once(name: str) -> None:
    assert normal(normal(name)) == normal(name)


def test_dates_and_sexes() -> None:
    assert parse_date("1979-03-28") == parse_date("19790328") == parse_date("19790328101500+0100")
    assert Sex.of("f") is Sex.FEMALE
    assert Sex.of("I") is Sex.UNKNOWN
    for bad in ("", "1979", "19791340", "28/03/1979"):
        with pytest.raises(Refused):
            parse_date(bad)
