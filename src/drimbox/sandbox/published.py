"""The reports that site A's RIS has published in the DMP by itself (decision 1): those of some official exams."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from drimbox.sandbox.dmp.preload import Published
from drimbox.sandbox.ris.exams import Exam, exam
from drimbox.sandbox.ris.letters import Identity, Letter, clinical_document

_STARTED = dt.datetime(2021, 1, 8, 9, 25, tzinfo=dt.UTC)
_STOPPED = dt.datetime(2021, 1, 8, 10, 17, tzinfo=dt.UTC)
_ROOT = "urn:ihe:iti:xds"


def reports(letters: str, structure: tuple[str, str]) -> Iterator[Published]:
    """The reports of these exams, of the test patient, published by ``structure`` (Struct_IdNat, name)."""
    who = Identity()
    for letter in letters:
        known = exam(letter)
        yield Published(
            patient=f"{who.ins}^^^&{who.ins_oid}&ISO^NH",
            unique_id=known.document_id,
            content=clinical_document(Letter(known, "", structure=structure[0], structure_name=structure[1])),
            author=("801234560801", "BIDEAULT", "Jacques"),
            structure=structure,
            created=_STOPPED,
            started=_STARTED,
            stopped=_STOPPED,
            references=tuple(_references(known)),
            title=known.act.ccam_label,
            events=(
                (known.act.modality, "1.2.840.10008.2.16.4", known.act.modality_label),
                (known.act.region, "2.16.840.1.113883.6.96", known.act.region_label),
            ),
            patient_info=(
                f"PID-5|{who.family}^{who.given}^^^^^L",
                f"PID-7|{who.birth_date}",
                f"PID-8|{who.sex}",
            ),
        )


def _references(known: Exam) -> Iterator[str]:
    for placer, accession in known.orders:
        yield f"{accession}^^^&{known.accession_issuer}&ISO^{_ROOT}:2013:accession"
        yield f"{placer}^^^&{known.order_issuer}&ISO^{_ROOT}:2013:order"
    for study in known.studies:
        yield f"{study}^^^^{_ROOT}:2016:studyInstanceUID"
