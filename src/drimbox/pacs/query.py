"""What a study holds, asked of the PACS: C-FIND, study root, level by level (PS3.4 C.4.1, C.6.2; DB.SO.12, DB.SO.14).

An answer is believed only whole: a failure status, an abort, a silence, a broken connection, an answer about something
else, a list shorter than announced are errors. ``None`` has one meaning: the PACS looked and holds no such study.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NoReturn, Protocol

from drimbox.dicom.datasets import read_data_set
from drimbox.foundation.errors import Refused, Rejected
from drimbox.foundation.uids import is_uid
from drimbox.pacs.assembly import IMAGE_KEYS, SERIES_KEYS, STUDY_KEYS, Assembly
from drimbox.pacs.dimse import status, uids
from drimbox.pacs.dimse.client import Answer, ClientAssociation
from drimbox.pacs.identifier import Tag, encoder
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.pacs.study import Instance, Series, Study


class StudyFinder(Protocol):
    """Tells what a study holds."""

    async def find(self, study_uid: str) -> Study | None:
        """The study with its series and instances; ``None`` only after a successful query that matched nothing.

        Raises ``Unavailable`` when the PACS could not answer whole, ``Rejected`` when it will not.
        """


class PacsStudyFinder:
    """``StudyFinder`` by C-FIND."""

    def __init__(self, link: PacsLink) -> None:
        self._link = link

    async def find(self, study_uid: str) -> Study | None:
        if not is_uid(study_uid):
            raise Rejected("L'identifiant d'examen n'est pas un UID DICOM.", code="study-uid")

        def work(association: ClientAssociation) -> Study | None:
            return _Query(self._link.pacs, association).study(study_uid)

        return await self._link.query(uids.STUDY_ROOT_FIND, work)


class Found:
    """One answer: the values of its attributes, decoded when asked. Raises ``Refused`` for what is no data set."""

    __slots__ = ("_values",)

    def __init__(self, identifier: bytes, transfer_syntax: str) -> None:
        # Not all PACSs put the level and the character set where their tags belong.
        self._values = read_data_set(identifier, transfer_syntax, ordered=False)

    def text(self, tag: Tag) -> str:
        return self._values.text(tag)

    def number(self, tag: Tag) -> int | None:
        try:
            return int(self.text(tag))
        except ValueError:
            return None

    def universal_id(self, sequence: Tag) -> str:
        """The OID of an issuer (HL7v2 Hierarchic Designator macro, PS3.3 table 10-17)."""
        named = (item.text(Tag.UNIVERSAL_ID) for item in self._values.items(sequence))
        return next(filter(is_uid, named), "")


class _Query:
    """The queries about one study, over one association."""

    def __init__(self, pacs: Pacs, association: ClientAssociation) -> None:
        self._pacs = pacs
        self._assembly = Assembly(pacs)
        self._association = association
        self._answers = 0
        self._end = time.monotonic() + pacs.query_timeout

    def study(self, study_uid: str) -> Study | None:
        key = {Tag.STUDY_UID: study_uid}
        found = list(self._find("STUDY", key, STUDY_KEYS))
        if not found:
            return None
        whole = self._assembly.only(found)
        series = self._series(key, whole.number(Tag.STUDY_SERIES_COUNT))
        try:
            return self._assembly.study(study_uid, whole, series)
        except Refused as error:
            # A sequence inside is read only here.
            raise self._assembly.unreadable() from error

    def _series(self, key: dict[Tag, str], announced: int | None) -> list[Series]:
        rows = self._assembly.series_by_uid(self._find("SERIES", key, SERIES_KEYS), announced)
        return [
            self._assembly.series(
                uid, one, self._instances({**key, Tag.SERIES_UID: uid}, one.number(Tag.SERIES_INSTANCE_COUNT))
            )
            for uid, one in rows.items()
        ]

    def _instances(self, key: dict[Tag, str], announced: int | None) -> tuple[Instance, ...]:
        return self._assembly.instances(self._find("IMAGE", key, IMAGE_KEYS), announced)

    def _find(self, level: str, key: dict[Tag, str], wanted: tuple[Tag, ...]) -> Iterator[Found]:
        """The answers of one successful query; everything else is an error."""
        for answer in self._association.find(uids.STUDY_ROOT_FIND, encoder(level, key, wanted)):
            match status.kind(answer.response.status):
                case status.Kind.PENDING:
                    yield self._believed(answer, key)
                case status.Kind.SUCCESS:
                    return
                case _:
                    self._failed(answer.response.status)

    def _believed(self, answer: Answer, key: dict[Tag, str]) -> Found:
        self._answers += 1
        if self._answers > self._pacs.max_answers:
            # The association is aborted on the way out: the PACS stops.
            raise self._assembly.too_many()
        if time.monotonic() > self._end:
            raise self._assembly.too_slow()
        try:
            found = Found(answer.identifier or b"", answer.transfer_syntax)
        except Refused as error:
            raise self._assembly.unreadable() from error
        self._assembly.check_about(found, key)
        return found

    def _failed(self, code: int) -> NoReturn:
        text = status.code(code)
        what = f"répond à la recherche par le statut {text}"
        # Out of resources, unable to process and cancelled may pass; the others say that the question is not taken.
        if code == status.CANCELLED or code & 0xFF00 == status.OUT_OF_RESOURCES or code & 0xF000 == 0xC000:
            raise self._assembly.unavailable(what, "pacs-find-failed", text)
        self._assembly.rejected(what, "pacs-find-rejected", text)
