"""What must be done about a study that others than a report speak of: a PACS, an order, the operator, a walk. Pure.

In two steps, as for a report (``decide``): ``decide_by_record`` with what the box knows, then ``decide_by_pacs``.
A study is in the DMP when a report stands on it, nobody declared it deleted, and the PACS has images of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from drimbox.manifest.compare import Change, compare
from drimbox.manifest.manifest import Manifest
from drimbox.publication.checks import Finding, Severity
from drimbox.publication.decide import Depublish, Move, Nothing, PublishNew, Replace, Stop, Why
from drimbox.publication.kos import ArchivedKos, History
from drimbox.reports.report import Report

ByRecord = Depublish | Nothing
ByPacs = PublishNew | Replace | Move | Depublish | Nothing | Stop

# How these are worded is the maker's own, and the PACS says nothing of them.
_MAKERS_WORDS = frozenset({Change.PATIENT, Change.INSTITUTION})


def decide_by_record(current: ArchivedKos | None, history: History, *, withdrawn: bool) -> ByRecord | None:
    """What is decided without the PACS; None when it must be asked.

    ``withdrawn``: the study was declared deleted (OMI^O23, ORC-1 CA), and nothing spoke of it since.
    """
    if current is None and not history.documents:
        return Nothing(Why.NOT_PUBLISHED)
    if withdrawn:
        return Depublish(current) if current is not None else Nothing(Why.WITHDRAWN)
    return None


def decide_by_pacs(report: Report, images: bool, findings: Sequence[Finding], current: ArchivedKos | None) -> ByPacs:
    """What is decided once every PACS answered; ``images``: one has images of the study that nobody rejected.

    Without images the study leaves the DMP and its reports stand on, so that its return publishes it again (decision
    7, DB.SO.26, DB.SO.28). A study that the PACS now tells of another patient or of another accession number (a
    blocking finding) is left as it is in the DMP: what stands there was right when it was published, the mistake may be
    the PACS's, and it is the operator who must know.
    """
    if not images:
        return Depublish(current) if current is not None else Nothing(Why.NOT_IN_PACS)
    blocking = tuple(f for f in findings if f.severity is Severity.BLOCKING)
    if blocking:
        return Stop((changed_identity(blocking, current),))
    if current is None:
        return PublishNew()
    return Move(current) if current.ins != report.patient.ins else Replace(current)


def changed_identity(blocking: Sequence[Finding], current: ArchivedKos | None) -> Finding:
    """One finding that says what the PACS tells otherwise, and what became of the KOS."""
    reasons = " ; ".join(finding.reason for finding in blocking)
    kept = "le KOS publié est laissé tel quel au DMP" if current is not None else "rien n'est publié"
    return Finding(
        "identity",
        Severity.BLOCKING,
        f"Le PACS ne décrit plus l'examen comme le compte rendu publié, {kept} : {reasons}",
    )


def shows_the_same(published: Manifest, proposed: Manifest) -> bool:
    """Would a new version show the same, where no report says more than the archive does?

    Whatever another product words in its own way is left as it is: what says nothing new is not sent (EX_GEN-1060).
    """
    return compare(published, proposed).changes <= _MAKERS_WORDS
