"""A PACS that tells what it rejected: rejection notes on the sample studies (IHE IOCM), and their sending (RAD-66)."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from pydicom.dataset import Dataset
from pynetdicom import AE

from drimbox.sandbox.pacs.exams import EXPLICIT, IMPLICIT, SampleStudy
from drimbox.sandbox.pacs.key_notes import KEY_OBJECT_SELECTION, Flagged, key_note

QUALITY = ("113001", "Rejected for Quality Reasons")
PATIENT_SAFETY = ("113037", "Rejected for Patient Safety Reasons")
WRONG_WORKLIST_ENTRY = ("113038", "Incorrect Modality Worklist Entry")
RETENTION_EXPIRED = ("113039", "Data Retention Policy Expired")
REJECTION_SERIES = 298


def rejection_note(
    study: SampleStudy, rejected: Flagged, *, title: tuple[str, str] = QUALITY, index: int = 1
) -> Dataset:
    """A note that rejects instances of its study: ``(series, index of the instance from 1)`` each."""
    note = key_note(study, rejected, title=title, index=index, series_key=REJECTION_SERIES)
    note.SeriesDescription = "Rejet"
    if title == QUALITY:
        # Says why (PS3.16 TID 2010 row 2, CID 7011).
        note.ContentSequence.insert(0, _why("111207", "Image artifact(s)"))
    return note


def rejection_of_all(study: SampleStudy, *, title: tuple[str, str] = QUALITY, index: int = 1) -> Dataset:
    """A note that rejects a whole study."""
    rejected = [(series, image) for series in study.series for image in range(1, series.images + 1)]
    return rejection_note(study, rejected, title=title, index=index)


def send(
    host: str,
    port: int,
    notes: Sequence[Dataset],
    *,
    calling: str,
    called: str,
    tls: ssl.SSLContext | None = None,
    timeout: float = 30.0,
) -> list[int]:
    """C-STORE each note in one association; returns the statuses of the responses.

    Raises ``ConnectionError`` when there is no association, or none that takes notes, or no response.
    """
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = timeout
    entity.add_requested_context(KEY_OBJECT_SELECTION, [EXPLICIT, IMPLICIT])
    association = entity.associate(host, port, ae_title=called, tls_args=(tls, host) if tls else None)
    if not association.is_established:
        raise ConnectionError("the association was refused")
    try:
        answers = [association.send_c_store(note) for note in notes]
    except ValueError as error:
        raise ConnectionError("no presentation context for notes") from error
    finally:
        association.release()
    if any("Status" not in answer for answer in answers):
        raise ConnectionError("the association ended before the response")
    return [int(answer.Status) for answer in answers]


def _why(code: str, meaning: str) -> Dataset:
    modifier = Dataset()
    modifier.RelationshipType, modifier.ValueType = "HAS CONCEPT MOD", "CODE"
    modifier.ConceptNameCodeSequence = [_code("113011", "Document Title Modifier")]
    modifier.ConceptCodeSequence = [_code(code, meaning)]
    return modifier


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code
