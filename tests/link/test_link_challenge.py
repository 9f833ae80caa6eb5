"""The three traits as visitors write them."""

from __future__ import annotations

import datetime as dt
import time

import pytest

from drimbox.link.challenge import Incomplete, answers_of


@pytest.mark.requirement("D19")
@pytest.mark.parametrize(
    "written",
    [
        "28/03/1979",
        " 28 / 3 / 1979 ",
        "28.03.1979",
        "28-3-1979",
        "28 03 1979",
        "28  3  1979",
        "28031979",
        "28\t03\t1979",
    ],
)
def test_a_birth_date_in_any_usual_form(written: str) -> None:
    answers = answers_of({"naissance": written, "sexe": "F", "lieu": "63220"})
    assert answers.birth_date == dt.date(1979, 3, 28)


@pytest.mark.parametrize("written", ["", "1979", "28/03/79", "31/02/1979", "28//03/1979", "2" + " " * 30 + "3/1979"])
def test_what_is_no_date(written: str) -> None:
    with pytest.raises(Incomplete) as refused:
        answers_of({"naissance": written, "sexe": "F", "lieu": "63220"})
    assert refused.value.code == "link-birth-date"


def test_the_time_taken_does_not_grow_with_what_a_stranger_types() -> None:
    began = time.process_time()
    with pytest.raises(Incomplete):
        answers_of({"naissance": "2" + " " * 100_000, "sexe": "F", "lieu": "63220"})
    # Matching in cubic time would take centuries.
    assert time.process_time() - began < 5
