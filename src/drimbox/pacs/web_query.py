"""What a study holds, asked of the PACS's DICOMweb: QIDO-RS (PS3.18 10.6), believed as whole or not at all."""

from __future__ import annotations

import time
from typing import Any

from drimbox.foundation.errors import Rejected
from drimbox.foundation.uids import is_uid
from drimbox.pacs.assembly import IMAGE_KEYS, SERIES_KEYS, STUDY_KEYS, Assembly
from drimbox.pacs.dicomweb import WebService
from drimbox.pacs.identifier import Tag
from drimbox.pacs.site import PacsLink
from drimbox.pacs.study import Instance, Series, Study

_PAGE = 2000


class WebStudyFinder:
    """``StudyFinder`` by QIDO-RS."""

    def __init__(self, link: PacsLink, service: WebService) -> None:
        self._link = link
        self._service = service

    async def find(self, study_uid: str) -> Study | None:
        if not is_uid(study_uid):
            raise Rejected("L'identifiant d'examen n'est pas un UID DICOM.", code="study-uid")
        async with self._link.asking():
            return await _Query(self._link, self._service).study(study_uid)


class _Found:
    """One answer in the DICOM JSON model (PS3.18 F)."""

    __slots__ = ("_row",)

    def __init__(self, row: dict[str, Any]) -> None:
        self._row = row

    def text(self, tag: Tag) -> str:
        return _text(_values(self._row, tag))

    def number(self, tag: Tag) -> int | None:
        try:
            return int(self.text(tag))
        except ValueError:
            return None

    def universal_id(self, sequence: Tag) -> str:
        for item in _values(self._row, sequence):
            if isinstance(item, dict) and is_uid(oid := _text(_values(item, Tag.UNIVERSAL_ID))):
                return oid
        return ""


class _Query:
    """The queries about one study."""

    def __init__(self, link: PacsLink, service: WebService) -> None:
        self._pacs = link.pacs
        self._service = service
        self._assembly = Assembly(link.pacs)
        self._answers = 0
        self._end = time.monotonic() + link.pacs.query_timeout

    async def study(self, study_uid: str) -> Study | None:
        key = {Tag.STUDY_UID: study_uid}
        found = await self._find("/studies", f"StudyInstanceUID={study_uid}&", STUDY_KEYS, key, Tag.STUDY_UID)
        if not found:
            return None
        whole = self._assembly.only(found)
        series = await self._series(study_uid, whole.number(Tag.STUDY_SERIES_COUNT))
        return self._assembly.study(study_uid, whole, series)

    async def _series(self, study_uid: str, announced: int | None) -> list[Series]:
        key = {Tag.STUDY_UID: study_uid}
        path = f"/studies/{study_uid}/series"
        found = await self._find(path, "", SERIES_KEYS, key, Tag.SERIES_UID)
        rows = self._assembly.series_by_uid(found, announced)
        return [
            self._assembly.series(
                uid,
                one,
                await self._instances(path, {**key, Tag.SERIES_UID: uid}, one.number(Tag.SERIES_INSTANCE_COUNT)),
            )
            for uid, one in rows.items()
        ]

    async def _instances(self, path: str, key: dict[Tag, str], announced: int | None) -> tuple[Instance, ...]:
        series_uid = key[Tag.SERIES_UID]
        found = await self._find(f"{path}/{series_uid}/instances", "", IMAGE_KEYS, key, Tag.SOP_INSTANCE_UID)
        return self._assembly.instances(found, announced)

    async def _find(
        self, path: str, matching: str, wanted: tuple[Tag, ...], key: dict[Tag, str], identity: Tag
    ) -> list[_Found]:
        """All pages of one query. A server that repeats itself has said all that it will."""
        fields = ",".join(f"{tag:08X}" for tag in wanted)
        found: list[_Found] = []
        seen: set[str] = set()
        by_key = identity is Tag.STUDY_UID
        while True:
            query = f"{path}?{matching}includefield={fields}&limit={_PAGE}&offset={len(found)}"
            listed = await self._service.query(query, self._left())
            page = [self._believed(row, key, by_key=by_key) for row in listed.rows]
            fresh = [one for one in page if by_key or one.text(identity) not in seen]
            seen.update(one.text(identity) for one in fresh)
            if listed.more and not fresh:
                raise self._assembly.unavailable("retient une partie de sa réponse", "pacs-truncated")
            found += fresh
            if not fresh or by_key or (len(page) < _PAGE and not listed.more):
                return found

    def _believed(self, row: dict[str, Any], key: dict[Tag, str], *, by_key: bool) -> _Found:
        self._answers += 1
        if self._answers > self._pacs.max_answers:
            raise self._assembly.too_many()
        found = _Found(row)
        # What the path names, a server need not repeat in each row (PS3.18 10.6.3.3.2).
        named = key if by_key else {tag: value for tag, value in key.items() if found.text(tag)}
        self._assembly.check_about(found, named)
        return found

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise self._assembly.too_slow()
        return min(left, self._pacs.answer_timeout)


def _values(row: dict[str, Any], tag: Tag) -> list[Any]:
    element = row.get(f"{tag:08X}")
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _text(values: list[Any]) -> str:
    """The values as DICOM writes them, backslashes between."""
    return "\\".join(_one(value) for value in values).strip()


def _one(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return ""
    if isinstance(value, int | float):
        return str(int(value)) if float(value).is_integer() else str(value)
    if isinstance(value, dict):
        groups = [value.get(name) for name in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(g if isinstance(g, str) else "" for g in groups).rstrip("=")
    return ""
