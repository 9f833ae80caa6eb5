"""The files of an exam on portable media, as a ZIP in the making (IHE PDI; PS3.10 8).

::

    DICOMDIR
    README.TXT
    INDEX.HTM
    IHE_PDI/INDEX.HTM
    DICOM/S0000001/I0000001 ...   one folder a series
"""

from __future__ import annotations

import datetime as dt
import html
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from drimbox.dicom.dicomdir import Listed, write_dicomdir
from drimbox.dicom.syntaxes import EXPLICIT_LE, JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS_SV1, VIDEO
from drimbox.foundation.uids import new_uid
from drimbox.importing.zip_stream import ZipStream

_CHUNK = 2**20
#: What any reader of media takes as it is (STD-GEN-USB-JPEG, PS3.11 J); all else is decompressed.
ON_MEDIA = frozenset({EXPLICIT_LE, JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS_SV1}) | VIDEO


@dataclass(frozen=True, slots=True, repr=False)
class Contents:
    """What the pages of the media say: title, date (``YYYYMMDD``), modality and description of each series."""

    title: str
    study_date: str
    series: tuple[tuple[str, str], ...]


def place_of(series: int, image: int) -> tuple[str, ...]:
    """Where an image lies; both numbers from 1."""
    return ("DICOM", f"S{series:07d}", f"I{image:07d}")


class PdiArchive:
    """A ZIP in the making; entries are stored, for images do not shrink."""

    def __init__(self, at: dt.datetime) -> None:
        self._zip = ZipStream(at)

    def entry(self, name: str, size: int, crc: int) -> bytes:
        """What stands before the ``size`` bytes of a file, which follow."""
        return self._zip.entry(name, size, crc)

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

    def closed(self, entries: Sequence[Listed], contents: Contents) -> Iterator[bytes]:
        """The directory, what people read, and the end."""
        for name, content in (
            ("DICOMDIR", write_dicomdir(entries, instance_uid=new_uid())),
            ("README.TXT", _readme(len(entries)).encode("ascii")),
            ("INDEX.HTM", _index(contents, entries, "").encode("utf-8")),
            ("IHE_PDI/INDEX.HTM", _index(contents, entries, "../").encode("utf-8")),
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


def _index(contents: Contents, entries: Sequence[Listed], up: str) -> str:
    rows = []
    for number, (modality, description) in enumerate(contents.series, start=1):
        count = sum(1 for e in entries if e.path[1] == f"S{number:07d}")
        rows.append(
            f"<tr><td>{html.escape(modality)}</td><td>{html.escape(description or 'Série')}</td><td>{count}</td></tr>"
        )
    day = contents.study_date
    date = f"{day[6:8]}/{day[4:6]}/{day[:4]}" if len(day) == 8 else "date inconnue"
    return (
        '<!doctype html><html lang="fr"><head><meta charset="utf-8"><title>Images médicales</title></head><body>'
        f"<h1>{html.escape(contents.title or 'Examen d’imagerie')}</h1><p>Examen du {date}.</p>"
        "<table><thead><tr><th>Modalité</th><th>Série</th><th>Images</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
        f'<p>Les images s’ouvrent avec une visionneuse DICOM, par le fichier <a href="{up}DICOMDIR">DICOMDIR</a>. '
        f'Voir aussi <a href="{up}README.TXT">README.TXT</a>.</p></body></html>\n'
    )
