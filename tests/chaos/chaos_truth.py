"""Looks at what the DMP holds and at what the box wrote down, and compares both with the oracle."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from chaos_changes import Note
from chaos_model import Kos, Meant, Model
from chaos_site import STRUCTURES, Catalogue, Site
from chaos_traffic import REGIONS, Sent
from psycopg.rows import dict_row

from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.kos import read_kos
from drimbox.sandbox.dmp.store import Store, StoredEntry
from drimbox.sandbox.dmp.view import described

_KOS, _SIGNATURE = "application/dicom", "text/xml"
_MASKS = frozenset({v.MASKED_TO_PROFESSIONALS, v.HIDDEN_FROM_PATIENT, v.HIDDEN_FROM_REPRESENTATIVES})


@dataclass(slots=True)
class Watch:
    """Looks at the registry while all goes wrong: what must be true at every moment."""

    folder: Path
    known: Catalogue
    violations: list[str] = field(default_factory=list)
    looks: int = 0
    _seen: int = 0
    _study_of: dict[str, tuple[str, str]] = field(default_factory=dict)

    def look(self) -> None:
        """Each new document is of the right patient; no study has two manifests of one structure that stand."""
        self.looks += 1
        with closing(sqlite3.connect(f"file:{self.folder / 'dmp.sqlite'}?mode=ro", uri=True)) as base:
            fresh = base.execute(
                "SELECT rowid, unique_id, patient, structures, content FROM entry WHERE rowid > ? AND mime = ?",
                (self._seen, _KOS),
            ).fetchall()
            standing = base.execute(
                "SELECT unique_id FROM entry WHERE status = ? AND mime = ?", (v.APPROVED, _KOS)
            ).fetchall()
        for rowid, unique_id, patient, structures, content in fresh:
            self._seen = rowid
            self._new(unique_id, patient, structures, content)
        # What came between the two looks is looked at next time.
        shown = Counter(self._study_of[uid] for (uid,) in standing if uid in self._study_of)
        for (structure, study), count in shown.items():
            if count > 1:
                self.violations.append(f"{count} KOS of {study} ({structure}) stood at once")

    def _new(self, unique_id: str, patient: str, structures: str, content: bytes) -> None:
        kos = read_kos(content)
        self._study_of[unique_id] = (structures, kos.study_uid)
        held = self.known.studies.get(kos.study_uid)
        if held is None:
            self.violations.append(f"KOS {unique_id} of a study that nobody reported")
            return
        theirs = {held.person.cx(held.person.ins), held.person.cx(held.person.later_ins)}
        if patient not in theirs or f"{kos.patient_id}^^^&{kos.patient_issuer}&ISO^NH" != patient:
            self.violations.append(f"KOS {unique_id} of {kos.study_uid} is under the INS of another patient")


@dataclass(slots=True)
class Verdict:
    """What the comparison found; ``figures`` are counted for the report."""

    discrepancies: list[str] = field(default_factory=list)
    figures: dict[str, int] = field(default_factory=dict)

    def say(self, text: str) -> None:
        self.discrepancies.append(text)


async def judge(site: Site, sent: Sequence[Sent], notes: Sequence[Note]) -> Verdict:
    """Everything, once all is at rest."""
    verdict = Verdict()
    async with await psycopg.AsyncConnection.connect(site.dsn, row_factory=dict_row) as connection:

        async def rows(query: str) -> list[dict[str, Any]]:
            return await (await connection.execute(query)).fetchall()  # type: ignore[arg-type]

        accepted = await rows(
            "SELECT message.id, split_part(control_id, '#', 1) AS control_id, received_at "
            "FROM message WHERE accepted ORDER BY message.id"
        )
        kept = await rows("SELECT sop_instance_uid, received_at FROM change_note ORDER BY received_at")
        refused = await rows(
            "SELECT control_id, EXISTS (SELECT 1 FROM incident WHERE message_id = message.id) AS told "
            "FROM message WHERE NOT accepted"
        )
        incidents = await rows("SELECT * FROM incident WHERE study_uid <> '' ORDER BY id")
        publications = await rows(
            "SELECT id, kos_uid, state, structure, study_uid, submission_uid, entry_uuid FROM publication"
        )
        audited = await rows(
            "SELECT event, outcome, o ->> 'identifier' AS kos FROM audit, jsonb_array_elements(objects) o "
            "WHERE o ->> 'thing' = 'kos'"
        )
        jobs = await rows("SELECT id, status, task_name, args FROM procrastinate_jobs WHERE status <> 'succeeded'")
    order = _messages(verdict, sent, accepted, refused)
    model = Model(site.catalogue.studies, STRUCTURES)
    model.take_all(_with_notes(verdict, order, accepted, notes, kept))
    entries = _entries(site)
    _registry(verdict, site.catalogue, model, entries)
    _archive(verdict, entries, publications, audited)
    _queue(verdict, site, model, incidents, jobs)
    verdict.figures |= {
        "publications that the messages ask for": model.published,
        "KOS registered": sum(1 for e in entries if e[0].mime == _KOS),
        "KOS that stand": sum(1 for e in entries if e[0].mime == _KOS and e[0].status == v.APPROVED),
        "documents in the DMP": len(entries),
        "lines of the operator's queue": len(incidents) + len(refused),
    }
    return verdict


def _messages(
    verdict: Verdict, sent: Sequence[Sent], accepted: Sequence[dict[str, Any]], refused: Sequence[dict[str, Any]]
) -> list[Meant]:
    """Accepted is what was answered AA, once; refused what was answered AE, with its line. The order of arrival."""
    meant = {s.control_id: s for s in sent if s.meant is not None}
    for one in sent:
        wanted = "AE" if one.meant is None else "AA"
        if one.verdict != wanted:
            verdict.say(f"message {one.control_id} ({one.what}): answered {one.verdict or 'nothing'}, not {wanted}")
    there = Counter(row["control_id"] for row in accepted)
    for control_id, one in meant.items():
        if one.verdict == "AA" and there[control_id] != 1:
            verdict.say(f"message {control_id} ({one.what}) was acknowledged and is stored {there[control_id]} times")
    for control_id in there.keys() - meant.keys():
        verdict.say(f"message {control_id} is stored as accepted and never was one to accept")
    told = {row["control_id"] for row in refused}
    for one in sent:
        if one.meant is None and one.control_id not in told:
            verdict.say(f"message {one.control_id} ({one.what}) was refused and is not kept")
    if untold := sum(1 for row in refused if not row["told"]):
        verdict.say(f"{untold} refused messages have no line in the operator's queue")
    order = [meant[row["control_id"]] for row in accepted if row["control_id"] in meant]
    latest = 0.0
    for one in reversed(order):
        # What was sent after this one's answer must come after it.
        if latest and one.begun > latest:
            verdict.say(f"message {one.control_id} was stored before one whose answer came before it was sent")
        latest = min(latest or one.ended, one.ended)
    return [one.meant for one in order if one.meant is not None]


def _with_notes(
    verdict: Verdict,
    order: Sequence[Meant],
    accepted: Sequence[dict[str, Any]],
    notes: Sequence[Note],
    kept: Sequence[dict[str, Any]],
) -> list[Meant | str]:
    """The notes in their place among the messages: a lane sends one thing after the other."""
    came = {row["sop_instance_uid"]: row["received_at"] for row in kept}
    for note in notes:
        if note.uid not in came:
            verdict.say(f"note {note.uid} was acknowledged and is not stored")
    if len(came) != len(notes):
        verdict.say(f"{len(came)} notes are stored, {len(notes)} were acknowledged")
    when = {row["control_id"]: row["received_at"] for row in accepted}
    events: list[tuple[Any, int, Meant | str]] = [(when[m.control_id], n, m) for n, m in enumerate(order)]
    events += [(came[note.uid], -1, note.study) for note in notes if note.uid in came]
    # Messages that were stored together have the same time, and keep their order.
    return [event for _, _, event in sorted(events, key=lambda e: (e[0], e[1]))]


def _entries(site: Site) -> list[tuple[StoredEntry, bytes]]:
    store = Store(site.state / "national" / "dmp")
    try:
        return [(entry, store.content(entry.unique_id) or b"") for entry in store.entries()]
    finally:
        store.close()


def _registry(verdict: Verdict, known: Catalogue, model: Model, entries: Iterable[tuple[StoredEntry, bytes]]) -> None:
    """The manifests that stand are those that the messages ask for, and say what they must."""
    found: dict[tuple[str, str], list[Kos]] = defaultdict(list)
    by_submission: dict[str, Counter[str]] = defaultdict(Counter)
    for entry, content in entries:
        by_submission[entry.submission][entry.mime] += 1
        if entry.mime != _KOS:
            continue
        kos = read_kos(content)
        held = known.studies[kos.study_uid]
        if entry.status != v.APPROVED:
            continue
        shown = described(entry)
        references = [r.split("^") for r in shown["references"]]
        acts = {e["code"] for e in shown["events"]} & REGIONS.keys()
        placers = {r[0] for r in references if r[4] == v.ORDER_REFERENCE}
        [structure] = entry.structures
        found[structure, kos.study_uid].append(
            Kos(
                entry.patient,
                frozenset(shown["confidentiality"]) & _MASKS,
                ",".join(sorted(placers)),
                ",".join(sorted(acts)),
            )
        )
        instances = {uid for _, uid in kos.evidence}
        if instances != held.shared:
            verdict.say(f"study {kos.study_uid}: its KOS names {len(instances)} images, not the PACS's")
        if {r[0] for r in references if r[4] == v.ACCESSION_REFERENCE} != {held.accession}:
            verdict.say(f"study {kos.study_uid}: its KOS has another accession number")
    expected, perhaps = model.expected(), model.perhaps()
    for key in sorted(found.keys() | expected.keys()):
        structure, study = key
        there, wanted = found.get(key, []), expected.get(key)
        where = f"study {study} ({STRUCTURES.get(structure, structure)})"
        if len(there) > 1:
            verdict.say(f"{where}: {len(there)} KOS stand")
        elif wanted is None and there == [perhaps.get(key)]:
            continue
        elif wanted is None:
            verdict.say(f"{where}: a KOS stands, and none should")
        elif not there:
            verdict.say(f"{where}: no KOS, and one should stand")
        elif there[0] != wanted:
            verdict.say(f"{where}: {_differences(there[0], wanted)}")
    for submission, kinds in by_submission.items():
        if kinds[_KOS] != 1 or kinds[_SIGNATURE] != 1:
            verdict.say(f"submission {submission} holds {dict(kinds)}: not one KOS and its signature")
    verdict.figures["studies that must have a KOS"] = len(expected)


def _differences(there: Kos, wanted: Kos) -> str:
    told = []
    if there.patient != wanted.patient:
        told.append("the KOS is under another INS")
    for name in ("masks", "placer", "act"):
        if getattr(there, name) != getattr(wanted, name):
            told.append(f"{name} {getattr(there, name)}, not {getattr(wanted, name)}")
    return ", ".join(told)


def _archive(
    verdict: Verdict,
    entries: Iterable[tuple[StoredEntry, bytes]],
    publications: Sequence[dict[str, Any]],
    audited: Sequence[dict[str, Any]],
) -> None:
    """The box knows every document that it sent, and the journal tells of each."""
    state = {p["kos_uid"]: p["state"] for p in publications}
    status = {"current": v.APPROVED, "replaced": v.DEPRECATED, "depublished": v.DELETED}
    registered = set()
    for entry, _ in entries:
        if entry.mime != _KOS:
            continue
        registered.add(entry.unique_id)
        known = state.get(entry.unique_id)
        if known is None:
            verdict.say(f"KOS {entry.unique_id} is in the DMP and not in the archive")
        elif status.get(known) != entry.status:
            # One that was refused by hand of the registry and one that was replaced differ only in the archive.
            verdict.say(
                f"KOS {entry.unique_id} is {entry.status.rpartition(':')[2]} in the DMP, {known} in the archive"
            )
    for kos_uid, known in state.items():
        if known in ("current", "replaced", "depublished") and kos_uid not in registered:
            verdict.say(f"KOS {kos_uid} is {known} in the archive and was never in the DMP")
        if known == "prepared":
            verdict.say(f"KOS {kos_uid} is still on its way in the archive")
    said = {(row["event"], row["kos"]) for row in audited if row["outcome"] == 0}
    for kos_uid, known in state.items():
        if known in ("current", "replaced", "depublished") and ("110106/ITI-41", kos_uid) not in said:
            verdict.say(f"KOS {kos_uid} is not told of by the journal")
        if known == "depublished" and ("110106/ITI-57", kos_uid) not in said:
            verdict.say(f"the end of KOS {kos_uid} is not told of by the journal")
    verdict.figures["versions in the archive"] = len(publications)
    verdict.figures["versions refused by the DMP"] = sum(1 for p in publications if p["state"] == "abandoned")


def _queue(
    verdict: Verdict,
    site: Site,
    model: Model,
    incidents: Sequence[dict[str, Any]],
    jobs: Sequence[dict[str, Any]],
) -> None:
    """What could not be done has its line; nothing else waits for the operator."""
    lines = {(i["structure"], i["study_uid"], i["code"]) for i in incidents}
    allowed = {(line.structure, line.study, code) for line in model.lines for code in line.codes}
    for study in site.catalogue.studies.values():
        if study.touched:
            # Reports that came while the PACS had no image of it, or none that is not rejected.
            codes = ("study-unknown", "study-empty", "study-rejected")
            allowed |= {(structure, study.uid, code) for structure in STRUCTURES.values() for code in codes}
    for line in model.lines:
        held = site.catalogue.studies.get(line.study)
        # Where images came and went, what stopped a report depends on the moment.
        must = line.must and not (held is not None and held.touched)
        if must and not any((line.structure, line.study, code) in lines for code in line.codes):
            verdict.say(f"message {line.control_id} on {line.study}: no line {'|'.join(line.codes)} in the queue")
    for incident in incidents:
        code = incident["code"].removeprefix("resync-")
        key = (incident["structure"], incident["study_uid"], code)
        if code == "waiting":
            if incident["closed_at"] is None:
                verdict.say(f"study {incident['study_uid']} still waits: {incident['reason']}")
        elif incident["severity"] == "error" and key not in allowed:
            verdict.say(
                f"study {incident['study_uid']}: unexpected line {incident['code']}: {incident['reason']} "
                f"[{incident['peer_code']}] {'open' if incident['closed_at'] is None else 'closed'}"
            )
    for job in jobs:
        verdict.say(f"job {job['id']} {job['task_name']} {job['args']} is {job['status']}")
