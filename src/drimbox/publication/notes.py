"""What the notes that lie in the PACS do to a study, before a KOS is made of it (PS3.16 TID 2010; standards.md B.1).

Rejection notes take out what they reject, and themselves: a note that was stored while our listener was off counts as
one that came. Key-image notes go into the KOS.
"""

from __future__ import annotations

from dataclasses import dataclass

from drimbox.pacs.keynotes import KeyNote, rejected_by, without, without_rejected
from drimbox.pacs.study import Study
from drimbox.publication.checks import Finding, Severity
from drimbox.publication.ports import SitePacs

_FOREIGN = Finding(
    "note-patient",
    Severity.WARNING,
    "Une note d'images clés de l'examen porte au PACS un autre numéro de patient : elle n'est pas publiée",
)


@dataclass(frozen=True, slots=True)
class Noted:
    """A study as its notes leave it, its key-image notes, and what the operator should know of them.

    ``rejected`` are the listed SOP Instance UIDs that rejection notes took out.
    """

    study: Study
    notes: tuple[KeyNote, ...] = ()
    findings: tuple[Finding, ...] = ()
    rejected: frozenset[str] = frozenset()


async def read_notes(pacs: SitePacs, study: Study) -> Noted:
    """Ask the PACS for the notes of a study that it holds; one without notes costs nothing.

    Raises ``Unavailable`` when they cannot be had, ``Refused`` when they cannot be read.
    """
    if pacs.notes is None:
        return Noted(study)
    return noted(study, await pacs.notes.of(study))


def noted(study: Study, notes: tuple[KeyNote, ...]) -> Noted:
    """Apply the notes of a study. Pure.

    A note of another patient number than the study's is not published, neither as an object nor by what it says: it
    may be another patient's. What such a note rejects stays out all the same.
    """
    foreign = {n.sop_uid for n in notes if study.patient_id and n.patient_id and n.patient_id != study.patient_id}
    listed = {i.sop_instance_uid for s in study.series for i in s.instances}
    return Noted(
        without(without_rejected(study, notes), frozenset(foreign)),
        tuple(note for note in notes if note.flags and note.sop_uid not in foreign),
        (_FOREIGN,) if any(n.flags for n in notes if n.sop_uid in foreign) else (),
        rejected_by(notes) & listed,
    )
