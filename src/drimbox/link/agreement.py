"""Does a link agree with the archive and with the PACS, and may this visitor see the study (VI-SO.33, VI_SO.28)?

Every no is the same no, and comes at the same time: what is wrong is for the journal alone.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from drimbox.foundation.clock import PARIS, Clock
from drimbox.foundation.errors import Misconfigured, Refused
from drimbox.link.address import Link
from drimbox.link.ports import Archive, StudyFinder
from drimbox.link.visit import Visitor
from drimbox.manifest.manifest import Manifest
from drimbox.publication.kos import ArchivedKos
from drimbox.reports.report import Visibility

_OF_AGE = 18


class Disagrees(Refused):
    """The link opens nothing. ``why`` is for the journal; the visitor reads one sentence for all of them."""

    def __init__(self, why: str) -> None:
        super().__init__("Adresse incorrecte ou identifiants incohérents", code="link-disagrees")
        self.why = why


@dataclass(frozen=True, slots=True, repr=False)
class Named:
    """What a link names in the archive: the published version, and what its KOS says."""

    archived: ArchivedKos
    manifest: Manifest


class Agreement:
    """Holds links against the archive and the PACS. ``finder_of`` raises ``Misconfigured`` for a PACS that is gone."""

    def __init__(
        self,
        archive: Archive,
        read_manifest: Callable[[bytes], Manifest],
        finder_of: Callable[[ArchivedKos], StudyFinder],
        clock: Clock,
    ) -> None:
        self._archive = archive
        self._read = read_manifest
        self._finder_of = finder_of
        self._clock = clock

    async def published(self, link: Link, visitor: Visitor) -> Named:
        """The version that stands in the DMP and that all of the link names. Raises ``Disagrees``."""
        why = "examen non publié"
        for structure in await self._archive.publishers(link.study_uid):
            archived = await self._archive.current(link.study_uid, structure)
            if archived is None:
                continue
            manifest = await asyncio.to_thread(self._read, archived.kos)
            problem = await self._problem(link, archived, manifest)
            if problem:
                why = problem
                continue
            if hidden_from(archived.visibility, manifest.birth_date, visitor, self._clock.now()):
                raise Disagrees("compte rendu non visible par le patient")
            return Named(archived, manifest)
        raise Disagrees(why)

    async def in_pacs(self, link: Link, named: Named) -> None:
        """The PACS has the study under that accession number, and the series.

        Raises ``Disagrees``; ``Unavailable`` or ``Rejected`` when the PACS does not tell.
        """
        study = await self._finder_of(named.archived).find(link.study_uid)
        if study is None:
            raise Disagrees("examen absent du PACS")
        if study.accession_number.strip() != link.accession:
            raise Disagrees("numéro d'examen différent de celui du PACS")
        if link.series_uid and link.series_uid not in {one.series_uid for one in study.series}:
            raise Disagrees("série absente du PACS")

    async def still(self, structure: str, link: Link, visitor: Visitor) -> ArchivedKos:
        """The version in force of a study that is open. Raises ``Disagrees`` once the link would not open it any more.

        That the series of the link is gone closes nothing: the others are shown.
        """
        archived = await self._archive.current(link.study_uid, structure)
        if archived is None:
            raise Disagrees("examen dépublié")
        if not await self._behind(link.report.document_id, archived):
            raise Disagrees("compte rendu inconnu ou retiré")
        manifest = await asyncio.to_thread(self._read, archived.kos)
        if hidden_from(archived.visibility, manifest.birth_date, visitor, self._clock.now()):
            raise Disagrees("compte rendu non visible par le patient")
        return archived

    async def _problem(self, link: Link, archived: ArchivedKos, manifest: Manifest) -> str:
        numbers = {one.accession.value.strip() for one in manifest.requests if one.accession is not None}
        if link.accession not in numbers:
            return "numéro d'examen différent de celui de l'archive"
        if link.series_uid and link.series_uid not in {one.series_uid for one in manifest.series}:
            return "série absente de l'archive"
        if manifest.ins is not None and manifest.ins != archived.ins:
            return "identités différentes dans l'archive"
        return "" if await self._behind(link.report.document_id, archived) else "compte rendu inconnu ou retiré"

    async def _behind(self, document_id: str, archived: ArchivedKos) -> bool:
        """Does that report stand behind the version, or did one that stands come in its place?

        A report on paper keeps the link that it was printed with; one that was taken back opens nothing.
        """
        if document_id not in archived.document_ids:
            return False
        standing = (await self._archive.history(archived.structure, archived.study_uid)).documents
        if not standing or document_id in standing:
            # An archive that was imported knows of no messages: all of its reports stand.
            return True
        for document in standing:
            history = await self._archive.history(archived.structure, archived.study_uid, document)
            if document_id in history.before:
                return True
        return False


def hidden_from(visibility: Visibility, birth_date: str, visitor: Visitor, now: dt.datetime) -> bool:
    """Is the report not to be shown to who comes as the patient?

    For a minor that may be the representatives, who are reached at the same address: what is hidden from them, by the
    report or by a secret connection (``connexion secrète``), is not shown.
    """
    if visitor is not Visitor.PATIENT:
        return False
    from_representatives = visibility.hidden_from_representatives or visibility.secret_connection
    return visibility.hidden_from_patient or (from_representatives and not _of_age(birth_date, now))


def _of_age(birth_date: str, now: dt.datetime) -> bool:
    """``YYYYMMDD``; one that cannot be read is a minor's."""
    today = now.astimezone(PARIS).strftime("%Y%m%d")
    known = len(birth_date) == 8 and birth_date.isascii() and birth_date.isdigit()
    return known and int(today) - int(birth_date) >= _OF_AGE * 10000


async def until_beat(clock: Clock, begun: float, beat: float) -> None:
    """Wait until a whole number of ``beat`` seconds has passed since ``begun`` (monotonic): how far a link was followed
    before it was refused is not to be measured."""
    await asyncio.sleep(left_of_beat(clock.monotonic() - begun, beat))


def left_of_beat(elapsed: float, beat: float) -> float:
    """What is left to the next whole number of beats, the first at the soonest."""
    return max(1, math.ceil(elapsed / beat)) * beat - elapsed


def finder_among(finders: Mapping[str, StudyFinder]) -> Callable[[ArchivedKos], StudyFinder]:
    """The PACS that holds the study of a version."""

    def of(archived: ArchivedKos) -> StudyFinder:
        found = finders.get(archived.pacs)
        if found is None:
            raise Misconfigured(f"Le PACS {archived.pacs} du KOS n'est plus dans la configuration", code="pacs-unknown")
        return found

    return of
