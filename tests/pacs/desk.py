"""Our side of a retrieve, as a box puts it together at its start, and how what comes is looked at."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom

from drimbox.pacs import inbox as inboxes
from drimbox.pacs.contents import Contents
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.receiver import ReceiverSettings, StorageReceiver, receiving
from drimbox.pacs.inbox import Inbox
from drimbox.pacs.query import PacsStudyFinder
from drimbox.pacs.retrieve import PacsGetSource, PacsSeriesSource, SeriesSource, StoredInstance
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.sandbox.pacs.exams import SampleSeries, SampleStudy
from pacs.conftest import OUR_AE


@dataclass
class Desk:
    """Our side: what a box puts together at its start."""

    spool: Path
    inbox: Inbox
    receiver: StorageReceiver
    link: PacsLink

    def source(self, **changes: object) -> PacsSeriesSource:
        return PacsSeriesSource(self.link, self.inbox, OUR_AE, **{"late_timeout": 0.3, **changes})  # type: ignore[arg-type]

    def get_source(self, **changes: object) -> PacsGetSource:
        finder = PacsStudyFinder(self.link)
        return PacsGetSource(self.link, self.inbox, finder, Contents(), **changes)  # type: ignore[arg-type]

    def folders(self) -> list[str]:
        return [path.name for path in self.spool.iterdir() if path.name != ".lock"]


@asynccontextmanager
async def desk(
    pacs: Pacs,
    spool: Path,
    port: int = 0,
    *,
    calling: ssl.SSLContext | None = None,
    called: ssl.SSLContext | None = None,
    names: Mapping[str, frozenset[str]] | None = None,
    callers: Collection[str] = (),
) -> AsyncIterator[Desk]:
    """``calling`` and ``called``: TLS of our associations, and of those to us; ``callers`` may store to us besides."""
    settings = ReceiverSettings(
        destinations={OUR_AE: uids.AS_STORED},
        allowed_callers=frozenset({pacs.ae_title, *callers}),
        certificate_names=names,
        port=port,
    )
    link = PacsLink(pacs, tls=calling)
    with inboxes.opened(spool) as inbox, receiving(settings, inbox, tls=called) as receiver:
        yield Desk(spool, inbox, receiver, link)
    link.close()


def same(path: Path, sent: Path) -> bool:
    """The same object: all of its elements, and the transfer syntax."""
    one, two = pydicom.dcmread(path), pydicom.dcmread(sent)
    return one == two and one.file_meta.TransferSyntaxUID == two.file_meta.TransferSyntaxUID


async def collect(
    source: SeriesSource,
    study_uid: str,
    series_uid: str | None,
    expected: Collection[str],
    got: list[StoredInstance],
    *,
    patient_id: str | None = None,
) -> None:
    """What comes goes into ``got``, even where an error follows."""
    async with source.retrieve(study_uid, series_uid, expected, patient_id=patient_id) as instances:
        async for stored in instances:
            assert pydicom.dcmread(stored.path, stop_before_pixels=True).SOPInstanceUID == stored.sop_instance_uid
            got.append(stored)


async def check_series(
    source: SeriesSource, study: SampleStudy, series: SampleSeries, folder: Path, pause: float = 0.0
) -> None:
    """The series comes whole, and each file is the PACS's own."""
    expected = study.instance_uids(series)
    place = {uid: folder / str(study.number) / str(series.key) / f"I{i}.dcm" for i, uid in enumerate(expected, start=1)}
    got = []
    uid, patient = study.series_uid(series), study.patient.patient_id
    async with source.retrieve(study.study_uid, uid, expected, patient_id=patient) as instances:
        async for stored in instances:
            got.append(stored.sop_instance_uid)
            assert stored.size == stored.path.stat().st_size
            assert await asyncio.to_thread(same, stored.path, place[stored.sop_instance_uid])
            await asyncio.sleep(pause)
    assert sorted(got) == sorted(expected)
