"""A look at one image before it may be shown: what it says of itself, and whether it is what the KOS announces."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from drimbox.consumer.header import Header, read_header
from drimbox.dicom.files import mapped, read_meta
from drimbox.dicom.syntaxes import DEFLATED_LE, EXPLICIT_LE
from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.identity.ins import Ins
from drimbox.images import header as identifiers
from drimbox.images.threads import in_thread
from drimbox.link_images.ports import Transcoder
from drimbox.manifest.manifest import Manifest

_BIRTH_DATE, _SEX = "00100030", "00100040"


@dataclass(frozen=True, slots=True)
class Seen:
    """One image that may be shown: its header, and the same as DICOM JSON."""

    header: Header
    described: bytes


class Looker:
    """Looks at the images of one KOS. ``scratch`` holds what must be inflated, for as long as it is looked at."""

    def __init__(self, manifest: Manifest, ins: Ins, transcoder: Transcoder, scratch: Path) -> None:
        self._manifest = manifest
        self._ins = ins
        self._transcoder = transcoder
        self._scratch = scratch

    async def look(self, path: Path, series_uid: str, sop_uid: str) -> Seen:
        """Raises ``IdentityMismatch`` for what must not be shown, ``Refused`` for what cannot be read."""
        await in_thread(self._check, path, series_uid, sop_uid)
        async with inflated(path, self._transcoder, self._scratch, self._ins) as readable:
            header, described = await in_thread(read_header, readable)
        self._check_patient(described)
        return Seen(header, described)

    def _check(self, path: Path, series_uid: str, sop_uid: str) -> None:
        with mapped(path) as buffer:
            found = identifiers.read_header(buffer)
        identifiers.refuse_other_ins(found, self._ins)
        wanted = (self._manifest.study_uid, series_uid, sop_uid)
        if (found.study_uid, found.series_uid, found.sop_instance_uid) != wanted:
            raise IdentityMismatch("Le PACS a envoyé une image d'un autre examen", code="image-identity")

    def _check_patient(self, described: bytes) -> None:
        """The traits that were equal when the study was published (decision 4): another one is another patient."""
        try:
            found = json.loads(described)
            birth_date, sex = (_text(found, tag) for tag in (_BIRTH_DATE, _SEX))
        except (ValueError, AttributeError, LookupError, TypeError):
            # Not chained: the message quotes values.
            raise Refused("Image illisible", code="dicom-file") from None
        known = self._manifest
        differs = birth_date and known.birth_date and birth_date != known.birth_date
        if differs or (sex in ("F", "M") and known.sex in ("F", "M") and sex != known.sex):
            raise IdentityMismatch("Une image porte l'identité d'un autre patient", code="image-traits")


@asynccontextmanager
async def inflated(path: Path, transcoder: Transcoder, scratch: Path, ins: Ins) -> AsyncIterator[Path]:
    """The same file; of one that is deflated, one that is not, until the block is left. Raises ``Refused``."""
    if not await in_thread(_is_deflated, path):
        yield path
        return
    target = scratch / f"{uuid.uuid4()}.dcm"
    await transcoder.image(path, target, EXPLICIT_LE, ins, in_memory=False)
    try:
        yield target
    finally:
        target.unlink(missing_ok=True)


def _is_deflated(path: Path) -> bool:
    with mapped(path) as buffer:
        return read_meta(buffer).transfer_syntax == DEFLATED_LE


def _text(header: dict[str, dict[str, list[object]]], tag: str) -> str:
    value = header.get(tag, {}).get("Value", [""])[0]
    return value.strip() if isinstance(value, str) else ""
