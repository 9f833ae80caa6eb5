"""Key Object Selection documents of a study: what each one says, and what that means for the study's other objects.

A note selects objects and tells by its title why (PS3.3 A.35.4; PS3.16 TID 2010, CID 7010): key images, or objects that
are rejected (IHE IOCM).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from drimbox.dicom.datasets import DataSet, read_file
from drimbox.foundation.errors import Refused
from drimbox.pacs.dimse import uids
from drimbox.pacs.study import Study

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
REJECTIONS = frozenset({"113001", "113037", "113038", "113039"})
"""Titles (DCM) of rejection notes: quality, patient safety, wrong worklist entry, retention expired."""
MAX_BYTES = 16 * 2**20
MAX_REFERENCES = 100_000

# Titles of documents that list a whole study or acquisition: they select nothing in it (PS3.16 CID 7010).
_INVENTORIES = frozenset({"113030", "113031", "113032", "113033", "113034", "113035"})
_MAX_ITEMS = 1000  # codes, studies: no real note has more
_INFLATED_MOST = 4 * MAX_BYTES
_REFERENCES = frozenset({"IMAGE", "COMPOSITE", "WAVEFORM"})


@dataclass(frozen=True, slots=True)
class Concept:
    """A DICOM code: its value, its coding scheme designator (``DCM``), its meaning."""

    code: str
    scheme: str
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """One object that a note names in its evidence (0040,A375)."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, repr=False)
class KeyNote:
    """One Key Object Selection document.

    ``references`` is its evidence; ``selected`` the SOP Instance UIDs of its content tree, which is what it speaks of,
    or those of the evidence where the tree names none. ``description`` is its text (113012), empty without one.
    """

    sop_uid: str
    series_uid: str
    study_uid: str
    patient_id: str
    title: Concept
    description: str
    references: tuple[Reference, ...]
    selected: frozenset[str]

    @property
    def rejects(self) -> bool:
        """Is it a rejection note? The coding scheme is DCM; some makers leave it out."""
        return self.title.code in REJECTIONS and self.title.scheme in ("DCM", "")

    @property
    def flags(self) -> bool:
        """Is it a key-image note? Any selection that is neither a rejection nor an inventory."""
        return not self.rejects and not (self.title.code in _INVENTORIES and self.title.scheme in ("DCM", ""))

    def __repr__(self) -> str:
        # The text is health data.
        return f"KeyNote({self.sop_uid}, {self.title.code}, {len(self.selected)} selected)"


def rejected_by(notes: Iterable[KeyNote]) -> frozenset[str]:
    """The SOP Instance UIDs that rejection notes reject; both what they select and what they give as evidence."""
    rejecting = [note for note in notes if note.rejects]
    return frozenset(
        uid for note in rejecting for uid in (*note.selected, *(r.sop_instance_uid for r in note.references))
    )


def without_rejected(study: Study, notes: Iterable[KeyNote]) -> Study:
    """The study as notes of its own leave it: without what is rejected, and without the rejection notes themselves.

    A series that holds nothing any more goes too.
    """
    notes = tuple(notes)
    gone = rejected_by(notes) | {note.sop_uid for note in notes if note.rejects}
    return without(study, gone)


def without(study: Study, gone: frozenset[str]) -> Study:
    """The study without some SOP Instance UIDs, and without the series that this empties."""
    if not any(i.sop_instance_uid in gone for s in study.series for i in s.instances):
        return study
    left = (replace(s, instances=tuple(i for i in s.instances if i.sop_instance_uid not in gone)) for s in study.series)
    return replace(study, series=tuple(s for s in left if s.instances))


def notes_in(study: Study) -> dict[str, tuple[str, ...]]:
    """The SOP Instance UIDs of the Key Object Selection documents that the PACS lists, by series."""
    found = {
        s.series_uid: tuple(i.sop_instance_uid for i in s.instances if i.sop_class_uid == KEY_OBJECT_SELECTION)
        for s in study.series
    }
    return {series_uid: instances for series_uid, instances in found.items() if instances}


# --- reading ----------------------------------------------------------------------------------------------------------


def read_note(data: bytes) -> KeyNote:
    """What a Key Object Selection document says: a whole Part 10 file, in any syntax that holds no images.

    Raises ``Refused``: ``note-size``, ``note-class`` (another kind of object), ``note-unreadable``.
    """
    if len(data) > MAX_BYTES:
        raise _too_large()
    try:
        return _Reader(read_file(data, most_inflated=_INFLATED_MOST)[0]).note()
    except Refused as error:
        if error.code.startswith("note-"):
            raise
        raise _unreadable() from error


def _unreadable() -> Refused:
    return Refused("Une note d'objets clés de l'examen (Key Object Selection) est illisible", code="note-unreadable")


def _too_large() -> Refused:
    return Refused("Une note d'objets clés de l'examen (Key Object Selection) est trop volumineuse", code="note-size")


class _Reader:
    """Reads one data set."""

    def __init__(self, root: DataSet) -> None:
        self._root = root
        self._left = MAX_REFERENCES

    def note(self) -> KeyNote:
        root = self._root
        if root.text(0x00080016) != KEY_OBJECT_SELECTION:
            raise Refused("Cet objet DICOM n'est pas une note d'objets clés", code="note-class")
        references = tuple(dict.fromkeys(self._evidence()))
        selected, description = self._content()
        return KeyNote(
            sop_uid=self._uid(root, 0x00080018),
            series_uid=self._uid(root, 0x0020000E),
            study_uid=self._uid(root, 0x0020000D),
            patient_id=root.text(0x00100020),
            title=self._concept(root),
            description=description,
            references=references,
            selected=selected or frozenset(r.sop_instance_uid for r in references),
        )

    def _evidence(self) -> Iterator[Reference]:
        """The Current Requested Procedure Evidence Sequence."""
        for study in self._items(self._root, 0x0040A375, _MAX_ITEMS):
            study_uid = study.text(0x0020000D)
            for series in self._items(study, 0x00081115, MAX_REFERENCES):
                series_uid = series.text(0x0020000E)
                for uid in self._named(series):
                    yield Reference(study_uid, series_uid, uid)

    def _content(self) -> tuple[frozenset[str], str]:
        """What the content tree selects, and the first description."""
        selected: set[str] = set()
        description = ""
        for item in self._items(self._root, 0x0040A730, MAX_REFERENCES + _MAX_ITEMS):
            kind = item.text(0x0040A040)
            if kind in _REFERENCES:
                selected.update(self._named(item))
            elif kind == "TEXT" and not description and self._concept(item).code in ("113012", ""):
                description = item.text(0x0040A160)
        return frozenset(selected), description

    def _named(self, item: DataSet) -> Iterator[str]:
        """The instances of the Referenced SOP Sequence of an item."""
        for reference in self._items(item, 0x00081199, MAX_REFERENCES):
            self._left -= 1
            # Content tree and evidence name each object once.
            if self._left < -MAX_REFERENCES:
                raise _too_large()
            yield self._uid(reference, 0x00081155)

    def _concept(self, item: DataSet) -> Concept:
        """The concept name; empty where there is none."""
        for code in self._items(item, 0x0040A043, _MAX_ITEMS):
            value = code.text(0x00080100) or code.text(0x00080119)
            return Concept(value, code.text(0x00080102), code.text(0x00080104))
        return Concept("", "")

    def _items(self, inside: DataSet, tag: int, most: int) -> list[DataSet]:
        found = list(islice(inside.items(tag), most + 1))
        if len(found) > most:
            raise _too_large()
        return found

    def _uid(self, inside: DataSet, tag: int) -> str:
        value = inside.text(tag)
        if not uids.is_plausible(value):
            raise _unreadable()
        return value
