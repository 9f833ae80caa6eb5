"""The list of exams, and what is done about access and identity."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from drimbox.box.settings.common import Section


class ListSection(Section):
    """The list of exams of the consumer."""

    rows: int = Field(100, ge=10, le=1000, description="rows shown at once; more are one click away")
    kos_ahead: int = Field(
        20,
        ge=0,
        le=200,
        description="KOS of the first rows that are read before anyone opens them: their description, their series and "
        "their patient are then known; 0: each is read when it is opened",
    )
    probe_sources: bool = Field(
        True, description="are the sources of those KOS asked whether they answer (Capabilities, DB.CO.112)"
    )
    find_in_pacs: bool = Field(
        True,
        description="are the PACSs of the structure asked (C-FIND) which of the studies they hold already",
    )
    report_types: tuple[str, ...] = Field(
        ("18748-4^2.16.840.1.113883.6.1^CR d'imagerie médicale",),
        min_length=1,
        description="typeCodes of the reports that are searched for and joined to their images: `code^OID^label` "
        "(DMP/UX.17)",
    )
    news_days: int = Field(
        90,
        ge=1,
        le=3650,
        description="days back that documents are told as new to who sees the patient for the first time (DMP/UX.15)",
    )
    visit_days: int = Field(
        400, ge=1, le=3650, description="days after which the last visit of a user to a patient's list is forgotten"
    )

    @field_validator("report_types")
    @classmethod
    def _coded(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not re.fullmatch(r"[^^]{1,64}\^[0-9.]{3,64}\^[^^]*", each) for each in value):
            raise ValueError("report_types : code^OID^libellé attendu")
        return value


class AccessSection(Section):
    """Access to the DMP."""

    emergency_minutes: float = Field(
        60,
        ge=0,
        le=720,
        description="how long an emergency access (bris de glace) lasts unless it is ended before; 0: none is offered",
    )
    withdraw_on_refusal: bool = Field(
        False,
        description="when the call says that the patient refuses, is the professional offered to take their "
        "authorisation back in the DMP (TD0.3 SUPPRESSION, decision 18)",
    )


class IdentitySection(Section):
    """What is done with a document or an image of the same INS whose other traits are not the call's (INS/va1.36).

    `decide`: both values are shown in red, and going on takes a decision of the professional, which is traced;
    `refuse`: nobody may go on; `show`: both values are shown, and no more.
    """

    traits: Literal["decide", "refuse", "show"] = Field(
        "decide", description="for the birth name, the first birth given name, the birth date, the sex"
    )
    birth_place: Literal["decide", "refuse", "show"] = Field(
        "show", description="for the birth place, which differs in many files of one and the same person"
    )
