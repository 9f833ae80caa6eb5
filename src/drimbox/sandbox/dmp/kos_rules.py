"""Rules of the KOS itself: is it the manifest that its entry announces (standards.md A, official-data.md 9.1)?"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from drimbox.sandbox.dmp import datatypes
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.entry_rules import EntryCase
from drimbox.sandbox.dmp.kos import Kos, Unreadable, read_kos
from drimbox.sandbox.dmp.rules import Rule, judge, rule, stated

_REJECTIONS = frozenset({"113001", "113037", "113038", "113039"})
_SYNTAXES = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})

READABLE = stated("KOS.READABLE", v.INVALID_CONTENT, "The document is a DICOM Part 10 file (standards.md A.4).")


@dataclass(frozen=True, slots=True)
class KosCase:
    """A KOS under judgement, with its entry."""

    case: EntryCase
    kos: Kos

    def references(self, kind: str) -> frozenset[tuple[str, str]]:
        told = (datatypes.reference(value) for value in self.case.entry.slots.get(v.REFERENCES_SLOT, ()))
        return frozenset((t.value, t.authority) for t in told if t is not None and t.kind == kind)


@rule("KOS.CLASS", v.INVALID_CONTENT)
def sop_class(k: KosCase) -> str | None:
    """SOP class Key Object Selection, modality KO, a container; alike in the file meta (standards.md A.1)."""
    right = k.kos.sop_class == k.kos.meta_class == v.KOS_SOP_CLASS
    return None if right and (k.kos.modality, k.kos.value_type) == ("KO", "CONTAINER") else "ce n'est pas un KOS"


@rule("KOS.SYNTAX", v.INVALID_CONTENT)
def syntax(k: KosCase) -> str | None:
    """Explicit or Implicit VR Little Endian (standards.md A.4, decision 8)."""
    return None if k.kos.transfer_syntax in _SYNTAXES else "syntaxe de transfert du KOS refusée"


@rule("KOS.UID", v.INVALID_CONTENT)
def uid(k: KosCase) -> str | None:
    """The SOP Instance UID, in the file meta too, is the uniqueId of the entry (standards.md A.4)."""
    same = k.kos.sop_uid == k.kos.meta_uid == k.case.entry.identifier(v.ENTRY_UNIQUE)
    return None if same else "SOP Instance UID du KOS différent de uniqueId"


@rule("KOS.PATIENT", v.INVALID_CONTENT)
def patient(k: KosCase) -> str | None:
    """PatientID is the INS, its issuer the OID of the INS (standards.md A.5)."""
    same = f"{k.kos.patient_id}^^^&{k.kos.patient_issuer}&ISO^NH" == k.case.vihf.patient
    return None if same else "patient du KOS différent du patient du document"


@rule("KOS.TRAITS", v.INVALID_CONTENT)
def traits(k: KosCase) -> str | None:
    """Birth name, birth date and sex of the KOS are those of sourcePatientInfo (official-data.md 10)."""
    lines = dict(value.partition("|")[::2] for value in k.case.entry.slots.get("sourcePatientInfo", ()))
    family = lines.get("PID-5", "").partition("^")[0]
    same_name = datatypes.words(k.kos.patient_name.partition("^")[0]) == datatypes.words(family)
    same = same_name and (k.kos.birth_date, k.kos.sex) == (lines.get("PID-7"), lines.get("PID-8"))
    return None if same else "traits du KOS différents de sourcePatientInfo"


@rule("KOS.TITLE", v.INVALID_CONTENT)
def title(k: KosCase) -> str | None:
    """The document title is (113030, DCM, Manifest) (standards.md A.4)."""
    return None if k.kos.title == ("113030", "DCM") else "titre du KOS : (113030, DCM) attendu"


@rule("KOS.STUDY", v.INVALID_CONTENT)
def study(k: KosCase) -> str | None:
    """One study: that of the KOS, of its evidence, of its requests and of referenceIdList (decision 2)."""
    told = {value for value, _ in k.references(v.STUDY_REFERENCE)}
    same = told == {k.kos.study_uid} == set(k.kos.evidence_studies) and len(k.kos.evidence_studies) == 1
    return (
        None if same and k.kos.request_studies <= told else "étude du KOS différente de celle de l'entrée, ou plusieurs"
    )


@rule("KOS.SERIES", v.INVALID_CONTENT)
def series(k: KosCase) -> str | None:
    """At least one series, each with at least one instance, none twice (standards.md A.2)."""
    uids = [s.uid for s in k.kos.series]
    named = [i for s in k.kos.series for i in s.instances]
    valid = all(map(datatypes.is_oid, uids)) and all(datatypes.is_oid(x) for pair in named for x in pair)
    whole = bool(uids) and all(s.instances for s in k.kos.series)
    once = len(set(uids)) == len(uids) and len(set(named)) == len(named)
    return None if valid and whole and once else "série vide, répétée ou mal identifiée dans le KOS"


@rule("KOS.URL", v.INVALID_CONTENT)
def url(k: KosCase) -> str | None:
    """Each series has its RetrieveURL, https, ending in /studies/{study}/series/{series} (standards.md A.5)."""
    for one in k.kos.series:
        address = urlsplit(one.url)
        path = re.escape(f"/studies/{k.kos.study_uid}/series/{one.uid}")
        if address.scheme != "https" or not address.hostname or not re.search(f"{path}$", address.path):
            return "RetrieveURL absente ou fausse dans le KOS"
    return None


@rule("KOS.CONTENT", v.INVALID_CONTENT)
def content(k: KosCase) -> str | None:
    """The content tree names exactly the instances of the evidence (standards.md A.3)."""
    same = frozenset(k.kos.content) == k.kos.evidence
    return None if same else "contenu du KOS différent de ses références (0040,A375)"


@rule("KOS.VALUE_TYPE", v.INVALID_CONTENT)
def value_type(k: KosCase) -> str | None:
    """The content tree names a Key Object Selection as COMPOSITE (standards.md A.3, the official KIN sample)."""
    wrong = any(kind != "COMPOSITE" for sop_class, kind in k.kos.value_types if sop_class == v.KOS_SOP_CLASS)
    return None if not wrong else "note d'objets clés référencée autrement que comme COMPOSITE"


@rule("KOS.KIN", v.INVALID_CONTENT)
def key_notes(k: KosCase) -> str | None:
    """A note under a flagged instance is a Key Object Selection of the KOS, in its series, not of itself, once."""
    listed = {(s.uid, uid) for s in k.kos.series for sop_class, uid in s.instances if sop_class == v.KOS_SOP_CLASS}
    notes = [n for s in k.kos.series for n in s.notes]
    known = all((n.series, n.note) in listed and n.note != n.instance for n in notes)
    once = len({(n.instance, n.note) for n in notes}) == len(notes)
    return None if known and once else "note d'images clés absente du KOS, répétée ou d'une autre série"


@rule("KOS.KIN_TITLE", v.INVALID_CONTENT)
def key_note_titles(k: KosCase) -> str | None:
    """A note is carried with one title, not a rejection's, and no empty text (standards.md A.5, B.1)."""
    notes = [n for s in k.kos.series for n in s.notes]
    titled = all(len(n.titles) == 1 and all(n.titles[0]) and n.titles[0][0] not in _REJECTIONS for n in notes)
    return None if titled and all(all(n.texts) for n in notes) else "note d'images clés sans titre, ou rejet, ou vide"


@rule("KOS.REQUESTS", v.INVALID_CONTENT)
def requests(k: KosCase) -> str | None:
    """Accession and order numbers, with issuers, are those of referenceIdList (standards.md A.5, D.5)."""
    same = k.kos.accessions == k.references(v.ACCESSION_REFERENCE) and k.kos.orders == k.references(v.ORDER_REFERENCE)
    return None if same else "numéros d'examen ou de demande du KOS différents de referenceIdList"


@rule("KOS.CREATED", v.INVALID_CONTENT)
def created(k: KosCase) -> str | None:
    """InstanceCreationDate and Time are the creationTime of the entry, once in UTC (standards.md D.5)."""
    told = datatypes.utc_time(k.case.entry.slot("creationTime"))
    near = told is not None and k.kos.created is not None and abs(told - k.kos.created) < dt.timedelta(seconds=2)
    return None if near else "création du KOS différente de creationTime"


KOS_RULES: tuple[Rule[KosCase], ...] = (
    sop_class,
    syntax,
    uid,
    patient,
    traits,
    title,
    study,
    series,
    url,
    content,
    value_type,
    key_notes,
    key_note_titles,
    requests,
    created,
)


def judge_kos(case: EntryCase) -> None:
    """Raise the ``Breach`` of the first rule that the KOS breaks."""
    try:
        kos = read_kos(case.content)
    except Unreadable as error:
        raise READABLE.broken("document illisible : un fichier DICOM est attendu") from error
    judge(KOS_RULES, KosCase(case, kos), location=case.entry.id)
