"""What the judge knows when a request comes: who exists, what is allowed, the time, what it holds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from drimbox.sandbox.dmp.certificates import Anchors
from drimbox.sandbox.dmp.schemas import Schemas
from drimbox.sandbox.dmp.store import Store

# An OID under the UUID root, so that it is nobody's; the RepositoryUniqueId of this DMP.
REPOSITORY = "2.25.293146917212058104137221930611862534529"


class RecordStatus(StrEnum):
    """The state of a patient's DMP."""

    ACTIVE = "active"
    CLOSED = "closed"
    NONE = "none"


class Authorisation(StrEnum):
    """May this professional consult the DMP of this patient?"""

    VALID = "VALIDE"
    ABSENT = "INEXISTANTE"
    EXPIRED = "EXPIREE"
    BLOCKED = "INTERDIT"


@dataclass(frozen=True, slots=True)
class KnownStructure:
    """A structure that the DMP knows.

    ``identifier`` is the Struct_IdNat of the site (``1`` + FINESS EG), ``legal_identifier`` that of its legal entity
    (FINESS EJ) when it may identify itself in mode EJ/EG; ``allowed`` False refuses every request in its name.
    """

    identifier: str
    name: str
    legal_identifier: str = ""
    allowed: bool = True

    @property
    def identifiers(self) -> frozenset[str]:
        return frozenset({self.identifier, self.legal_identifier} - {""})


@dataclass(frozen=True, slots=True)
class KnownPatient:
    """A patient, the state of the DMP, and the authorisations that stand at the start, by PS_IdNat.

    ``birth_date`` and ``closed_on`` are ``YYYYMMDD``; ``closing`` is the (code, label) of the reason.
    """

    ins: str
    oid: str
    family: str
    given: str
    birth_date: str = ""
    sex: str = ""
    status: RecordStatus = RecordStatus.ACTIVE
    closed_on: str = ""
    closing: tuple[str, str] = ("", "")
    authorisations: Mapping[str, Authorisation] = field(default_factory=dict)

    @property
    def cx(self) -> str:
        return f"{self.ins}^^^&{self.oid}&ISO^NH"

    def __repr__(self) -> str:
        return f"KnownPatient(…, status={self.status})"


@dataclass(frozen=True, slots=True)
class Policy:
    """What this DMP tolerates. Times in seconds, sizes in bytes.

    ``cumulative_masks`` False refuses a document masked to professionals and hidden from the patient at once
    (EX_2.1-1050 with the DMP parameter cumul-invisible_patient-masque_ps at false).
    """

    vihf_versions: frozenset[str] = frozenset({"3.0"})
    accept_sha1: bool = False
    cumulative_masks: bool = True
    assertion_age: float = 300
    clock_skew: float = 60
    max_request: int = 32 * 2**20
    max_document: int = 5 * 2**20
    max_results: int = 1000
    repository: str = REPOSITORY


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything a rule may look at besides the message. Made anew for each request."""

    now: dt.datetime
    policy: Policy
    anchors: Anchors
    schemas: Schemas
    structures: tuple[KnownStructure, ...]
    patients: Mapping[str, KnownPatient]
    store: Store

    def structure(self, identifier: str) -> KnownStructure | None:
        """The structure that goes by this Struct_IdNat, as itself or as its legal entity."""
        exact = [s for s in self.structures if s.identifier == identifier]
        legal = [s for s in self.structures if s.legal_identifier == identifier]
        return next(iter(exact + legal), None)

    def one_structure(self, left: str, right: str) -> bool:
        """Do two Struct_IdNat stand for one structure: equal, or a site and its legal entity?"""
        return left == right or any({left, right} == s.identifiers for s in self.structures)

    def patient(self, cx: str) -> KnownPatient | None:
        return self.patients.get(cx)

    def skewed(self, seconds: float) -> dt.datetime:
        return self.now + dt.timedelta(seconds=seconds)
