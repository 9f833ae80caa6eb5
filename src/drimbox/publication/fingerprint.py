"""A short word for everything that a KOS entry says in the DMP and the KOS itself does not.

Two reports with the same word, on the same images, make the same entry: the second one need not be sent.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from drimbox.pacs.study import Study
from drimbox.reports.report import Report, Structure


def fingerprint(report: Report, study: Study, structure: Structure) -> str:
    """SHA-256, in hexadecimal, of what the metadata take from the report (standards.md D.5). Not the visibility."""
    acts = [act for act in report.acts if study.study_uid in act.study_uids]
    said = {
        "acts": [asdict(act) | {"study_uids": None} for act in acts],
        "signatory": asdict(report.signatory),
        "structure": asdict(structure),
        "practice": asdict(report.practice_setting) if report.practice_setting else None,
        "facility": asdict(report.facility_type) if report.facility_type else None,
        "patient_number": study.patient_id,
        "modalities": study.modalities,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()
