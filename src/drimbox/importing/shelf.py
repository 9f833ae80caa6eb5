"""What users save for the workstations of the site: images in a folder, one line of each in the database (DB.CO.72)."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import PoolTimeout
from pydicom.datadict import keyword_for_tag

from drimbox.dicom.charsets import DEFAULT, codecs_of, decoded
from drimbox.dicom.elements import Budget, elements, raw
from drimbox.dicom.files import mapped, read_meta
from drimbox.dicom.syntaxes import encoding_of
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Unavailable
from drimbox.images.threads import in_thread
from drimbox.importing.staging import written
from drimbox.importing.targets import LOSSLESS_TARGETS
from drimbox.pacs.dimse.storing import Outgoing
from drimbox.pacs.store import Sent
from drimbox.pacs.study import Instance, Series, Study
from drimbox.store.database import Pool, single

_log = logging.getLogger(__name__)
_SWEEP_SECONDS = 60.0
_MAX_ELEMENTS = 50_000
_CHARSET = 0x00080005
_LAST_KEY = 0x00280011
#: What workstations may ask for, and are told (PS3.4 C.6.2).
KEYS = frozenset(
    (
        *(0x00080016, 0x00080018, 0x00080020, 0x00080021, 0x00080023, 0x00080030, 0x00080031, 0x00080033),
        *(0x00080050, 0x00080060, 0x00080090, 0x00081030, 0x0008103E, 0x00100010, 0x00100020, 0x00100021),
        *(0x00100030, 0x00100040, 0x00180015, 0x0020000D, 0x0020000E, 0x00200010, 0x00200011, 0x00200013),
        *(0x00280008, 0x00280010, 0x00280011),
    )
)
_BINARY = frozenset((0x00280010, 0x00280011))


@dataclass(frozen=True, slots=True)
class Saved:
    """One saved image; ``attributes`` by keyword, as text."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    attributes: Mapping[str, str]
    path: Path

    def __repr__(self) -> str:
        return f"Saved({self.sop_instance_uid})"


class Shelf:
    """A target of imports that keeps the images here, for ``keep`` and within ``max_bytes``."""

    id = "postes"
    title = "Postes de travail"
    #: One after the other: what is free is counted.
    lanes = 1

    def __init__(self, pool: Pool, folder: Path, clock: Clock, *, keep: dt.timedelta, max_bytes: int) -> None:
        self._pool = pool
        self._folder = folder
        self._clock = clock
        self._keep = keep
        self._max_bytes = max_bytes
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    # --- a target of imports

    @asynccontextmanager
    async def sending(self, instances: Sequence[Outgoing]) -> AsyncIterator[AsyncIterator[Sent]]:
        async with aclosing(self._kept(instances)) as results:
            yield results

    async def accepted(self, sop_class_uid: str) -> tuple[str, ...]:
        return LOSSLESS_TARGETS

    async def held(self, study_uid: str) -> Study | None:
        found = await self.study(study_uid)
        if not found:
            return None
        first = found[0].attributes
        series: dict[str, list[Instance]] = {}
        for one in found:
            series.setdefault(one.series_uid, []).append(Instance(one.sop_class_uid, one.sop_instance_uid))
        return Study(
            study_uid=study_uid,
            patient_id=first.get("PatientID", ""),
            patient_id_issuer="",
            patient_name=first.get("PatientName", ""),
            birth_date=first.get("PatientBirthDate", ""),
            sex=first.get("PatientSex", ""),
            accession_number=first.get("AccessionNumber", ""),
            accession_issuer="",
            study_id=first.get("StudyID", ""),
            study_date=first.get("StudyDate", ""),
            study_time=first.get("StudyTime", ""),
            description=first.get("StudyDescription", ""),
            referring_physician="",
            series=tuple(Series(uid, "", None, "", "", tuple(instances)) for uid, instances in series.items()),
        )

    async def _kept(self, instances: Sequence[Outgoing]) -> AsyncGenerator[Sent, None]:
        used = await self._used()
        for one in instances:
            if used + one.size > self._max_bytes:
                yield Sent(one, 0xA700, "Plus de place pour les postes de travail")
                continue
            used += one.size
            try:
                target = self._folder / f"{one.sop_instance_uid}.dcm"
                attributes = await in_thread(_placed, one, target)
                await self._note(one, attributes, target)
            except OSError as error:
                raise Unavailable("Espace disque insuffisant sur la DRIMbox", code="disk") from error
            yield Sent(one, 0x0000)

    async def _note(self, one: Outgoing, attributes: Mapping[str, str], target: Path) -> None:
        async with single(self._pool) as connection:
            await connection.execute(
                "INSERT INTO saved_instance (study_uid, series_uid, sop_instance_uid, sop_class_uid, transfer_syntax, "
                "attributes, file, size) VALUES (%s, %s, %s, %s, %s, %s, %s, %s) "
                "ON CONFLICT (sop_instance_uid) DO UPDATE SET saved_at = now(), attributes = excluded.attributes, "
                "transfer_syntax = excluded.transfer_syntax, size = excluded.size",
                (
                    attributes.get("StudyInstanceUID", ""),
                    attributes.get("SeriesInstanceUID", ""),
                    one.sop_instance_uid,
                    one.sop_class_uid,
                    one.transfer_syntax_uid,
                    Jsonb(dict(attributes)),
                    target.name,
                    one.size,
                ),
            )

    async def _used(self) -> int:
        async with single(self._pool) as connection:
            row = await (
                await connection.execute("SELECT coalesce(sum(size), 0)::bigint AS n FROM saved_instance")
            ).fetchone()
        assert row is not None
        return int(row["n"])

    # --- what workstations find

    async def everything(self) -> list[Saved]:
        """All that is saved, in the order of study, series and number."""
        return await self._select(None)

    async def study(self, study_uid: str) -> list[Saved]:
        """The images of a study."""
        return await self._select(study_uid)

    async def _select(self, study_uid: str | None) -> list[Saved]:
        async with single(self._pool) as connection:
            rows = await (
                await connection.execute(
                    "SELECT * FROM saved_instance WHERE (%(study)s::text IS NULL OR study_uid = %(study)s) "
                    "AND saved_at > %(limit)s ORDER BY study_uid, series_uid, file",
                    {"study": study_uid, "limit": self._clock.now() - self._keep},
                )
            ).fetchall()
        return [
            Saved(
                row["study_uid"],
                row["series_uid"],
                row["sop_instance_uid"],
                row["sop_class_uid"],
                row["transfer_syntax"],
                row["attributes"],
                self._folder / row["file"],
            )
            for row in rows
        ]

    # --- what goes

    async def sweep(self) -> int:
        """Let go of what has stayed long enough, and of files that nothing names; returns how many images."""
        async with single(self._pool) as connection:
            rows = await (
                await connection.execute(
                    "DELETE FROM saved_instance WHERE saved_at <= %s RETURNING file", (self._clock.now() - self._keep,)
                )
            ).fetchall()
            known = await (await connection.execute("SELECT file FROM saved_instance")).fetchall()
        names = {row["file"] for row in known}
        gone = {row["file"] for row in rows} - names
        await in_thread(_delete, self._folder, gone)
        return len(gone)


@asynccontextmanager
async def sweeping(shelf: Shelf) -> AsyncIterator[None]:
    """Sweep every minute until the block ends."""

    async def run() -> None:
        while True:
            try:
                await shelf.sweep()
            except (psycopg.Error, PoolTimeout) as error:
                _log.warning("saved images were not swept: %s", type(error).__name__)
            await asyncio.sleep(_SWEEP_SECONDS)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def attributes_of(path: Path) -> dict[str, str]:
    """The keys of an image by keyword, as text. Raises ``Refused``, ``OSError``."""
    with mapped(path) as buffer:
        meta = read_meta(buffer)
        encoding = encoding_of(meta.transfer_syntax)
        found = {
            e.tag: raw(buffer, e)
            for e in elements(buffer, meta.end, len(buffer), encoding, Budget(_MAX_ELEMENTS), until=_LAST_KEY)
            if e.tag in KEYS or e.tag == _CHARSET
        }
    codecs = codecs_of(found[_CHARSET]) if _CHARSET in found else DEFAULT
    order = "little" if encoding.little else "big"
    return {
        keyword_for_tag(tag): str(int.from_bytes(value[:2], order))  # type: ignore[arg-type]
        if tag in _BINARY
        else decoded(value, codecs, b"\\^=").strip(" \0")
        for tag, value in found.items()
        if tag != _CHARSET
    }


def _placed(image: Outgoing, target: Path) -> dict[str, str]:
    """The image in its place, and its keys. Raises as ``attributes_of``: then nothing is there."""
    new = target.with_suffix(".new")
    written(image, new)
    try:
        attributes = attributes_of(new)
        new.rename(target)
    finally:
        new.unlink(missing_ok=True)
    return attributes


def _delete(folder: Path, names: set[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
