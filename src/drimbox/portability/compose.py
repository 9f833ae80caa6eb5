"""The files of one submission set, from the versions that the archive keeps of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from drimbox.foundation.xml import parse
from drimbox.identity.ins import Ins
from drimbox.national.dmp.codes import SIGNATURE_FORMAT, Status
from drimbox.national.dmp.metadata import Cx, DocumentEntry, read_objects
from drimbox.portability import identity, layout, notes
from drimbox.portability.layout import refused
from drimbox.portability.metadata import LOCAL_NUMBER, Filed, write_metadata
from drimbox.portability.notes import Notes, Times
from drimbox.portability.references import ReportReference, write_reference
from drimbox.publication.kos import State

Row = Mapping[str, Any]

# How a version is flagged: a depublished one stays in the archive (spec 4.5.8.1, open as to how).
_STATUS = {
    State.CURRENT.value: Status.APPROVED.value,
    State.REPLACED.value: Status.DEPRECATED.value,
    State.DEPUBLISHED.value: Status.DELETED.value,
}


@dataclass(frozen=True, slots=True)
class _Reports:
    """The reports behind a set: file names by document id, the newest is ``CR.TXT``."""

    names: Mapping[str, str]

    def of(self, documents: Sequence[str]) -> tuple[str, ...]:
        return tuple(self.names[document] for document in documents)


def sets_of(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Versions that were prepared together, by the submission set that describes them."""
    by_metadata = sorted(rows, key=lambda row: (bytes(row["metadata"]), row["id"]))
    found = [list(group) for _, group in groupby(by_metadata, key=lambda row: bytes(row["metadata"]))]
    yield from sorted(found, key=lambda group: group[0]["id"])


def set_files(rows: Sequence[Row], folder: str) -> Mapping[str, bytes]:
    """The files of one set; ``rows`` are its versions. Raises ``Refused`` when its metadata do not describe its KOS."""
    metadata = bytes(rows[0]["metadata"])
    entries = {entry.unique_id: entry for entry in read_objects(parse(metadata)).entries}
    known = [row for row in rows if row["kos_uid"] in entries]
    if len(known) != len(rows):
        raise refused("Les métadonnées archivées ne décrivent pas le KOS", "metadata")
    documents = dict.fromkeys(d for row in rows for d in (*row["document_ids"], *(row["standing"] or ())))
    reports = _Reports({d: layout.report_file(n) for n, d in enumerate(reversed(documents), 1)})
    filed: dict[str, Filed] = {}
    files: dict[str, bytes] = {}
    for number, row in enumerate(rows, 1):
        name = layout.kos_file(number)
        files[name] = bytes(row["kos"])
        filed[row["kos_uid"]] = _filed(row, layout.uri(folder, name), reports)
    signature = bytes(rows[0]["signature"])
    if signature:
        files[layout.SIGNATURE] = signature
        filed |= {e.unique_id: Filed(layout.uri(folder, layout.SIGNATURE)) for e in entries.values() if _signs(e)}
    for document, name in reports.names.items():
        files[name] = write_reference(_reference(document, rows[0], entries[rows[0]["kos_uid"]]))
    return {layout.METADATA: write_metadata(metadata, filed), **files}


def _filed(row: Row, uri: str, reports: _Reports) -> Filed:
    told = Notes(
        pacs=row["pacs"],
        times=Times(row["prepared_at"], row["sent_at"], row["confirmed_at"], row["ended_at"]),
        fingerprint=row["fingerprint"],
        replaces=row["replaced_kos"] or "",
        identity=identity.to_notes(
            {**row["vihf_identity"], identity.SECRET: row["visibility"].get(identity.SECRET) is True}
        ),
        reports=reports.of(row["document_ids"]),
        standing=None if row["standing"] is None else reports.of(row["standing"]),
    )
    return Filed(uri, row["entry_uuid"] or "", _STATUS[row["state"]], notes.to_slots(told))


def _reference(document: str, row: Row, entry: DocumentEntry) -> ReportReference:
    ins = Ins.of(row["ins"], row["ins_oid"])
    number = local_number(entry, ins)
    return ReportReference(document, ins, number.value, number.authority) if number else ReportReference(document, ins)


def local_number(entry: DocumentEntry, ins: Ins) -> Cx | None:
    """The patient's number at the site: sourcePatientId unless it is the INS once more, else what an import kept."""
    kept = (Cx.parse(value) for name, values in entry.unknown_slots if name == LOCAL_NUMBER for value in values)
    numbers = (entry.source_patient_id, *kept)
    return next((n for n in numbers if n is not None and n.value and n.value != ins.matricule), None)


def _signs(entry: DocumentEntry) -> bool:
    return entry.format_code is not None and entry.format_code.code == SIGNATURE_FORMAT.code
