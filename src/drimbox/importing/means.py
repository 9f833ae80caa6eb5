"""What every turn of an import takes, and what its sides share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drimbox.foundation.clock import Clock
from drimbox.importing.fetching import LosslessFetcher
from drimbox.importing.ledger import Ledger
from drimbox.importing.naming import ImagePatient
from drimbox.importing.orders import Import, ImportedPatient
from drimbox.importing.ports import AuditJournal, Logins, LosslessTranscoder
from drimbox.importing.targets import Target
from drimbox.record.audit import Event, Kind, Object

#: Errors that say that the user must log in again, not that the source refuses.
LOGIN_CODES = frozenset({"login-ended"})
#: The code of images that name the patient otherwise: the user may decide to import them all the same.
TRAITS_DIFFER = "traits-differ"
DISK = "Espace disque insuffisant sur la DRIMbox"

#: Which traits of an image (DICOM PN, DA, CS) are not those of the import's patient, in French; never their values.
Differing = Callable[[ImportedPatient, ImagePatient], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Means:
    """What every turn takes.

    ``tries``: how often an instance is offered to a target that might take it later; ``differing`` compares the patient
    of each image with the import's, None compares the INS alone.
    """

    ledger: Ledger
    targets: Mapping[str, Target]
    fetcher: LosslessFetcher
    logins: Logins
    journal: AuditJournal
    transcoder: LosslessTranscoder
    clock: Clock
    folder: Path
    box_name: str = "drimbox"
    whole_series: bool = False
    tries: int = 4
    differing: Differing | None = None


def event_of(order: Import, kind: Kind, objects: Sequence[Object]) -> Event:
    """What the audit journal is told of an import."""
    return Event(kind, order.actor, tuple(objects), structure=order.structure, patient=order.patient.ins)
