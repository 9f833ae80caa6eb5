"""The KOS of a large study, from the C-FIND to the signed submission; and how much of that is the PACS."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import time
from pathlib import Path

from drimbox.bench.intake import Lost
from drimbox.bench.judge import dmp_of
from drimbox.bench.messages import SMALL, Messages, study_uid
from drimbox.bench.rows import Row, ratio
from drimbox.bench.site import Site
from drimbox.pacs.query import PacsStudyFinder
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.publication import ports
from drimbox.publication.compose import compose
from drimbox.reports import hl7
from drimbox.reports.reading import read_report

# Debian's; pynetdicom puts one of its own of the same name first in the path.
_FINDSCU = Path("/usr/bin/findscu")
_LEVELS = {
    "STUDY": ("PatientName", "AccessionNumber"),
    "SERIES": ("SeriesInstanceUID", "Modality", "SeriesNumber", "NumberOfSeriesRelatedInstances"),
    "IMAGE": ("SOPInstanceUID", "SOPClassUID", "InstanceNumber"),
}


async def measure(site: Site, number: int, instances: int, rounds: int) -> list[Row]:
    """The study of the report of that number, asked of the PACS each time."""
    what = f"KOS of a study of {instances:,} instances"
    whole, pacs = Row(f"{what}, from C-FIND to signed submission", "s"), Row(f"{what}: of that the PACS (C-FIND)", "s")
    made, signed = (
        Row(f"{what}: of that the KOS, built and read again", "s"),
        Row(f"{what}: of that the submission", "s"),
    )
    report = read_report(hl7.parse(Messages("K", SMALL).one(number)))
    link = PacsLink(_pacs(site))
    dmp = dmp_of(site)
    registry, place = dmp.registry, dmp.place
    identity = registry.identity(place, report, dt.datetime.now(dt.UTC))
    try:
        for _ in range(rounds):
            begun = time.monotonic()
            study = await PacsStudyFinder(link).find(study_uid(number))
            if study is None or study.instance_count != instances:
                raise Lost("the PACS does not hold the study whole")
            found = time.monotonic()
            kos = compose(dmp.rules, report, study, structure=place.structure, now=dt.datetime.now(dt.UTC))
            built = time.monotonic()
            draft = ports.Draft(place, report, study, kos.orders, kos.kos_uid, kos.kos, kos.created)
            registry.prepare(draft, identity, None)
            ended = time.monotonic()
            for row, value in ((whole, ended - begun), (pacs, found - begun), (made, built - found)):
                row.values.append(value)
            signed.values.append(ended - built)
    finally:
        link.close()
    rows = [whole, pacs, made, signed, Row(f"{what}: its size", "kB", [len(kos.kos) / 1000])]
    if os.access(_FINDSCU, os.X_OK):
        peer = Row(f"{what}: the same C-FINDs by DCMTK's findscu", "s")
        peer.values = [await _findscu(site, number, instances) for _ in range(rounds)]
        rows += [peer, ratio(f"{what}: our C-FIND beside DCMTK's", pacs, peer)]
    return rows


def _pacs(site: Site) -> Pacs:
    return Pacs("pacs-a", site.pacs.host, site.pacs.port, site.pacs.ae_title, calling_ae_title="DRIMBOX_A")


async def _findscu(site: Site, number: int, instances: int) -> float:
    """Seconds that DCMTK takes for the questions that a KOS needs: each a process and an association."""
    study, seconds = study_uid(number), 0.0
    series = -(-instances // 250)
    for level in ("STUDY", "SERIES", *(["IMAGE"] * series)):
        keys = [f"QueryRetrieveLevel={level}", f"StudyInstanceUID={study}", *_LEVELS[level]]
        if level == "IMAGE":
            keys.append(f"SeriesInstanceUID={study}.2.{series}")
            series -= 1
        seconds += await _asked(site, keys)
    return seconds


async def _asked(site: Site, keys: list[str]) -> float:
    node = ["-aet", "DRIMBOX_A", "-aec", site.pacs.ae_title, site.pacs.host, str(site.pacs.port)]
    options = [word for key in keys for word in ("-k", key)]
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        str(_FINDSCU), "-S", *options, *node, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    if await process.wait() != 0:
        raise Lost("findscu was refused")
    return time.monotonic() - begun
