"""An exam as a ZIP for portable media: DICOM files with a DICOMDIR, a page and a text to read (IHE PDI; DB.CO.71).

Written while the images come (``pdi``): nothing of it lies on our disk but the image at hand. A ZIP that could not be
finished is cut, and no program takes it for whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from drimbox.dicom.dicomdir import Listed, listed
from drimbox.dicom.files import mapped, read_meta
from drimbox.dicom.syntaxes import EXPLICIT_LE
from drimbox.foundation.clock import PARIS, Clock
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import new_secret
from drimbox.identity.ins import Ins
from drimbox.images.threads import in_thread
from drimbox.importing.coercion import Coercion
from drimbox.importing.fetching import LosslessFetcher
from drimbox.importing.orders import WantedSeries
from drimbox.importing.pdi import ON_MEDIA, Contents, PdiArchive, place_of
from drimbox.importing.ports import Login, LosslessTranscoder
from drimbox.importing.staging import Staging


@dataclass(frozen=True, slots=True)
class MediaRequest:
    """What is to be written: series of one KOS, for one patient."""

    kos_uid: str
    ins: Ins
    coercion: Coercion
    series: tuple[WantedSeries, ...]
    title: str
    study_date: str

    def __repr__(self) -> str:
        return f"MediaRequest({self.kos_uid})"


class MediaDesk:
    """Writes exams for portable media. ``max_bytes`` of images in one ZIP."""

    def __init__(
        self, fetcher: LosslessFetcher, transcoder: LosslessTranscoder, folder: Path, clock: Clock, max_bytes: int
    ) -> None:
        self._fetcher = fetcher
        self._transcoder = transcoder
        self._folder = folder
        self._clock = clock
        self._max_bytes = max_bytes

    async def written(self, request: MediaRequest, login: Login) -> AsyncGenerator[bytes, None]:
        """The ZIP, piece by piece, the first one with the first image. Raises as ``WadoClient``, ``Refused``."""
        staging = Staging(self._folder / new_secret())
        await in_thread(staging.open)
        archive = PdiArchive(self._clock.now().astimezone(PARIS))
        entries: list[Listed] = []
        size = 0
        try:
            for number, series in enumerate(request.series, start=1):
                async with self._fetcher.fetch(request.kos_uid, request.ins, series, login, staging.incoming) as images:
                    index = 0
                    async for image in images:
                        index += 1
                        size += image.size
                        if size > self._max_bytes:
                            raise Refused("Examen trop volumineux pour un téléchargement", code="media-size")
                        uid = image.sop_instance_uid
                        path = await in_thread(_made, staging, image.path, uid, request.coercion)
                        await self._readable(path)
                        place = place_of(number, index)
                        async with aclosing(self._added(archive, path, place, entries)) as pieces:
                            async for piece in pieces:
                                yield piece
                        await in_thread(staging.drop, (uid,))
            for piece in archive.closed(entries, _contents(request)):
                yield piece
        finally:
            await in_thread(staging.remove)

    async def _readable(self, path: Path) -> None:
        """Decompressed where readers of media could not be expected to know the form."""
        with mapped(path) as buffer:
            syntax = read_meta(buffer).transfer_syntax
        if syntax in ON_MEDIA:
            return
        part = path.with_suffix(".part")
        await self._transcoder.transcode(path, part, EXPLICIT_LE)
        await in_thread(part.rename, path)

    async def _added(
        self, archive: PdiArchive, path: Path, place: Sequence[str], entries: list[Listed]
    ) -> AsyncGenerator[bytes, None]:
        def head() -> Listed:
            with mapped(path) as buffer:
                return listed(buffer, place)

        entries.append(await in_thread(head))
        pieces = archive.file("/".join(place), path)
        while (piece := await in_thread(next, pieces, None)) is not None:
            yield piece


def _made(staging: Staging, source: Path, uid: str, coercion: Coercion) -> Path:
    return staging.make(uid, staging.keep(source, "", uid, coercion))


def _contents(request: MediaRequest) -> Contents:
    series = tuple((each.modality, each.description) for each in request.series)
    return Contents(request.title, request.study_date, series)
