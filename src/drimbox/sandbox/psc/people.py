"""The test professionals: who may log in, and the practices that userinfo tells of them (standards.md F.4).

They are the professionals of the official samples (``official-data.md`` 4.1, 5 and 6.2); only where they practise
follows the sites that the sandbox plays.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Provider part of ``sub``: ``f:<storage>:<national id>``, the form of the real one.
_STORAGE = "7f1d4c52-6f0b-4f0e-9a53-3d9a1c6f5b21"


@dataclass(frozen=True, slots=True)
class Workplace:
    """A structure where somebody practises.

    ``identifier`` is its Struct_IdNat (standards.md K.1); ``sector`` a code of 1.2.250.1.71.4.2.4; ``technical_id`` the
    identifier of the national directory, which is ``F`` + FINESS for a structure that has one.
    """

    identifier: str
    name: str
    sector: str
    technical_id: str = ""
    postal_code: str = "75009"
    city: str = "PARIS"

    @property
    def finess(self) -> str:
        """The FINESS when the structure is known by it, else empty."""
        return self.identifier[1:] if self.identifier.startswith("1") else ""

    @property
    def siret(self) -> str:
        """The SIRET when the structure is known by it, else empty."""
        return self.identifier[1:] if self.identifier.startswith("3") else ""

    @property
    def directory_id(self) -> str:
        """``identifiantTechniqueDeLaStructure``."""
        return self.technical_id or (f"F{self.finess}" if self.finess else "")


@dataclass(frozen=True, slots=True)
class Activity:
    """One place of one profession. ``mode``: ``L`` self-employed, ``S`` employed; ``role`` for want of a profession."""

    place: Workplace
    mode: str = "S"
    role: str = ""


@dataclass(frozen=True, slots=True)
class Exercise:
    """One ``exercice``: profession code of 1.2.250.1.71.1.2.7, speciality code of 1.2.250.1.71.4.2.5."""

    profession: str
    label: str
    activities: tuple[Activity, ...]
    speciality: str = ""
    speciality_label: str = ""


@dataclass(frozen=True, slots=True)
class User:
    """A test professional. ``login`` names the e-CPS on the login page; ``national_id`` is the PS_IdNat (``8`` + RPPS).

    ``role`` is ``SubjectRole``: ``<code>^<OID>``.
    """

    login: str
    national_id: str
    family: str
    given: str
    role: str
    exercises: tuple[Exercise, ...]
    civility: str = "M"
    civility_of_practice: str = ""

    @property
    def subject(self) -> str:
        """``sub``: the technical identifier."""
        return f"f:{_STORAGE}:{self.national_id}"

    @property
    def first_place(self) -> Workplace | None:
        """Where the first activity is, if there is one."""
        for exercise in self.exercises:
            for activity in exercise.activities:
                return activity.place
        return None


SOURCE_PLACE = Workplace("1750803447", "Centre de radiologie Ambroise", "SA08", postal_code="75010")
CONSUMER_PLACE = Workplace("499700367909006", "CABINET M DOC0036790", "SA07", technical_id="R100036")

_DOCTOR = "10^1.2.250.1.213.1.1.5.5"
_SECRETARY = "SECRETARIAT_MEDICAL^1.2.250.1.213.1.1.4.6"


def sample_users(source: Workplace = SOURCE_PLACE, consumer: Workplace = CONSUMER_PLACE) -> tuple[User, ...]:
    """The three test logins: one practice (at ``consumer``), several (at both), and nobody who may fetch images."""
    return (
        User(
            login="doc0036790",
            national_id="899700367909",
            family="DOC0036790",
            given="KIT",
            role=_DOCTOR,
            civility_of_practice="DR",
            exercises=(
                Exercise(
                    "10",
                    "Médecin",
                    (Activity(consumer, mode="L"),),
                    speciality="SM26",
                    speciality_label="Qualifié en médecine générale",
                ),
            ),
        ),
        User(
            login="bideault",
            national_id="801234560801",
            family="BIDEAULT",
            given="JACQUES",
            role=_DOCTOR,
            civility_of_practice="DR",
            exercises=(
                Exercise(
                    "10",
                    "Médecin",
                    (Activity(source, mode="L"), Activity(consumer, mode="S")),
                    speciality="SM44",
                    speciality_label="Radio-diagnostic",
                ),
            ),
        ),
        User(
            login="eric",
            national_id="801234564895",
            family="ERIC",
            given="THOMAS",
            role=_SECRETARY,
            exercises=(Exercise("", "Secrétariat médical", (Activity(consumer, role="SECRETARIAT_MEDICAL"),)),),
        ),
    )
