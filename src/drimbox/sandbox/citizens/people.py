"""Who may log in: the official test patient (official-data.md 4.1), as FranceConnect tells of a person."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Citizen:
    """An identity. ``given`` are all given names, blanks between them; ``birth_place`` is empty for a birth abroad."""

    login: str
    family: str
    given: str
    birth_date: str
    gender: str
    birth_place: str
    birth_country: str = "99100"

    def subject(self, client_id: str) -> str:
        """``sub``: another one for each service, 64 hexadecimal digits and ``v1``."""
        return hashlib.sha256(f"{self.login}|{client_id}".encode()).hexdigest() + "v1"

    def claims(self) -> dict[str, str]:
        """Every claim, whatever was asked for."""
        return {
            "family_name": self.family,
            "given_name": self.given,
            "birthdate": self.birth_date,
            "gender": self.gender,
            "birthplace": self.birth_place,
            "birthcountry": self.birth_country,
        }


TEST_CITIZEN = Citizen("dominique", "PAT-TROIS", "Dominique", "1979-03-28", "female", "51215")
