"""An exam as a ZIP for portable media: DICOM files with a DICOMDIR, a page and a text to read (IHE PDI; DB.CO.71).

::

    DICOMDIR
    README.TXT
    INDEX.HTM
    IHE_PDI/INDEX.HTM
    DICOM/S0000001/I0000001 ...   one folder a series

Written while the images come: nothing of it lies on our disk but the image at hand. A ZIP that could not be finished
is cut, and no program takes it for whole.
"""

from __future__ import annotations

import html
import zlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from drimbox.dicom.dicomdir import Listed, listed, write_dicomdir
from drimbox.dicom.files import mapped, read_meta
from drimbox.dicom.syntaxes import EXPLICIT_LE, JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS_SV1, VIDEO
from drimbox.foundation.clock import PARIS, Clock
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import new_secret, new_uid
from drimbox.identity.ins import Ins
from drimbox.images.threads import in_thread
from drimbox.importing.coercion import Coercion
from drimbox.importing.fetching import LosslessFetcher
from drimbox.importing.orders import WantedSeries
from drimbox.importing.ports import Login, LosslessTranscoder
from drimbox.importing.staging import Staging
from drimbox.importing.zip_stream import ZipStream

_CHUNK = 2**20
#: What any reader of media takes as it is (STD-GEN-USB-JPEG, PS3.11 J); all else is decompressed.
_ON_MEDIA = frozenset({EXPLICIT_LE, JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS_SV1}) | VIDEO


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
        archive = _Archive(self._clock)
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
                        await in_thread(staging.prepare, image.path, "", uid, request.coercion)
                        await self._readable(staging, uid)
                        place = ("DICOM", f"S{number:07d}", f"I{index:07d}")
                        async with aclosing(self._added(archive, staging.path_of(uid), place, entries)) as pieces:
                            async for piece in pieces:
                                yield piece
                        await in_thread(staging.drop, (uid,))
            for piece in archive.closed(entries, request):
                yield piece
        finally:
            await in_thread(staging.remove)

    async def _readable(self, staging: Staging, uid: str) -> None:
        """Decompressed where readers of media could not be expected to know the form."""
        path = staging.path_of(uid)
        with mapped(path) as buffer:
            syntax = read_meta(buffer).transfer_syntax
        if syntax in _ON_MEDIA:
            return
        part = path.with_suffix(".part")
        await self._transcoder.transcode(path, part, EXPLICIT_LE)
        await in_thread(part.rename, path)

    async def _added(
        self, archive: _Archive, path: Path, place: Sequence[str], entries: list[Listed]
    ) -> AsyncGenerator[bytes, None]:
        def head() -> Listed:
            with mapped(path) as buffer:
                return listed(buffer, place)

        entries.append(await in_thread(head))
        pieces = archive.file("/".join(place), path)
        while (piece := await in_thread(next, pieces, None)) is not None:
            yield piece


class _Archive:
    """A ZIP in the making; entries are stored, for images do not shrink."""

    def __init__(self, clock: Clock) -> None:
        self._zip = ZipStream(clock.now().astimezone(PARIS))

    def file(self, name: str, path: Path) -> Iterator[bytes]:
        with path.open("rb", buffering=0) as file:
            crc = 0
            while data := file.read(_CHUNK):
                crc = zlib.crc32(data, crc)
            size = file.tell()
            file.seek(0)
            yield self._zip.entry(name, size, crc)
            while data := file.read(_CHUNK):
                yield data

    def closed(self, entries: Sequence[Listed], request: MediaRequest) -> Iterator[bytes]:
        """The directory, what people read, and the end."""
        for name, content in (
            ("DICOMDIR", write_dicomdir(entries, instance_uid=new_uid())),
            ("README.TXT", _readme(len(entries)).encode("ascii")),
            ("INDEX.HTM", _index(request, entries, "").encode("utf-8")),
            ("IHE_PDI/INDEX.HTM", _index(request, entries, "../").encode("utf-8")),
        ):
            yield self._zip.entry(name, len(content), zlib.crc32(content))
            yield content
        yield self._zip.end()


def _readme(count: int) -> str:
    lines = (
        "Support d'images medicales conforme au profil IHE PDI (Portable Data for Imaging)",
        "",
        "DICOMDIR     repertoire DICOM : ouvrez-le avec votre visionneuse DICOM",
        "DICOM        les images",
        "INDEX.HTM    sommaire lisible dans un navigateur",
        "IHE_PDI      le meme sommaire",
        "",
        f"Nombre d'images : {count}",
        "Cree par drimbox. Contient des donnees de sante : a conserver et a detruire en consequence.",
        "Ce support ne contient aucun programme.",
        "",
    )
    return "\r\n".join(lines)


def _index(request: MediaRequest, entries: Sequence[Listed], up: str) -> str:
    rows = []
    for number, series in enumerate(request.series, start=1):
        count = sum(1 for e in entries if e.path[1] == f"S{number:07d}")
        rows.append(
            f"<tr><td>{html.escape(series.modality)}</td><td>{html.escape(series.description or 'Série')}</td>"
            f"<td>{count}</td></tr>"
        )
    day = request.study_date
    date = f"{day[6:8]}/{day[4:6]}/{day[:4]}" if len(day) == 8 else "date inconnue"
    return (
        '<!doctype html><html lang="fr"><head><meta charset="utf-8"><title>Images médicales</title></head><body>'
        f"<h1>{html.escape(request.title or 'Examen d’imagerie')}</h1><p>Examen du {date}.</p>"
        "<table><thead><tr><th>Modalité</th><th>Série</th><th>Images</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
        f'<p>Les images s’ouvrent avec une visionneuse DICOM, par le fichier <a href="{up}DICOMDIR">DICOMDIR</a>. '
        f'Voir aussi <a href="{up}README.TXT">README.TXT</a>.</p></body></html>\n'
    )
