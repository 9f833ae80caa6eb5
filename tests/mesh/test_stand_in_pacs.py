"""The PACS that stands in for Orthanc, under what a viewer does: several series asked for at once, again and again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from drimbox.pacs import inbox
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.receiver import ReceiverSettings, receiving
from drimbox.pacs.query import PacsStudyFinder
from drimbox.pacs.retrieve import PacsSeriesSource
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.pacs.study import Series
from drimbox.sandbox.pacs.embedded import EmbeddedConfig, embedded_pacs
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.peer import Destination
from drimbox.sandbox.pacs.samples import write_exam


@pytest.mark.requirement("exam:E")
async def test_series_moved_side_by_side_all_arrive(tmp_path: Path, unused_tcp_port: int) -> None:
    write_exam("E", tmp_path / "held")
    study_uid = EXAMS["E"][0].study_uid
    settings = ReceiverSettings(
        destinations={"DRIMBOX_A": uids.AS_STORED},
        allowed_callers=frozenset({"PACS_A"}),
        host="127.0.0.1",
        port=unused_tcp_port,
    )
    us = Destination("DRIMBOX_A", "127.0.0.1", unused_tcp_port)
    with (
        embedded_pacs(EmbeddedConfig(tmp_path / "held", "PACS_A", known=(us,))) as peer,
        inbox.opened(tmp_path / "spool") as desk,
        receiving(settings, desk),
    ):
        link = PacsLink(Pacs(id="a", host=peer.host, port=peer.port, ae_title="PACS_A", calling_ae_title="DRIMBOX_A"))
        study = await PacsStudyFinder(link).find(study_uid)
        assert study is not None
        source = PacsSeriesSource(link, desk, "DRIMBOX_A")

        async def moved(series: Series) -> int:
            expected = [instance.sop_instance_uid for instance in series.instances]
            async with source.retrieve(study_uid, series.series_uid, expected) as arriving:
                return len([instance async for instance in arriving])

        for _ in range(15):
            # An answer that goes astray within the PACS would show as half a minute of silence.
            async with asyncio.timeout(15):
                assert await asyncio.gather(*map(moved, study.series)) == [2, 24]
        link.close()
