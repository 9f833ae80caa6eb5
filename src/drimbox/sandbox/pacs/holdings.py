"""What the embedded PACS holds: DICOM files of a folder, indexed in memory, matched as C-FIND asks (PS3.4 C.2.2.2)."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID

_UNIQUE = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
_CONTROL = ("QueryRetrieveLevel", "SpecificCharacterSet")


class Holdings:
    """The files of a folder and their headers. Safe for threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._headers: dict[str, tuple[Path, Dataset]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.rglob("*.dcm")):
            self._index(path)

    def add(self, dataset: Dataset) -> None:
        """Keep an object that was stored."""
        path = self._folder / f"{dataset.SOPInstanceUID}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        self._index(path)

    def contexts(self) -> set[tuple[UID, UID]]:
        """SOP classes and transfer syntaxes of what is held."""
        with self._lock:
            return {(header.SOPClassUID, header.file_meta.TransferSyntaxUID) for _, header in self._headers.values()}

    def find(self, query: Dataset) -> list[Dataset]:
        """The answers to an identifier: one per entity of its level that matches."""
        level = str(query.QueryRetrieveLevel)
        entities: dict[str, list[Dataset]] = {}
        for header in self._matching(query):
            entities.setdefault(str(header.get(_UNIQUE[level], "")), []).append(header)
        return [self._answer(query, level, headers) for headers in entities.values()]

    def select(self, query: Dataset) -> list[Path]:
        """The files that a C-MOVE identifier names."""
        with self._lock:
            return [path for path, header in self._headers.values() if _matches(header, query)]

    def _matching(self, query: Dataset) -> list[Dataset]:
        with self._lock:
            return [header for _, header in self._headers.values() if _matches(header, query)]

    def _index(self, path: Path) -> None:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        with self._lock:
            self._headers[str(header.SOPInstanceUID)] = (path, header)

    def _answer(self, query: Dataset, level: str, headers: list[Dataset]) -> Dataset:
        answer = Dataset()
        if "SpecificCharacterSet" in headers[0]:
            answer.SpecificCharacterSet = headers[0].SpecificCharacterSet
        for element in query:
            answer[element.tag] = headers[0][element.tag] if element.tag in headers[0] else _empty(element)
        answer.QueryRetrieveLevel = level
        for keyword, count in self._counts(headers[0]).items():
            if keyword in query:
                setattr(answer, keyword, count)
        return answer

    def _counts(self, header: Dataset) -> dict[str, int]:
        with self._lock:
            headers = [other for _, other in self._headers.values()]
        study = [other for other in headers if other.StudyInstanceUID == header.StudyInstanceUID]
        series = [other for other in study if other.SeriesInstanceUID == header.SeriesInstanceUID]
        return {
            "NumberOfStudyRelatedSeries": len({other.SeriesInstanceUID for other in study}),
            "NumberOfStudyRelatedInstances": len(study),
            "NumberOfSeriesRelatedInstances": len(series),
        }


def _empty(element: pydicom.DataElement) -> pydicom.DataElement:
    return pydicom.DataElement(element.tag, element.VR, [] if element.VR == "SQ" else "")


def _matches(header: Dataset, query: Dataset) -> bool:
    for element in query:
        if element.keyword in _CONTROL or element.VR == "SQ" or element.value in (None, ""):
            continue
        held = header.get(element.keyword)
        if held is not None and not _same(str(held), element.value, element.VR):
            return False
    return True


def _same(held: str, wanted: object, vr: str) -> bool:
    if isinstance(wanted, MultiValue | list):
        return held in [str(one) for one in wanted]
    text = str(wanted)
    if vr in ("DA", "TM") and "-" in text:
        low, _, high = text.partition("-")
        return (not low or held >= low) and (not high or held <= high)
    tests: Iterable[Callable[[], bool]] = (lambda: held == text, lambda: vr != "UI" and fnmatch.fnmatchcase(held, text))
    return any(test() for test in tests)
