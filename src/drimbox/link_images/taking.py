"""The exam to take home: DICOM files for a viewer, or pictures for a browser, as a ZIP that is written while it leaves.

The images come from the cache or the PACS one by one, each looked at as those that are shown are; one is at hand at a
time, and nothing of the ZIP is kept. What cannot be finished is cut: no program takes it for whole.
"""

from __future__ import annotations

import html
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from drimbox.dicom.dicomdir import Listed, listed
from drimbox.foundation.clock import PARIS, Clock
from drimbox.foundation.errors import Refused, Unavailable
from drimbox.images.accept import ANY, Wanted
from drimbox.images.bodies import check_identity
from drimbox.images.gate import Target
from drimbox.images.ports import SeriesSource, StoredInstance
from drimbox.images.renditions import NotAcceptable, Renderer, Rendition
from drimbox.importing.pdi import ON_MEDIA, Contents, PdiArchive, place_of
from drimbox.importing.zip_stream import ZipStream
from drimbox.link_images.drawing import Drawer, frames_to_draw
from drimbox.link_images.files import held
from drimbox.link_images.looking import Looker, inflated
from drimbox.link_images.standing import Standing
from drimbox.manifest.manifest import ManifestSeries

_ON_MEDIA = tuple(Wanted(syntax, 1.0) for syntax in sorted(ON_MEDIA))
_AS_STORED = (Wanted(ANY, 1.0),)
# How much of a file is read for its directory entry at first: the whole header is in it nearly always.
_HEAD = 2**18

#: Asked before each series: raises once the study may not be given any more.
Still = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Taken:
    """Writes one ZIP. ``max_bytes`` of images in it; ``count`` tells how many images have left."""

    standing: Standing
    source: SeriesSource
    looker: Looker
    still: Still
    clock: Clock
    max_bytes: int
    count: int = 0
    size: int = 0
    omitted: int = 0
    rows: list[tuple[ManifestSeries, list[str]]] = field(default_factory=list)

    async def dicom(self, renderer: Renderer) -> AsyncGenerator[bytes, None]:
        """DICOM files with a DICOMDIR (IHE PDI), the INS of the patient in each. The first piece comes with an image.

        Raises what a retrieve raises, ``Refused`` (``media-size``, ``media-empty``), ``IdentityMismatch``.
        """
        archive = PdiArchive(self.clock.now().astimezone(PARIS))
        manifest, ins = self.standing.manifest, self.standing.kos.ins
        entries: list[Listed] = []
        for number, series in enumerate(manifest.series, start=1):
            async with aclosing(self._instances(series)) as instances:
                index = 0
                async for instance in instances:
                    index += 1
                    async with held(instance) as path:
                        await self.looker.look(path, series.series_uid, instance.sop_instance_uid)
                        try:
                            rendition = await renderer.render(path, _ON_MEDIA, ins, one=True)
                        except NotAcceptable:
                            # A form that no reader must know: better as it is than not at all.
                            rendition = await renderer.render(path, _AS_STORED, ins, one=True)
                        try:
                            target = Target(manifest.study_uid, series.series_uid)
                            check_identity(rendition.identity, target, instance.sop_instance_uid)
                            place = place_of(number, index)
                            size, crc, entry = await _summed(rendition, place)
                            self._grow(size)
                            entries.append(entry)
                            yield archive.entry("/".join(place), size, crc)
                            async with aclosing(_chunks(rendition)) as chunks:
                                async for chunk in chunks:
                                    yield chunk
                        finally:
                            rendition.discard()
        self._not_empty()
        told = tuple((series.modality, series.description) for series in manifest.series)
        for piece in archive.closed(entries, Contents(manifest.description, manifest.study_date, told)):
            yield piece

    async def jpeg(self, drawer: Drawer) -> AsyncGenerator[bytes, None]:
        """Pictures of all frames, a folder for each series, with a page that shows them. Raises as ``dicom``."""
        archive = ZipStream(self.clock.now().astimezone(PARIS))
        ins = self.standing.kos.ins
        for number, series in enumerate(self.standing.manifest.series, start=1):
            names: list[str] = []
            self.rows.append((series, names))
            async with aclosing(self._instances(series)) as instances:
                index = 0
                async for instance in instances:
                    index += 1
                    async with held(instance) as path, inflated(path, drawer.transcoder, drawer.scratch, ins) as clear:
                        seen = await self.looker.look(clear, series.series_uid, instance.sop_instance_uid)
                        frames = frames_to_draw(seen.header)
                        self.omitted += not frames
                        for frame in range(1, frames + 1):
                            picture = await drawer.jpeg(clear, seen, frame)
                            self._grow(len(picture))
                            part = f"_{frame:05d}" if frames > 1 else ""
                            name = f"IMAGES/S{number:04d}/I{index:05d}{part}.JPG"
                            names.append(name)
                            yield archive.entry(name, len(picture), zlib.crc32(picture)) + picture
        self._not_empty()
        page = self._page().encode()
        yield archive.entry("INDEX.HTM", len(page), zlib.crc32(page)) + page + archive.end()

    async def _instances(self, series: ManifestSeries) -> AsyncGenerator[StoredInstance, None]:
        """Each image of a series that the KOS lists, once. Raises when one is missing at the end."""
        await self.still()
        missing = {i.sop_instance_uid for i in series.instances}
        if not missing:
            return
        study_uid = self.standing.manifest.study_uid
        async with self.source.retrieve(study_uid, series.series_uid, frozenset(missing)) as instances:
            async for instance in instances:
                if instance.sop_instance_uid in missing:
                    missing.discard(instance.sop_instance_uid)
                    yield instance
        if missing:
            raise Unavailable("Le PACS n'a pas envoyé toutes les images", code="images-missing")

    def _grow(self, size: int) -> None:
        self.count += 1
        self.size += size
        if self.size > self.max_bytes:
            raise Refused("Examen trop volumineux pour un téléchargement", code="media-size")

    def _not_empty(self) -> None:
        if not self.count:
            raise Refused("Examen sans image de cette forme", code="media-empty")

    def _page(self) -> str:
        manifest = self.standing.manifest
        day = manifest.study_date
        date = f"{day[6:8]}/{day[4:6]}/{day[:4]}" if len(day) == 8 else "date inconnue"
        title = html.escape(manifest.description or "Examen d’imagerie")
        parts = [
            '<!doctype html><html lang="fr"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>"
            f"<p>Examen du {date}{f', {html.escape(manifest.institution)}' if manifest.institution else ''}. "
            f"{self.count} image{'s' if self.count > 1 else ''}.</p>"
            "<p><strong>Ne pas utiliser pour le diagnostic.</strong> Ces images sont des copies réduites à ce qu’un "
            "écran montre : pour un avis médical, apportez l’examen au format DICOM.</p>"
        ]
        for place, (series, names) in enumerate(self.rows, start=1):
            heading = html.escape(" ".join(filter(None, (series.modality, series.description))) or f"Série {place}")
            parts.append(f"<h2>{heading}</h2><ul>")
            parts += [
                f'<li><a href="{name}"><img loading="lazy" src="{name}" alt="{heading}, image {number}"></a></li>'
                for number, name in enumerate(names, start=1)
            ]
            parts.append("</ul>" if names else "</ul><p>Pas d’image à montrer dans cette série.</p>")
        if self.omitted:
            parts.append(
                f"<p>{self.omitted} objet(s) de l’examen ne sont pas des images fixes (vidéos, comptes rendus, "
                "mesures) et ne figurent pas ici.</p>"
            )
        return "".join(parts) + "</body></html>\n"


_STYLE = (
    "body{font:100%/1.5 sans-serif;margin:1rem auto;max-width:70rem;padding:0 1rem}"
    "ul{list-style:none;padding:0;display:grid;grid-template-columns:repeat(auto-fill,minmax(9rem,1fr));gap:.5rem}"
    "img{width:100%;height:auto;background:#000}"
)


async def _summed(rendition: Rendition, place: tuple[str, ...]) -> tuple[int, int, Listed]:
    """Size and sum of a file that is about to leave, and what the directory says of it."""
    size = crc = 0
    beginning = bytearray()
    wanted, entry = _HEAD, None
    async with aclosing(_chunks(rendition)) as chunks:
        async for chunk in chunks:
            size += len(chunk)
            crc = zlib.crc32(chunk, crc)
            if entry is None:
                beginning += chunk
                if len(beginning) >= wanted:
                    entry, wanted = _listed(beginning, place), 4 * wanted
    # A header that is longer than all that was tried is read whole.
    return size, crc, entry or listed(beginning, place)


def _listed(beginning: bytearray, place: tuple[str, ...]) -> Listed | None:
    try:
        return listed(bytes(beginning), place)
    except Refused:
        return None


async def _chunks(rendition: Rendition) -> AsyncGenerator[bytes, None]:
    for content in rendition.contents:
        async with aclosing(content.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk
