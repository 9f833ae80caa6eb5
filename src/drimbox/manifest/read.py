"""Reads any KOS manifest: explicit or implicit, of any maker, of any age (standards.md A, L; official-data.md 9.1).

What comes from the network is not trusted: sizes, counts and nesting are limited, and everything that is not a manifest
of one patient and one study is ``Refused``.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from itertools import islice

from drimbox.dicom.datasets import DataSet, read_file
from drimbox.foundation.errors import Refused
from drimbox.identity.ins import Authority, Ins
from drimbox.manifest.description import Description, read_description
from drimbox.manifest.encoding import EXPLICIT_LE
from drimbox.manifest.manifest import KeyMark, Manifest, ManifestSeries
from drimbox.manifest.sop_classes import KEY_OBJECT_SELECTION, likely_modality
from drimbox.pacs.keynotes import Concept
from drimbox.pacs.study import Instance
from drimbox.reports.report import Identifier, Order

__all__ = ["MAX_BYTES", "MAX_INSTANCES", "Manifest", "ManifestSeries", "read_manifest"]

MAX_BYTES = 32 * 2**20
MAX_INSTANCES = 100_000
MAX_MARKS = 100_000
_MAX_ITEMS = 1000  # requests, other patient identifiers, studies: no real manifest has more
_IMPLICIT_LE = "1.2.840.10008.1.2"
# Titles of key object selections that are something else than a manifest (PS3.16 CID 7010).
_OTHER_TITLES = frozenset(
    {f"1130{n:02d}" for n in range(11)} | {"113013", "113018", "113020", "113036", "113037", "113038", "113039"}
)
_UID = re.compile(r"[0-9.]{1,64}")


def read_manifest(data: bytes) -> Manifest:
    """What a KOS says.

    Raises ``Refused``: ``manifest-size``, ``manifest-format`` (not Part 10, another transfer syntax, damaged),
    ``manifest-class`` (another kind of object), ``manifest-studies`` (none, several, or two that differ),
    ``manifest-uid``, ``manifest-patient`` (two national identities), ``ins-key``, ``ins-format``.
    """
    if len(data) > MAX_BYTES:
        raise Refused("KOS trop volumineux", code="manifest-size")
    try:
        root, syntax = read_file(data)
    except Refused as error:
        raise _damaged() from error
    if syntax not in (EXPLICIT_LE, _IMPLICIT_LE):
        raise Refused("Syntaxe de transfert inattendue pour un KOS", code="manifest-format")
    try:
        return _Reader(root).manifest()
    except Refused as error:
        if not error.code.startswith("dicom-"):
            raise
        raise _damaged() from error


def _damaged() -> Refused:
    return Refused("Ce document n'est pas un fichier DICOM lisible", code="manifest-format")


class _Reader:
    """Reads one data set."""

    def __init__(self, root: DataSet) -> None:
        self._root = root
        self._marks: list[KeyMark] = []

    def manifest(self) -> Manifest:
        root = self._root
        if root.text(0x00080016) != KEY_OBJECT_SELECTION:
            raise Refused("Ce document DICOM n'est pas un KOS", code="manifest-class")
        if self._code(root) in _OTHER_TITLES:
            raise Refused("Cette sélection d'objets n'est pas un manifeste", code="manifest-class")
        study_uid, evidence = self._evidence()
        text = self._description()
        series = self._series(evidence, text)
        return Manifest(
            kos_uid=self._uid(root, 0x00080018),
            study_uid=study_uid,
            study_date=root.text(0x00080020),
            study_time=root.text(0x00080030),
            study_id=root.text(0x00200010),
            description=root.text(0x00081030) or text.exam,
            act=text.act,
            ins=self._ins(),
            patient_name=root.text(0x00100010),
            other_names=tuple(name for name in root.text(0x00101001).split("\\") if name),
            birth_date=root.text(0x00100030),
            sex=root.text(0x00100040),
            birth_place=root.text(0x00104000),
            institution=root.text(0x00080080),
            manufacturer=root.text(0x00080070),
            requests=self._requests(),
            series=series,
            series_uid=self._uid(root, 0x0020000E),
            created=self._created(),
            marks=tuple(self._marks),
        )

    # --- elements ---

    def _items(self, inside: DataSet, tag: int, most: int) -> list[DataSet]:
        """The items of a sequence. Raises ``Refused`` when there are more than ``most``."""
        found = list(islice(inside.items(tag), most + 1))
        if len(found) > most:
            raise Refused("KOS trop volumineux", code="manifest-size")
        return found

    def _uid(self, items: DataSet, tag: int) -> str:
        value = items.text(tag)
        if not _UID.fullmatch(value):
            raise Refused("Identifiant DICOM absent ou mal formé dans le KOS", code="manifest-uid")
        return value

    def _number(self, items: DataSet, tag: int) -> int | None:
        text = items.text(tag)
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,12}", text) else None

    def _code(self, items: DataSet) -> str:
        """The code value of the concept name."""
        return next((i.text(0x00080100) for i in self._items(items, 0x0040A043, _MAX_ITEMS)), "")

    # --- what it says ---

    def _evidence(self) -> tuple[str, DataSet]:
        """The one study item. A manifest of several studies, or of another study than its own, is not one of ours."""
        studies = self._items(self._root, 0x0040A375, _MAX_ITEMS)
        if len(studies) != 1:
            raise Refused("Le KOS doit référencer exactement un examen", code="manifest-studies")
        study_uid = self._uid(studies[0], 0x0020000D)
        if study_uid != self._uid(self._root, 0x0020000D):
            raise Refused("Le KOS référence un autre examen que le sien", code="manifest-studies")
        return study_uid, studies[0]

    def _series(self, evidence: DataSet, text: Description) -> tuple[ManifestSeries, ...]:
        found: dict[str, ManifestSeries] = {}
        left = MAX_INSTANCES
        for item in self._items(evidence, 0x00081115, MAX_INSTANCES):
            series_uid = self._uid(item, 0x0020000E)
            if series_uid in found:
                raise Refused("Le KOS cite deux fois une même série", code="manifest-series")
            instances = self._instances(item, left)
            left -= len(instances)
            told = text.series.get(series_uid)
            found[series_uid] = ManifestSeries(
                series_uid=series_uid,
                retrieve_url=item.text(0x00081190),
                modality=(told.modality if told else "") or _likely(instances),
                number=self._number(item, 0x00200011),
                description=told.description if told else "",
                instances=instances,
                region=told.region if told else "",
            )
        return tuple(found.values())

    def _instances(self, series: DataSet, left: int) -> tuple[Instance, ...]:
        found: dict[str, Instance] = {}
        for item in self._items(series, 0x00081199, left):
            sop_uid = self._uid(item, 0x00081155)
            if sop_uid not in found:
                found[sop_uid] = Instance(self._uid(item, 0x00081150), sop_uid, self._number(item, 0x00200013))
                self._marks.extend(self._marks_of(item, sop_uid))
        return tuple(found.values())

    def _marks_of(self, item: DataSet, sop_uid: str) -> Iterator[KeyMark]:
        """The notes that flag an instance (standards.md A.5). What does not name a note so is something else."""
        for note in self._items(item, 0x00081199, MAX_MARKS - len(self._marks)):
            note_uid, series_uid = note.text(0x00081155), note.text(0x0020000E)
            if _UID.fullmatch(note_uid) and _UID.fullmatch(series_uid):
                yield KeyMark(sop_uid, note_uid, series_uid, self._title(note), self._note_text(note))

    def _title(self, note: DataSet) -> Concept | None:
        for item in self._items(note, 0x0040A043, _MAX_ITEMS):
            if code := item.text(0x00080100):
                return Concept(code, item.text(0x00080102), item.text(0x00080104))
        return None

    def _note_text(self, note: DataSet) -> str:
        found = (item.text(0x0040A160) for item in self._items(note, 0x0040A730, _MAX_ITEMS))
        return next(filter(None, found), "")

    def _ins(self) -> Ins | None:
        """The national identity: PatientID, else Other Patient IDs; two that differ are no identity."""
        found = {
            Ins.of(item.text(0x00100020), oid)
            for item in (self._root, *self._items(self._root, 0x00101002, _MAX_ITEMS))
            if (oid := self._issuer(item, 0x00100024)) and Authority.of(oid) is not None
        }
        if len(found) > 1:
            raise Refused("Le KOS porte deux identités nationales", code="manifest-patient")
        return next(iter(found), None)

    def _issuer(self, item: DataSet, tag: int) -> str:
        """The OID, else the local namespace, of an issuer (Hierarchic Designator macro, PS3.3 10.14)."""
        for issuer in self._items(item, tag, _MAX_ITEMS):
            return issuer.text(0x00400032) or issuer.text(0x00400031)
        return ""

    def _requests(self) -> tuple[Order, ...]:
        """The requests; some makers give the accession number at study level only."""
        requests = [self._request(item) for item in self._items(self._root, 0x0040A370, _MAX_ITEMS)]
        if not requests and (accession := self._identifier(self._root, 0x00080050, 0x00080051)):
            requests = [Order(None, accession)]
        return tuple(order for order in requests if order.accession or order.placer)

    def _request(self, item: DataSet) -> Order:
        return Order(
            placer=self._identifier(item, 0x00402016, 0x00400026),
            accession=self._identifier(item, 0x00080050, 0x00080051),
        )

    def _identifier(self, item: DataSet, tag: int, issuer: int) -> Identifier | None:
        value = item.text(tag)
        return Identifier(value, self._issuer(item, issuer)) if value else None

    def _description(self) -> Description:
        """The text item, wherever the maker put it: in the content tree, or at the root (standards.md L.10)."""
        for item in self._items(self._root, 0x0040A730, MAX_INSTANCES + _MAX_ITEMS):
            if 0x0040A160 in item and self._code(item) in ("113012", ""):
                return read_description(item.text(0x0040A160))
        return read_description(self._root.text(0x0040A160))

    def _created(self) -> dt.datetime | None:
        """Instance Creation Date and Time, in the object's own offset; None when they are not told whole."""
        text = self._root.text(0x00080012) + self._root.text(0x00080013)[:6]
        offset = self._root.text(0x00080201) or "+0000"
        try:
            return dt.datetime.strptime(text + offset, "%Y%m%d%H%M%S%z")
        except ValueError:
            return None


def _likely(instances: tuple[Instance, ...]) -> str:
    return next((m for i in instances if (m := likely_modality(i.sop_class_uid))), "")
