"""Which of these studies does the PACS hold? One C-FIND at study level for each, over one association (PS3.4 C.6.2).

One question per study, although a list of UIDs may be asked for at once: a PACS that knows no lists would answer with
less than it holds, and that would pass for "not there".
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drimbox.dicom.datasets import read_data_set
from drimbox.foundation.errors import Refused, Rejected
from drimbox.foundation.uids import is_uid
from drimbox.pacs.assembly import Assembly
from drimbox.pacs.dimse import status, uids
from drimbox.pacs.dimse.client import ClientAssociation
from drimbox.pacs.identifier import Tag, encoder
from drimbox.pacs.site import PacsLink

_KEYS = (Tag.STUDY_DATE, Tag.STUDY_INSTANCE_COUNT)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a PACS of the site holds, as those ask who know nothing of DICOM."""

    link: PacsLink

    @property
    def id(self) -> str:
        """The short name of the PACS."""
        return self.link.pacs.id

    async def held(self, study_uids: Sequence[str]) -> Mapping[str, int | None]:
        """As ``held`` below."""
        return await held(self.link, study_uids)


async def held(link: PacsLink, study_uids: Sequence[str]) -> Mapping[str, int | None]:
    """The studies that the PACS holds, each with its number of instances where the PACS tells it.

    A study that is not in the answer is not in the PACS: every question was answered whole. Raises ``Unavailable``,
    ``Busy`` or ``Rejected`` when one was not.
    """
    if not all(is_uid(uid) for uid in study_uids):
        raise Rejected("L'identifiant d'examen n'est pas un UID DICOM.", code="study-uid")
    if not study_uids:
        return {}

    def work(association: ClientAssociation) -> dict[str, int | None]:
        end = time.monotonic() + link.pacs.query_timeout
        found: dict[str, int | None] = {}
        for uid in dict.fromkeys(study_uids):
            if time.monotonic() > end:
                raise Assembly(link.pacs).too_slow()
            answers = _answers(link, association, uid)
            if answers:
                found[uid] = answers[0]
        return found

    return await link.query(uids.STUDY_ROOT_FIND, work)


def _answers(link: PacsLink, association: ClientAssociation, study_uid: str) -> list[int | None]:
    """One entry per answer of one successful query; everything else is an error."""
    assembly = Assembly(link.pacs)
    found: list[int | None] = []
    for answer in association.find(uids.STUDY_ROOT_FIND, encoder("STUDY", {Tag.STUDY_UID: study_uid}, _KEYS)):
        kind = status.kind(answer.response.status)
        if kind is status.Kind.SUCCESS:
            break
        if kind is not status.Kind.PENDING:
            text = status.code(answer.response.status)
            raise assembly.unavailable(f"répond à la recherche par le statut {text}", "pacs-find-failed", text)
        if len(found) > 10:
            raise assembly.too_many()
        try:
            values = read_data_set(answer.identifier or b"", answer.transfer_syntax, ordered=False)
        except Refused as error:
            raise assembly.unreadable() from error
        if values.text(Tag.STUDY_UID) != study_uid:
            # A PACS that ignores the key would seem to hold everything.
            assembly.rejected("répond sur un autre examen que celui demandé", "pacs-wrong-answer")
        found.append(_number(values.text(Tag.STUDY_INSTANCE_COUNT)))
    return found


def _number(text: str) -> int | None:
    return int(text) if text.strip().isascii() and text.strip().isdigit() else None
