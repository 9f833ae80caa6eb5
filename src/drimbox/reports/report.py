"""The report as the rest of the box knows it: no HL7, no CDA, only what they said."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from enum import Enum

from drimbox.identity.traits import Patient


class Operation(Enum):
    """What the message asks for. Carrier codes must all agree (CI-SIS volet; official-data.md 4.3)."""

    NEW = "new"
    REPLACE = "replace"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Identifier:
    """A value with the OID of its issuer, empty when none was given."""

    value: str
    issuer: str = ""


@dataclass(frozen=True, slots=True)
class Coded:
    """A code of a code system, with its French label."""

    code: str
    system: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """One ``inFulfillmentOf/order``: placer order numbers, and accession numbers with their issuer."""

    placer: Identifier | None
    accession: Identifier | None


@dataclass(frozen=True, slots=True)
class Act:
    """One ``serviceEvent`` that names at least one study."""

    study_uids: tuple[str, ...]
    code: Coded | None
    procedure: Coded | None  # CCAM
    modalities: tuple[Coded, ...]
    regions: tuple[Coded, ...]
    start: dt.datetime | None
    stop: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Structure:
    """An organisation by its national id ``Struct_IdNat``: ``1``+FINESS, ``3``+SIRET… (standards.md D.5)."""

    identifier: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Person:
    """A professional by national id ``PS_IdNat`` (``8``+RPPS…); ``profession`` and ``speciality`` codes when known."""

    identifier: str
    family: str
    given: str
    profession: Coded | None = None
    speciality: Coded | None = None


@dataclass(frozen=True, slots=True)
class Visibility:
    """Who may see the report in the DMP; the KOS follows it (decision 6)."""

    masked_to_professionals: bool = False
    hidden_from_patient: bool = False
    hidden_from_representatives: bool = False
    secret_connection: bool = False


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent the message: MSH-3 and MSH-4, and the person and structure of PRT ``SB`` where given."""

    application: str
    facility: str
    person: Person | None = None
    structure: Structure | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """One imaging report, as one message brought it.

    ``patient`` is the CDA's; ``message_patient`` the PID's: the checks of decision 4 compare the two.
    ``document_id`` is the CDA ``id@root`` (``root^extension`` if it has an extension);
    ``replaces`` the document that it replaces. ``signatory`` and ``structure`` are the CDA legal authenticator's.
    ``patient_class`` is PV1-2 (E, I, O, R, N), from which the content type of the submission set follows.
    ``publish_to_dmp`` is the flag DESTDMP; ``visibility_changed`` is MODIF_CONF_CODE.
    """

    operation: Operation
    document_id: str
    replaces: str | None
    title: str
    created: dt.datetime | None
    language: str
    patient: Patient
    message_patient: Patient
    orders: tuple[Order, ...]
    acts: tuple[Act, ...]
    author: Person | None
    signatory: Person
    structure: Structure
    practice_setting: Coded | None
    facility_type: Coded | None
    patient_class: str
    visibility: Visibility
    visibility_changed: bool
    publish_to_dmp: bool
    sender: Sender
    warnings: tuple[str, ...] = field(default=())

    def study_uids(self) -> tuple[str, ...]:
        """Distinct Study Instance UIDs, in the order of the document (DB.SO.12)."""
        return tuple(dict.fromkeys(uid for act in self.acts for uid in act.study_uids))

    def accession_numbers(self) -> tuple[Identifier, ...]:
        """Distinct accession numbers of the header (DB.SO.17)."""
        return tuple(dict.fromkeys(o.accession for o in self.orders if o.accession is not None))


def normal_structure_id(identifier: str, kind: str = "") -> str:
    """A ``Struct_IdNat`` from what messages carry: a bare 9-character FINESS gets its type digit ``1``.

    ``kind`` is PRT-8.7 when known (``FINEG``, ``FINEJ``, ``IDNST``). ``750803447`` and ``1750803447`` are equal.
    """
    cleaned = identifier.strip()
    if kind.upper() in ("FINEG", "FINEJ") and len(cleaned) == 9:
        return f"1{cleaned}"
    if not kind and len(cleaned) == 9:
        return f"1{cleaned}"
    return cleaned
