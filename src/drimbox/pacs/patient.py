"""The studies of one patient of the site, by local number: C-FIND at study level (PS3.4 C.6.2).

What a PACS answers beside the question is never taken for the patient's: each answer must carry the number asked for.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from drimbox.foundation.errors import Refused, Rejected, Unavailable
from drimbox.pacs.assembly import STUDY_KEYS, Assembly
from drimbox.pacs.dimse import status, uids
from drimbox.pacs.dimse.client import ClientAssociation
from drimbox.pacs.dimse.storage import StoredInstance
from drimbox.pacs.identifier import Tag, encoder
from drimbox.pacs.query import Found, StudyFinder
from drimbox.pacs.retrieve import SeriesSource
from drimbox.pacs.site import PacsLink
from drimbox.pacs.study import Study

_MOST = 2000
_WILD = frozenset("*?\\")


@dataclass(frozen=True, slots=True)
class HeldStudy:
    """One study of the patient as the PACS lists it; ``study`` has no series yet, ``count`` is None where not told."""

    study: Study
    modalities: tuple[str, ...]
    count: int | None


@dataclass(frozen=True, slots=True)
class PatientArchive:
    """A PACS of the site, asked about one patient and for the images of their studies."""

    link: PacsLink
    finder: StudyFinder
    source: SeriesSource

    @property
    def id(self) -> str:
        """The short name of the PACS."""
        return self.link.pacs.id

    async def studies(self, patient_id: str) -> tuple[HeldStudy, ...]:
        """As ``studies_of`` below."""
        return await studies_of(self.link, patient_id)

    async def study(self, study_uid: str) -> Study | None:
        """The study whole, with its series and instances; None when the PACS does not hold it. Raises as the finder."""
        return await self.finder.find(study_uid)

    @asynccontextmanager
    async def fetch_series(
        self, study: Study, series_uid: str, folder: Path
    ) -> AsyncIterator[AsyncIterator[StoredInstance]]:
        """The images of a series as they come, each a file in ``folder`` that stays there.

        Raises ``Unavailable`` and ``Rejected`` as ``SeriesSource``, ``IdentityMismatch`` for another patient's image.
        """
        expected = next(s.instances for s in study.series if s.series_uid == series_uid)
        wanted = [instance.sop_instance_uid for instance in expected]
        async with self.source.retrieve(study.study_uid, series_uid, wanted, patient_id=study.patient_id) as given:
            yield _kept(given, folder)


async def studies_of(link: PacsLink, patient_id: str) -> tuple[HeldStudy, ...]:
    """What the PACS holds under this local number, newest first.

    Raises ``Rejected`` (``patient-id``) for a number that cannot be asked for, ``Unavailable``, ``Busy`` or
    ``Rejected`` when the question was not answered whole, or was answered about somebody else.
    """
    if not patient_id.isascii() or not patient_id.isprintable() or not patient_id.strip() or set(patient_id) & _WILD:
        raise Rejected("Le numéro local du patient ne peut pas être recherché dans un PACS.", code="patient-id")

    def work(association: ClientAssociation) -> list[HeldStudy]:
        return _answers(link, association, patient_id.strip())

    found = await link.query(uids.STUDY_ROOT_FIND, work)
    return tuple(sorted(found, key=lambda one: (one.study.study_date, one.study.study_time), reverse=True))


def _answers(link: PacsLink, association: ClientAssociation, patient_id: str) -> list[HeldStudy]:
    assembly = Assembly(link.pacs)
    keys = (
        *(key for key in STUDY_KEYS if key is not Tag.PATIENT_ID),
        Tag.STUDY_UID,
        Tag.STUDY_MODALITIES,
        Tag.STUDY_INSTANCE_COUNT,
    )
    end = time.monotonic() + link.pacs.query_timeout
    found: dict[str, HeldStudy] = {}
    for answer in association.find(uids.STUDY_ROOT_FIND, encoder("STUDY", {Tag.PATIENT_ID: patient_id}, keys)):
        kind = status.kind(answer.response.status)
        if kind is status.Kind.SUCCESS:
            break
        if kind is not status.Kind.PENDING:
            text = status.code(answer.response.status)
            raise assembly.unavailable(f"répond à la recherche par le statut {text}", "pacs-find-failed", text)
        if time.monotonic() > end:
            raise assembly.too_slow()
        if len(found) >= _MOST:
            raise assembly.too_many()
        try:
            one = _held(assembly, Found(answer.identifier or b"", answer.transfer_syntax), patient_id)
        except Refused as error:
            raise assembly.unreadable() from error
        if one is not None:
            found[one.study.study_uid] = one
    return list(found.values())


def _held(assembly: Assembly, found: Found, patient_id: str) -> HeldStudy | None:
    """None for a number that differs in case alone: another patient's, told by a PACS that does not tell them apart."""
    told = found.text(Tag.PATIENT_ID)
    if told != patient_id:
        if told.casefold() == patient_id.casefold():
            return None
        # A PACS that ignores the key answers about everybody.
        assembly.rejected("répond sur un autre patient que celui demandé", "pacs-wrong-answer")
    uid = found.text(Tag.STUDY_UID)
    if not uids.is_plausible(uid):
        assembly.rejected("liste un examen sans identifiant", "pacs-wrong-answer")
    modalities = tuple(filter(None, (one.strip() for one in found.text(Tag.STUDY_MODALITIES).split("\\"))))
    return HeldStudy(assembly.study(uid, found, ()), modalities, found.number(Tag.STUDY_INSTANCE_COUNT))


async def _kept(given: AsyncIterator[StoredInstance], folder: Path) -> AsyncIterator[StoredInstance]:
    async for one in given:
        target = folder / f"{one.sop_instance_uid}.dcm"
        try:
            _linked(one.path, target)
        except OSError as error:
            raise Unavailable("Espace de stockage des images indisponible", code="disk") from error
        yield replace(one, path=target)


def _linked(source: Path, target: Path) -> None:
    """The retrieve removes its own name of the file; on one and the same disk nothing has to be copied."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
