"""What must be done about a study, now that a report about it came in. Pure: it touches nothing.

In two steps, since many questions need no PACS: ``decide_by_message``, then ``decide_by_study`` with what the PACS
says; last, ``says_the_same`` spares the DMP a version that says nothing new (EX_GEN-1060, DB.SO.13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from drimbox.manifest.compare import compare
from drimbox.manifest.manifest import Manifest
from drimbox.pacs.study import Study
from drimbox.publication.checks import Finding, Severity
from drimbox.publication.kos import ArchivedKos, History
from drimbox.reports.report import Operation, Report, Visibility


class Why(Enum):
    """Why nothing is to be done; the value is for the operator."""

    SUPERSEDED = "un message plus récent a déjà été traité"
    NOT_FOR_DMP = "le compte rendu n'est pas destiné au DMP (DESTDMP = N)"
    NOT_PUBLISHED = "l'examen n'était pas publié"
    LATE = "un compte rendu plus récent dit ce que le KOS contient"
    OTHER_REPORT = "un autre compte rendu porte encore sur l'examen"
    UNCHANGED = "rien n'a changé depuis la dernière publication"
    NEVER_CARRIED = "le compte rendu supprimé n'a jamais été publié pour cet examen"
    WITHDRAWN = "l'examen a depuis été déclaré supprimé (OMI^O23)"
    NOT_IN_PACS = "le PACS n'a pas d'image de l'examen"


@dataclass(frozen=True, slots=True)
class PublishNew:
    """The study has no KOS in the DMP: publish one."""


@dataclass(frozen=True, slots=True)
class Replace:
    """Publish a new version in the place of the current one."""

    current: ArchivedKos


@dataclass(frozen=True, slots=True)
class Move:
    """The current KOS stands in another patient's record: take it out there, then publish in the right one."""

    current: ArchivedKos


@dataclass(frozen=True, slots=True)
class Depublish:
    """Take the current KOS out of the DMP."""

    current: ArchivedKos


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is nothing to do."""

    why: Why


@dataclass(frozen=True, slots=True)
class Stop:
    """Nothing may be published before the operator has looked; ``findings`` are all blocking."""

    findings: tuple[Finding, ...]


ByMessage = Depublish | Nothing | Stop
ByStudy = PublishNew | Replace | Move | Stop


def decide_by_message(
    report: Report,
    report_id: int,
    study_uid: str,
    current: ArchivedKos | None,
    history: History,
    *,
    withdrawn: bool = False,
) -> ByMessage | None:
    """What the message alone decides; None when the PACS must be asked.

    ``report_id`` grows with the order of arrival: an older message never undoes a newer one on the same document. One
    that was stopped and is taken up late still says what stands. A report stands until it is deleted or replaced, and
    the KOS stays as long as one stands (decisions 2 and 26). ``withdrawn``: since the report came, the study was
    declared deleted; the report stands, for the day when it is there again.
    """
    if history.spoken.get(report.document_id, 0) > report_id:
        return Nothing(Why.SUPERSEDED)
    if not report.publish_to_dmp:
        return Nothing(Why.NOT_FOR_DMP)
    if not withdraws(report, study_uid):
        return Nothing(Why.WITHDRAWN) if withdrawn else None
    if current is None:
        return Nothing(Why.NOT_PUBLISHED)
    if report.operation is Operation.REPLACE and gone_by(report, history).isdisjoint(history.documents):
        # The report never stood here, or does no longer.
        return Nothing(Why.OTHER_REPORT)
    unknown = gone_by(report, history).isdisjoint((*current.document_ids, *history.documents))
    if unknown and history.received:
        # It was stopped, or withdrawn before: what stands is another report's.
        return Nothing(Why.NEVER_CARRIED)
    if current.ins != report.patient.ins:
        return _stop("depublish-patient", "La dépublication demandée porte sur l'examen d'un autre patient")
    if unknown:
        return _stop("depublish-document", "Le compte rendu à dépublier n'est pas un de ceux connus pour cet examen")
    if documents_after(report, report_id, study_uid, history):
        return Nothing(Why.OTHER_REPORT)
    return Depublish(current)


def decide_by_study(
    report: Report, study: Study | None, findings: Sequence[Finding], current: ArchivedKos | None
) -> ByStudy:
    """What to publish, given what the PACS says; ``study`` is None when the PACS holds no such study (DB.SO.15)."""
    if study is None:
        return _stop("study-unknown", "Aucun PACS de la structure ne connaît l'examen du compte rendu")
    blocking = tuple(f for f in findings if f.severity is Severity.BLOCKING)
    if blocking:
        return Stop(blocking)
    if current is None:
        return PublishNew()
    if current.ins != report.patient.ins:
        return Move(current)
    return Replace(current)


def says_the_same(current: ArchivedKos, published: Manifest, proposed: Manifest, fingerprint: str) -> bool:
    """Would a new version say and describe the same? ``published`` is what ``current.kos`` says."""
    return fingerprint == current.fingerprint and compare(published, proposed).same


def same_visibility(left: Visibility, right: Visibility) -> bool:
    """Do both show the document to the same people? The secret connection concerns the access alone."""
    return _seen(left) == _seen(right)


def visibility_to_publish(report: Report, current: ArchivedKos, seen: Visibility | None) -> Visibility:
    """The visibility of the next version (decision 6).

    ``seen`` is what the DMP shows now, None when it does not tell. A report that changes the visibility
    (``MODIF_CONF_CODE``) has its way; else what was changed by hand since we published is kept; else it is the
    report's.
    """
    if report.visibility_changed or seen is None or same_visibility(seen, current.visibility):
        return report.visibility
    return replace(seen, secret_connection=report.visibility.secret_connection)


def withdraws(report: Report, study_uid: str) -> bool:
    """Does the message take its report away from the study? By deleting it, or by replacing it with one on others."""
    return report.operation is Operation.DELETE or study_uid not in report.study_uids()


def documents_after(report: Report, report_id: int, study_uid: str, history: History) -> tuple[str, ...]:
    """The reports that stand on a study once this message is taken into account.

    What a newer message said of a document holds. A replacement that does not name what it replaces leaves nothing else
    standing: rather a KOS too few than one that no later message would take away.
    """
    own = report.document_id
    gone = gone_by(report, history)
    if report.operation is Operation.REPLACE and report.replaces is None and not withdraws(report, study_uid):
        gone = frozenset(history.documents)
    left = (d for d in history.documents if d not in gone or history.spoken.get(d, 0) > report_id)
    return tuple(left) if withdraws(report, study_uid) else (*(d for d in left if d != own), own)


def outlived(report: Report, report_id: int, study_uid: str, current: ArchivedKos, history: History) -> bool:
    """Once this message is taken into account: does the KOS say what a report said that no longer stands?

    Then it must say what the newest of those says that do.
    """
    left = documents_after(report, report_id, study_uid, history)
    newest = max((history.spoken.get(document, 0) for document in left), default=0)
    if not newest:
        # Those that stand came by an import.
        return current.document_ids[-1] in gone_by(report, history)
    return newest != current.report_id


def comes_late(report: Report, report_id: int, study_uid: str, history: History) -> bool:
    """Does a newer report stand on the study, once this one is taken into account? That one says what the KOS holds."""
    others = (d for d in documents_after(report, report_id, study_uid, history) if d != report.document_id)
    return any(history.spoken.get(d, 0) > report_id for d in others)


def gone_by(report: Report, history: History) -> frozenset[str]:
    """The documents that no longer stand by this message: the one that it ends, and those before it (``History``)."""
    ended = taken_away(report)
    return frozenset({ended, *history.before}) if ended else frozenset()


def taken_away(report: Report) -> str | None:
    """The document that a message ends: the one that it deletes, or replaces."""
    if report.operation is Operation.REPLACE:
        return report.replaces
    return report.document_id if report.operation is Operation.DELETE else None


def _seen(visibility: Visibility) -> tuple[bool, bool, bool]:
    return (
        visibility.masked_to_professionals,
        visibility.hidden_from_patient,
        visibility.hidden_from_representatives,
    )


def _stop(code: str, reason: str) -> Stop:
    return Stop((Finding(code, Severity.BLOCKING, reason),))
