"""Opening what the list shows: a KOS becomes an exam whose images come, a report becomes a page.

Nothing is opened before its patient has been compared with the call's, and no host is called that the signed list of
DRIMboxes does not name (decision 15).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from drimbox.consumer.call import ContextualCall
from drimbox.consumer.consultation import Consultant, require_consent
from drimbox.consumer.exams import Document, Exam
from drimbox.consumer.identity_check import check_manifest, check_report
from drimbox.consumer.ports import AuditJournal, Dmp, HostList, HostLists, ReceivedImage, SeriesFetcher
from drimbox.consumer.report_document import ReportDocument, read_report
from drimbox.consumer.viewing import ExamImages
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, Refused, Unavailable
from drimbox.foundation.uids import new_secret
from drimbox.manifest.manifest import Manifest, ManifestSeries
from drimbox.manifest.read import read_manifest
from drimbox.record.audit import Kind, Object, Thing

MAX_INSTANCES = 50_000


@dataclass(frozen=True, slots=True)
class OpenExam:
    """An exam opened in the viewer; ``id`` is its opaque address. ``warnings`` are to be shown, in French."""

    id: str
    exam: Exam
    kos_uid: str
    images: ExamImages
    warnings: tuple[str, ...]

    @property
    def study_uid(self) -> str:
        return self.images.manifest.study_uid

    async def close(self) -> None:
        await self.images.close()


@dataclass(frozen=True, slots=True)
class Opener:
    """What opening takes: the peers, and how images are asked for (``syntaxes``, best first; ``parallel`` series)."""

    dmp: Dmp
    journal: AuditJournal
    hosts: HostLists
    images: SeriesFetcher
    clock: Clock
    syntaxes: Sequence[str]
    parallel: int = 2

    async def exam(self, who: Consultant, call: ContextualCall, exam: Exam, folder: Path) -> OpenExam:
        """Retrieve the KOS, compare it, and prepare the fetch of its series; no image is asked for yet.

        Raises ``IdentityMismatch``, ``Refused`` (not a KOS, not of this study, too big), and as the DMP client.
        """
        require_consent(call)
        if exam.images is None:
            raise Refused("Aucune image n'est référencée pour ce compte rendu", code="no-images")
        content = await self._retrieved(who, call, exam.images)
        manifest = read_manifest(content)
        warnings = check_manifest(call, manifest)
        described = exam.images.entry.study_uids()
        if described and manifest.study_uid not in described:
            raise Refused("Le KOS n'est pas celui de l'examen décrit par le DMP", code="kos-study")
        if sum(len(s.instances) for s in manifest.series) > MAX_INSTANCES:
            raise Refused(
                f"L'examen compte plus de {MAX_INSTANCES} images : il ne peut pas être ouvert", code="kos-size"
            )
        allowed = await self.hosts.current()
        refused = {s.series_uid: error for s in manifest.series if (error := _unlisted(s, allowed)) is not None}
        images = ExamImages(
            manifest,
            folder=folder / new_secret(),
            fetch=lambda series, into: self._fetch(who, call, manifest, series, into),
            clock=self.clock,
            refused=refused,
            finished=lambda series, count, error: self._fetched(who, call, manifest, series, count, error),
            parallel=self.parallel,
        )
        return OpenExam(new_secret(), exam, manifest.kos_uid, images, warnings)

    async def viewed(self, who: Consultant, call: ContextualCall, opened: OpenExam) -> None:
        """Write down that the professional opens the images (DB.CO.82)."""
        objects = (Object(Thing.STUDY, opened.study_uid), Object(Thing.KOS, opened.kos_uid))
        await self.journal.write(None, who.event(Kind.IMAGES_VIEWED, call.ins, objects))

    async def report(self, who: Consultant, call: ContextualCall, document: Document) -> ReportDocument:
        """Retrieve a report and compare its patient. Raises as ``exam``."""
        require_consent(call)
        report = read_report(await self._retrieved(who, call, document))
        warnings = check_report(call, report.patient)
        return report.with_warnings(warnings)

    async def _retrieved(self, who: Consultant, call: ContextualCall, document: Document) -> bytes:
        entry = document.entry
        objects = (Object(Thing.KOS if entry.is_kos else Thing.DOCUMENT, entry.unique_id),)
        try:
            (found,) = await self.dmp.retrieve(who.dmp, call.ins, [entry])
        except DrimboxError as error:
            await self.journal.write(None, who.event(Kind.DOCUMENT_RETRIEVED, call.ins, objects, error))
            raise
        await self.journal.write(None, who.event(Kind.DOCUMENT_RETRIEVED, call.ins, objects))
        return found.content

    @asynccontextmanager
    async def _fetch(
        self, who: Consultant, call: ContextualCall, manifest: Manifest, series: ManifestSeries, folder: Path
    ) -> AsyncIterator[AsyncIterator[ReceivedImage]]:
        tls = who.structure.wado_tls
        try:
            async with self.images.fetch_series(
                series.retrieve_url,
                tls=tls,
                token=who.professional.access_token,
                kos_uid=manifest.kos_uid,
                accept=self.syntaxes,
                expected=[i.sop_instance_uid for i in series.instances],
                ins=call.ins,
                folder=folder,
            ) as arriving:
                yield arriving
        except Unavailable as error:
            if not error.code.startswith("source-"):
                raise
            # A dead source is told from a dead PACS (DB.CO.112).
            state = await self.images.probe(series.retrieve_url, tls=tls)
            reason = f"{error.reason} ({state.value})"
            raise Unavailable(reason, code=error.code, peer_code=error.peer_code) from error

    async def _fetched(
        self,
        who: Consultant,
        call: ContextualCall,
        manifest: Manifest,
        series: ManifestSeries,
        count: int,
        error: DrimboxError | None,
    ) -> None:
        objects = (
            Object(Thing.STUDY, manifest.study_uid),
            Object(Thing.SERIES, series.series_uid, f"{count}/{len(series.instances)}"),
            Object(Thing.KOS, manifest.kos_uid),
        )
        await self.journal.write(None, who.event(Kind.IMAGES_FETCHED, call.ins, objects, error))


def _unlisted(series: ManifestSeries, allowed: HostList) -> DrimboxError | None:
    """Why a series must not be asked for at the address its KOS gives; None when it may be."""
    try:
        address = urlsplit(series.retrieve_url)
        host = address.hostname
        plain = address.scheme == "https" and bool(host) and not address.username and not address.password
    except ValueError:
        plain, host = False, None
    if not plain or host is None:
        return Refused("L'adresse des images donnée par le KOS n'est pas une adresse https", code="retrieve-url")
    if not allowed.allows_host(host):
        return Refused("La source des images n'est pas dans la liste blanche des DRIMbox", code="host-not-listed")
    return None
