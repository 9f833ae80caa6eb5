"""What does the PACS hold under this local number? The embedded PACS, and every way of answering something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from drimbox.foundation.errors import DrimboxError, Rejected, Unavailable
from drimbox.pacs.patient import HeldStudy, studies_of
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.sandbox.pacs.embedded import Faults
from drimbox.sandbox.pacs.exams import EXAMS
from pacs.conftest import free_port
from pacs.test_query import embedded

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning:pynetdicom")
SAMPLE = EXAMS["E"][0]


async def of(pacs: Pacs, number: str) -> tuple[HeldStudy, ...]:
    link = PacsLink(pacs)
    try:
        return await studies_of(link, number)
    finally:
        link.close()


def of_somebody_else(answer: Dataset) -> Dataset:
    """As a PACS answers that passes over the key."""
    answer.PatientID = "IPP999"
    return answer


def in_small_letters(answer: Dataset) -> Dataset:
    answer.PatientID = str(answer.PatientID).lower()
    return answer


async def test_a_number_in_other_letters_is_another_number(studies: Path) -> None:
    with embedded(studies, Faults(find_changes=in_small_letters)) as pacs:
        assert await of(pacs, SAMPLE.patient.patient_id) == ()


@pytest.mark.requirement("DB.VI-CS.35")
async def test_the_studies_of_a_number(studies: Path) -> None:
    with embedded(studies) as pacs:
        found = await of(pacs, SAMPLE.patient.patient_id)
        one = next(each for each in found if each.study.study_uid == SAMPLE.study_uid)
        assert one.study.patient_name == SAMPLE.patient.name
        assert one.study.birth_date == SAMPLE.patient.birth_date
        assert one.study.series == ()
        assert {each.study.patient_id for each in found} == {SAMPLE.patient.patient_id}
        assert await of(pacs, "NOBODY") == ()


@pytest.mark.parametrize("number", ["", "  ", "IPP*", "IPP10?", "IPP101\\IPP202", "IPPé", "IPP\x00"])
async def test_a_number_that_would_ask_for_others_is_never_asked(studies: Path, number: str) -> None:
    with embedded(studies) as pacs, pytest.raises(Rejected) as caught:
        await of(pacs, number)
    assert caught.value.code == "patient-id"


@pytest.mark.parametrize(
    "faults",
    [
        Faults(find_status=0xA700),
        Faults(find_status=0xC000),
        Faults(find_status=0xFE00),
        Faults(find_aborts=True),
        Faults(find_changes=of_somebody_else),
    ],
    ids=["resources", "unable", "cancelled", "abort", "somebody else"],
)
async def test_a_query_that_did_not_go_well_is_an_error(studies: Path, faults: Faults) -> None:
    with embedded(studies, faults) as pacs, pytest.raises(DrimboxError):
        await of(pacs, SAMPLE.patient.patient_id)


async def test_a_pacs_that_is_not_there_is_an_error() -> None:
    with pytest.raises(Unavailable):
        await of(Pacs("p", "127.0.0.1", free_port(), "PACS", connect_timeout=1.0), "IPP101")
