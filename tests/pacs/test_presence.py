"""Which of these studies does the PACS hold? Orthanc, the embedded PACS, and every way of not answering."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from drimbox.foundation.errors import DrimboxError, Rejected, Unavailable
from drimbox.foundation.uids import new_uid
from drimbox.pacs.presence import Holdings
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.sandbox.pacs.embedded import Faults
from drimbox.sandbox.pacs.exams import EXAMS
from pacs.conftest import free_port
from pacs.test_query import embedded

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning:pynetdicom")
SAMPLE = EXAMS["E"][0]


async def held(pacs: Pacs, *study_uids: str) -> Mapping[str, int | None]:
    link = PacsLink(pacs)
    try:
        return await Holdings(link).held(study_uids)
    finally:
        link.close()


@pytest.mark.requirement("DB.CO.79")
async def test_what_is_there_and_what_is_not(studies: Path) -> None:
    with embedded(studies) as pacs:
        absent = new_uid()
        found = await held(pacs, SAMPLE.study_uid, absent, SAMPLE.study_uid)
        assert list(found) == [SAMPLE.study_uid]
        assert found[SAMPLE.study_uid] in (None, sum(len(list(SAMPLE.instance_uids(s))) for s in SAMPLE.series))
        assert await held(pacs) == {}


@pytest.mark.requirement("DB.CO.79", "D7")
async def test_a_pacs_that_does_not_answer_is_an_error() -> None:
    pacs = Pacs("p", "127.0.0.1", free_port(), "PACS", connect_timeout=1.0)
    with pytest.raises(Unavailable):
        await held(pacs, new_uid())


async def test_what_is_no_uid_is_never_asked(studies: Path) -> None:
    with embedded(studies) as pacs:
        for wrong in ("", "*", "1.2\\1.3", "x"):
            with pytest.raises(Rejected):
                await held(pacs, wrong)


@pytest.mark.requirement("DB.CO.79", "D7")
@pytest.mark.parametrize(
    "faults",
    [
        Faults(find_status=0xA700),
        Faults(find_status=0xC000),
        Faults(find_status=0xFE00),
        Faults(find_aborts=True),
        Faults(find_ignores_keys=True),
    ],
    ids=["resources", "unable", "cancelled", "abort", "ignores keys"],
)
async def test_a_query_that_did_not_go_well_is_an_error(studies: Path, faults: Faults) -> None:
    with embedded(studies, faults) as pacs, pytest.raises(DrimboxError):
        await held(pacs, SAMPLE.study_uid)
