"""What a study holds, asked of the PACS: C-FIND, study root, level by level (PS3.4 C.4.1, C.6.2; DB.SO.12, DB.SO.14).

An answer is believed only whole: a failure status, an abort, a silence, a broken connection, an answer about something
else, a list shorter than announced are errors. ``None`` has one meaning: the PACS looked and holds no such study.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn, Protocol

from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.foundation.uids import is_uid
from drimbox.pacs import elements
from drimbox.pacs.dimse import status, uids
from drimbox.pacs.dimse.client import Answer, ClientAssociation
from drimbox.pacs.identifier import Tag, encoder
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.pacs.study import Instance, Series, Study

_STUDY_KEYS = (
    Tag.STUDY_DATE,
    Tag.STUDY_TIME,
    Tag.ACCESSION_NUMBER,
    Tag.ACCESSION_ISSUER,
    Tag.REFERRING_PHYSICIAN,
    Tag.STUDY_DESCRIPTION,
    Tag.PATIENT_NAME,
    Tag.PATIENT_ID,
    Tag.PATIENT_ID_ISSUER,
    Tag.PATIENT_ID_QUALIFIERS,
    Tag.BIRTH_DATE,
    Tag.SEX,
    Tag.STUDY_ID,
    Tag.STUDY_SERIES_COUNT,
)
_SERIES_KEYS = (
    Tag.SERIES_UID,
    Tag.MODALITY,
    Tag.SERIES_NUMBER,
    Tag.SERIES_DESCRIPTION,
    Tag.BODY_PART,
    Tag.SERIES_INSTANCE_COUNT,
)
_IMAGE_KEYS = (Tag.SOP_INSTANCE_UID, Tag.SOP_CLASS_UID, Tag.INSTANCE_NUMBER)
_WHO = (Tag.PATIENT_NAME, Tag.PATIENT_ID, Tag.BIRTH_DATE, Tag.SEX, Tag.ACCESSION_NUMBER)


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


class _Found:
    """One answer: the values of its attributes, decoded when asked."""

    __slots__ = ("_syntax", "_values")

    def __init__(self, identifier: bytes, transfer_syntax: str) -> None:
        self._syntax = transfer_syntax
        self._values = {e.tag: e.value for e in elements.elements(memoryview(identifier), transfer_syntax)}

    def text(self, tag: Tag) -> str:
        return elements.text(self._values.get(tag), elements.text(self._values.get(Tag.CHARSET)))

    def number(self, tag: Tag) -> int | None:
        try:
            return int(self.text(tag))
        except ValueError:
            return None

    def universal_id(self, sequence: Tag) -> str:
        """The OID of an issuer (HL7v2 Hierarchic Designator macro, PS3.3 table 10-17)."""
        value = self._values.get(sequence)
        if value is None:
            return ""
        for item in elements.items(value, self._syntax):
            oid = elements.text(item.get(Tag.UNIVERSAL_ID))
            if is_uid(oid):
                return oid
        return ""


class _Query:
    """The queries about one study, over one association."""

    def __init__(self, pacs: Pacs, association: ClientAssociation) -> None:
        self._pacs = pacs
        self._association = association
        self._answers = 0
        self._end = time.monotonic() + pacs.query_timeout

    def study(self, study_uid: str) -> Study | None:
        key = {Tag.STUDY_UID: study_uid}
        found = list(self._find("STUDY", key, _STUDY_KEYS))
        if not found:
            return None
        if len({tuple(one.text(tag) for tag in _WHO) for one in found}) > 1:
            self._rejected("décrit l'examen demandé de deux façons", "pacs-ambiguous")
        series = self._series(key, found[0].number(Tag.STUDY_SERIES_COUNT))
        return _study(self._pacs, study_uid, found[0], series)

    def _series(self, key: Mapping[Tag, str], announced: int | None) -> tuple[Series, ...]:
        found = {one.text(Tag.SERIES_UID): one for one in self._find("SERIES", key, _SERIES_KEYS)}
        if not all(map(uids.is_plausible, found)):
            self._rejected("liste une série sans identifiant", "pacs-wrong-answer")
        self._check_count(len(found), announced, "séries")
        series = [
            Series(
                series_uid=uid,
                modality=one.text(Tag.MODALITY),
                number=one.number(Tag.SERIES_NUMBER),
                description=one.text(Tag.SERIES_DESCRIPTION),
                body_part=one.text(Tag.BODY_PART),
                instances=self._instances({**key, Tag.SERIES_UID: uid}, one.number(Tag.SERIES_INSTANCE_COUNT)),
            )
            for uid, one in found.items()
        ]
        return tuple(sorted(series, key=lambda s: _order(s.number, s.series_uid)))

    def _instances(self, key: Mapping[Tag, str], announced: int | None) -> tuple[Instance, ...]:
        found: dict[str, Instance] = {}
        for one in self._find("IMAGE", key, _IMAGE_KEYS):
            instance = Instance(
                one.text(Tag.SOP_CLASS_UID), one.text(Tag.SOP_INSTANCE_UID), one.number(Tag.INSTANCE_NUMBER)
            )
            if not uids.is_plausible(instance.sop_instance_uid):
                self._rejected("liste une image sans identifiant", "pacs-wrong-answer")
            if not uids.is_plausible(instance.sop_class_uid):
                self._rejected("ne donne pas la classe (SOP Class UID) des images", "pacs-no-sop-class")
            found[instance.sop_instance_uid] = instance
        self._check_count(len(found), announced, "images")
        return tuple(sorted(found.values(), key=lambda i: _order(i.number, i.sop_instance_uid)))

    def _find(self, level: str, key: Mapping[Tag, str], wanted: Sequence[Tag]) -> Iterator[_Found]:
        """The answers of one successful query; everything else is an error."""
        wanted_tags = tuple(wanted)
        for answer in self._association.find(uids.STUDY_ROOT_FIND, encoder(level, key, wanted_tags)):
            match status.kind(answer.response.status):
                case status.Kind.PENDING:
                    yield self._believed(answer, key)
                case status.Kind.SUCCESS:
                    return
                case _:
                    self._failed(answer.response.status)

    def _believed(self, answer: Answer, key: Mapping[Tag, str]) -> _Found:
        self._answers += 1
        if self._answers > self._pacs.max_answers:
            # The association is aborted on the way out: the PACS stops.
            raise Unavailable(self._reason("donne plus de réponses qu'un examen n'en a"), code="pacs-too-many-answers")
        if time.monotonic() > self._end:
            raise Unavailable(self._reason("est trop lent à répondre à la recherche"), code="pacs-too-slow")
        try:
            found = _Found(answer.identifier or b"", answer.transfer_syntax)
        except elements.InvalidDataset as error:
            raise Unavailable(self._reason("donne une réponse illisible"), code="pacs-protocol") from error
        # Some PACSs pass over keys that they do not know and answer about everything that they hold.
        if any(found.text(tag) != value for tag, value in key.items()):
            self._rejected("répond sur un autre examen que celui demandé", "pacs-wrong-answer")
        return found

    def _check_count(self, listed: int, announced: int | None, what: str) -> None:
        if self._pacs.checks_counts and announced is not None and listed < announced:
            reason = self._reason(f"annonce {announced} {what} et n'en liste que {listed}")
            raise Unavailable(reason, code="pacs-truncated")

    def _failed(self, code: int) -> NoReturn:
        text = status.code(code)
        reason = self._reason(f"répond à la recherche par le statut {text}")
        # Out of resources, unable to process and cancelled may pass; the others say that the question is not taken.
        if code == status.CANCELLED or code & 0xFF00 == status.OUT_OF_RESOURCES or code & 0xF000 == 0xC000:
            raise Unavailable(reason, code="pacs-find-failed", peer_code=text)
        raise Rejected(reason, code="pacs-find-rejected", peer_code=text)

    def _rejected(self, what: str, code: str) -> NoReturn:
        raise Rejected(self._reason(what), code=code)

    def _reason(self, what: str) -> str:
        return f"Le PACS {self._pacs.id} {what}."


def _study(pacs: Pacs, study_uid: str, found: _Found, series: tuple[Series, ...]) -> Study:
    return Study(
        study_uid=study_uid,
        patient_id=found.text(Tag.PATIENT_ID),
        patient_id_issuer=_issuer(found, Tag.PATIENT_ID_QUALIFIERS, found.text(Tag.PATIENT_ID_ISSUER))
        or pacs.patient_issuer,
        patient_name=found.text(Tag.PATIENT_NAME),
        birth_date=found.text(Tag.BIRTH_DATE),
        sex=found.text(Tag.SEX),
        accession_number=found.text(Tag.ACCESSION_NUMBER),
        accession_issuer=_issuer(found, Tag.ACCESSION_ISSUER, "") or pacs.accession_issuer,
        study_id=found.text(Tag.STUDY_ID),
        study_date=found.text(Tag.STUDY_DATE),
        study_time=found.text(Tag.STUDY_TIME),
        description=found.text(Tag.STUDY_DESCRIPTION),
        referring_physician=found.text(Tag.REFERRING_PHYSICIAN),
        series=series,
    )


def _order(number: int | None, uid: str) -> tuple[bool, int, str]:
    """By number, those without one last."""
    return number is None, number or 0, uid


def _issuer(found: _Found, sequence: Tag, local_name: str) -> str:
    """The OID of an issuer; a local name serves only where it is an OID itself."""
    return found.universal_id(sequence) or (local_name if is_uid(local_name) else "")
