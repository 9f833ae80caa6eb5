"""Opening what the list shows: a KOS becomes an exam whose images come, a report becomes a page.

Nothing is opened before its patient has been compared with the call's, and no host is called that the signed list of
DRIMboxes does not name (decision 15).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from drimbox.consumer.call import ContextualCall
from drimbox.consumer.consultant import Consultant, require_consent
from drimbox.consumer.exams import Document, Exam
from drimbox.consumer.identity_check import DEFAULT_RULES, Difference, Rules, check_report, require_agreement
from drimbox.consumer.image_identity import ImageIdentity
from drimbox.consumer.kos import KosContent, KosReader
from drimbox.consumer.local import LocalExam, differences_of, fetching, inspecting, is_of, manifest_of
from drimbox.consumer.local_number import local_number
from drimbox.consumer.ports import AuditJournal, Dmp, HostLists, ReceivedImage, SeriesFetcher
from drimbox.consumer.report_document import ReportDocument, read_report
from drimbox.consumer.viewing import ExamImages
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, IdentityMismatch, Refused, Unavailable
from drimbox.foundation.uids import new_secret
from drimbox.images.client import SourceState
from drimbox.manifest.manifest import Manifest, ManifestSeries
from drimbox.record.audit import Kind, Object, Thing


@dataclass(frozen=True, slots=True)
class OpenExam:
    """An exam opened in the viewer; ``id`` is its opaque address. ``warnings`` are to be shown, in French.

    ``kos_uid`` is empty for a study of the local PACS.

    ``differences`` are the traits of its KOS that are not the call's, and that it was opened with all the same;
    ``identity`` holds the traits of its images against the call's.
    """

    id: str
    exam: Exam | LocalExam
    kos_uid: str
    images: ExamImages
    warnings: tuple[str, ...]
    differences: tuple[Difference, ...] = ()
    identity: ImageIdentity | None = None

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
    rules: Rules = DEFAULT_RULES

    @property
    def kos(self) -> KosReader:
        """Reads the KOS of the list's lines."""
        return KosReader(self.dmp, self.journal, self.hosts)

    async def exam(
        self,
        who: Consultant,
        call: ContextualCall,
        exam: Exam,
        folder: Path,
        content: KosContent | None = None,
        *,
        decided: bool = False,
        used_names: Callable[[], Collection[str]] = tuple,
    ) -> OpenExam:
        """Prepare the fetch of an exam's series; no image is asked for yet. ``content``: its KOS, where it was read.

        ``decided``: the professional goes on although other traits than the INS differ; ``used_names`` are those under
        which a PACS may know the patient. Raises ``TraitsDiffer`` when
        they do and nobody decided, ``Refused`` (``no-images``), and as ``KosReader.read``.
        """
        require_consent(call)
        if exam.images is None:
            raise Refused("Aucune image n'est référencée pour ce compte rendu", code="no-images")
        if content is None:
            content = await self.kos.read(who, call, exam.images)
        manifest = content.manifest
        require_agreement("KOS", content.differences, self.rules, decided=decided, key=exam.images.key)
        identity = ImageIdentity(call.traits, self.rules, used_names, exam.images.key)
        images = ExamImages(
            manifest,
            folder=folder / new_secret(),
            fetch=lambda series, into: self._fetch(who, call, manifest, series, into),
            clock=self.clock,
            refused=content.refused,
            finished=lambda series, count, error: self._fetched(who, call, manifest, series, count, error),
            parallel=self.parallel,
            inspect=identity.check,
            local=local_number(call, self.clock.now()),
        )
        return OpenExam(new_secret(), exam, manifest.kos_uid, images, (), content.differences, identity)

    async def local(
        self,
        call: ContextualCall,
        exam: LocalExam,
        folder: Path,
        *,
        decided: bool = False,
        used_names: Callable[[], Collection[str]] = tuple,
    ) -> OpenExam:
        """Prepare the fetch of a study of the local PACS, asked anew what it is and whose.

        Raises ``Refused`` (``local-gone``), ``IdentityMismatch`` (``patient-differs``), ``TraitsDiffer``, and as the
        PACS's finder.
        """
        require_consent(call)
        study = await exam.archive.study(exam.study_uid)
        if study is None or not study.series:
            raise Refused(f"Cet examen n'est plus dans le PACS {exam.archive.id}", code="local-gone")
        if not is_of(call, study):
            raise IdentityMismatch(
                f"L'examen du PACS {exam.archive.id} n'est pas au numéro local de l'appel. Rien n'est affiché",
                code="patient-differs",
            )
        differences = differences_of(call, study, used_names())
        require_agreement("dossier local", differences, self.rules, decided=decided, key=exam.key)
        identity = ImageIdentity(call.traits, self.rules, used_names, exam.key)
        identity.decided = decided
        images = ExamImages(
            manifest_of(call, study),
            folder=folder / new_secret(),
            fetch=fetching(exam.archive, study),
            clock=self.clock,
            parallel=self.parallel,
            inspect=inspecting(call.ins, identity),
        )
        return OpenExam(new_secret(), exam, "", images, (), differences, identity)

    async def viewed(self, who: Consultant, call: ContextualCall, opened: OpenExam) -> None:
        """Write down that the professional opens the images (DB.CO.82)."""
        kos = (Object(Thing.KOS, opened.kos_uid),) if opened.kos_uid else ()
        objects = (Object(Thing.STUDY, opened.study_uid), *kos)
        await self.journal.write(None, who.event(Kind.IMAGES_VIEWED, call.ins, objects))

    async def report(
        self, who: Consultant, call: ContextualCall, document: Document, *, decided: bool = False
    ) -> ReportDocument:
        """Retrieve a report and compare its patient. Raises ``TraitsDiffer`` as ``exam``, and as the DMP client."""
        require_consent(call)
        report = read_report(await self._retrieved(who, call, document))
        differences = check_report(call, report.patient)
        require_agreement("compte rendu", differences, self.rules, decided=decided, key=document.key)
        return report.with_differences(differences)

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
            unreached = error.code == "source-unreachable" and state is SourceState.DEAD
            reason = state.value if unreached else f"{error.reason} ({state.value})"
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
