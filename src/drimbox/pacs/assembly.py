"""A study put together from what a PACS answers, however it was asked. What does not fit together is an error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn, Protocol

from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.foundation.uids import is_uid
from drimbox.pacs.dimse import uids
from drimbox.pacs.identifier import Tag
from drimbox.pacs.site import Pacs
from drimbox.pacs.study import Instance, Series, Study

STUDY_KEYS = (
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
SERIES_KEYS = (
    Tag.SERIES_UID,
    Tag.MODALITY,
    Tag.SERIES_NUMBER,
    Tag.SERIES_DESCRIPTION,
    Tag.BODY_PART,
    Tag.SERIES_INSTANCE_COUNT,
)
IMAGE_KEYS = (Tag.SOP_INSTANCE_UID, Tag.SOP_CLASS_UID, Tag.INSTANCE_NUMBER)
_WHO = (Tag.PATIENT_NAME, Tag.PATIENT_ID, Tag.BIRTH_DATE, Tag.SEX, Tag.ACCESSION_NUMBER)


class Found(Protocol):
    """One answer: the values of its attributes."""

    def text(self, tag: Tag) -> str:
        """The value as text, empty where there is none."""

    def number(self, tag: Tag) -> int | None:
        """The value as an integer; None where it is none."""

    def universal_id(self, sequence: Tag) -> str:
        """The OID of an issuer (HL7v2 Hierarchic Designator macro, PS3.3 table 10-17), empty where there is none."""


class Assembly:
    """What is made of the answers of one PACS. Raises ``Unavailable`` and ``Rejected``, naming it."""

    def __init__(self, pacs: Pacs) -> None:
        self._pacs = pacs

    def only(self, found: Sequence[Found]) -> Found:
        """The one description of a study: several must say the same of who it is about."""
        if len({tuple(one.text(tag) for tag in _WHO) for one in found}) > 1:
            self.rejected("décrit l'examen demandé de deux façons", "pacs-ambiguous")
        return found[0]

    def series_by_uid(self, found: Iterable[Found], announced: int | None) -> dict[str, Found]:
        rows = {one.text(Tag.SERIES_UID): one for one in found}
        if not all(map(uids.is_plausible, rows)):
            self.rejected("liste une série sans identifiant", "pacs-wrong-answer")
        self._check_count(len(rows), announced, "séries")
        return rows

    def instances(self, found: Iterable[Found], announced: int | None) -> tuple[Instance, ...]:
        rows = {one.sop_instance_uid: one for one in map(self._instance, found)}
        self._check_count(len(rows), announced, "images")
        return tuple(sorted(rows.values(), key=lambda i: _order(i.number, i.sop_instance_uid)))

    def series(self, uid: str, found: Found, instances: tuple[Instance, ...]) -> Series:
        return Series(
            series_uid=uid,
            modality=found.text(Tag.MODALITY),
            number=found.number(Tag.SERIES_NUMBER),
            description=found.text(Tag.SERIES_DESCRIPTION),
            body_part=found.text(Tag.BODY_PART),
            instances=instances,
        )

    def study(self, study_uid: str, found: Found, series: Iterable[Series]) -> Study:
        return Study(
            study_uid=study_uid,
            patient_id=found.text(Tag.PATIENT_ID),
            patient_id_issuer=_issuer(found, Tag.PATIENT_ID_QUALIFIERS, found.text(Tag.PATIENT_ID_ISSUER))
            or self._pacs.patient_issuer,
            patient_name=found.text(Tag.PATIENT_NAME),
            birth_date=found.text(Tag.BIRTH_DATE),
            sex=found.text(Tag.SEX),
            accession_number=found.text(Tag.ACCESSION_NUMBER),
            accession_issuer=_issuer(found, Tag.ACCESSION_ISSUER, "") or self._pacs.accession_issuer,
            study_id=found.text(Tag.STUDY_ID),
            study_date=found.text(Tag.STUDY_DATE),
            study_time=found.text(Tag.STUDY_TIME),
            description=found.text(Tag.STUDY_DESCRIPTION),
            referring_physician=found.text(Tag.REFERRING_PHYSICIAN),
            series=tuple(sorted(series, key=lambda s: _order(s.number, s.series_uid))),
        )

    def check_about(self, found: Found, key: dict[Tag, str]) -> None:
        """Some PACSs pass over keys that they do not know and answer about everything that they hold."""
        if any(found.text(tag) != value for tag, value in key.items()):
            self.rejected("répond sur un autre examen que celui demandé", "pacs-wrong-answer")

    def rejected(self, what: str, code: str, peer_code: str | None = None) -> NoReturn:
        raise Rejected(self.reason(what), code=code, peer_code=peer_code)

    def unavailable(self, what: str, code: str, peer_code: str | None = None) -> Unavailable:
        return Unavailable(self.reason(what), code=code, peer_code=peer_code)

    def unreadable(self) -> Unavailable:
        return self.unavailable("donne une réponse illisible", "pacs-protocol")

    def too_many(self) -> Unavailable:
        return self.unavailable("donne plus de réponses qu'un examen n'en a", "pacs-too-many-answers")

    def too_slow(self) -> Unavailable:
        return self.unavailable("est trop lent à répondre à la recherche", "pacs-too-slow")

    def reason(self, what: str) -> str:
        return f"Le PACS {self._pacs.id} {what}."

    def _instance(self, found: Found) -> Instance:
        uid, sop_class = found.text(Tag.SOP_INSTANCE_UID), found.text(Tag.SOP_CLASS_UID)
        if not uids.is_plausible(uid):
            self.rejected("liste une image sans identifiant", "pacs-wrong-answer")
        if not uids.is_plausible(sop_class):
            self.rejected("ne donne pas la classe (SOP Class UID) des images", "pacs-no-sop-class")
        return Instance(sop_class, uid, found.number(Tag.INSTANCE_NUMBER))

    def _check_count(self, listed: int, announced: int | None, what: str) -> None:
        if self._pacs.checks_counts and announced is not None and listed < announced:
            raise self.unavailable(f"annonce {announced} {what} et n'en liste que {listed}", "pacs-truncated")


def _order(number: int | None, uid: str) -> tuple[bool, int, str]:
    """By number, those without one last."""
    return number is None, number or 0, uid


def _issuer(found: Found, sequence: Tag, local_name: str) -> str:
    """The OID of an issuer; a local name serves only where it is an OID itself."""
    return found.universal_id(sequence) or (local_name if is_uid(local_name) else "")
