"""What a Key Object Selection document asks of the box (IHE IOCM, RAD-66; standards.md B). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drimbox.foundation.errors import Refused
from drimbox.pacs.dimse import uids
from drimbox.pacs.keynotes import KeyNote, read_note


@dataclass(frozen=True, slots=True)
class Change:
    """One note: the studies to look at again, and the instances that it rejects.

    ``title`` is the code of the document title, with its scheme before it when that is not DCM. ``rejected`` has the
    SOP Instance UIDs by study, empty for a note that rejects nothing; ``studies`` has all the studies, the note's own
    among them. The patient of the note is left out: nothing is ever published on its word.
    """

    note_uid: str
    study_uid: str
    title: str
    studies: tuple[str, ...]
    rejected: Mapping[str, tuple[str, ...]]


_OWN_CODES = {"note-class": "iocm-class", "note-size": "iocm-size"}


def read_change(file: bytes, sop_instance_uid: str) -> Change:
    """What a received Part 10 object asks for; ``sop_instance_uid`` is the one under which it came.

    Raises ``Refused``: those of ``decide``, and ``iocm-unreadable``, ``iocm-size``, ``iocm-class`` (another kind of
    object), ``iocm-mismatch`` (under another UID than its own).
    """
    try:
        note = read_note(file)
    except Refused as error:
        code = _OWN_CODES.get(error.code, "iocm-unreadable")
        raise Refused("Un objet reçu d'un PACS n'est pas une note d'objets clés lisible", code=code) from error
    if note.sop_uid != sop_instance_uid:
        raise Refused("Une note d'objets clés est arrivée sous l'identifiant d'une autre", code="iocm-mismatch")
    return decide(note)


def decide(note: KeyNote) -> Change:
    """Raises ``Refused``: ``iocm-unreadable`` (no document title, without which a rejection would pass for an ordinary
    note: type 1 in PS3.3 C.17.6), ``iocm-study`` (a study without a UID), ``iocm-empty`` (a rejection of nothing)."""
    if not note.title.code:
        raise Refused("La note d'objets clés n'a pas de titre", code="iocm-unreadable")
    studies = tuple(sorted({note.study_uid, *(r.study_uid for r in note.references)}))
    if not all(uids.is_plausible(uid) for uid in studies):
        raise Refused("La note désigne un examen sans identifiant valable", code="iocm-study")
    rejected = _rejected(note) if note.rejects else {}
    if note.rejects and not rejected:
        raise Refused("La note de rejet ne désigne aucune image", code="iocm-empty")
    return Change(note.sop_uid, note.study_uid, _title(note), studies, rejected)


def _rejected(note: KeyNote) -> dict[str, tuple[str, ...]]:
    """The instances by study. What the content names and the evidence does not is of the note's own study."""
    by_study: dict[str, set[str]] = {}
    for reference in note.references:
        by_study.setdefault(reference.study_uid, set()).add(reference.sop_instance_uid)
    named = {reference.sop_instance_uid for reference in note.references}
    if left := note.selected - named:
        by_study.setdefault(note.study_uid, set()).update(left)
    return {study: tuple(sorted(instances)) for study, instances in sorted(by_study.items())}


def _title(note: KeyNote) -> str:
    title = note.title
    return title.code if title.scheme in ("DCM", "") else f"{title.scheme}:{title.code}"
