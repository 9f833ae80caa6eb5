"""Everything that a publication uses, as the composition root gives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from drimbox.foundation.clock import PARIS, Clock
from drimbox.publication.archive import Archive
from drimbox.publication.changed import ChangedStudies
from drimbox.publication.checks import Range
from drimbox.publication.kos import ArchivedKos
from drimbox.publication.ledger import Ledger
from drimbox.publication.ports import OrderLoader, Registry, ReportLoader, Sites
from drimbox.reports.report import Report, Structure


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says of publications.

    ``ins_range`` is the range of the box, ``retrieve_base`` the WADO-RS address of this source (before ``/studies``),
    ``uid_root`` the root of KOS UIDs (empty: ``2.25.<uuid>``), ``zone`` where its studies are made.
    """

    ins_range: Range
    retrieve_base: str
    match_patient_name: bool = True
    uid_root: str = ""
    manufacturer: str = "drimbox"
    zone: ZoneInfo = PARIS


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a publication uses.

    ``recollect`` makes a report again from what an archived version says, for a structure: an imported version comes
    without the message that it was made from (``portability.recollect``).
    """

    reports: ReportLoader
    orders: OrderLoader
    changes: ChangedStudies
    recollect: Callable[[ArchivedKos, Structure], Report]
    sites: Sites
    registry: Registry
    archive: Archive
    ledger: Ledger
    clock: Clock
    rules: Rules
