"""The traits that only documents tell: given names, used names (INS/va1.36; ans-faq.md 4.2).

The call does not carry them; the entries of the DMP, a KOS, a report do, the later ones more fully.
"""

from __future__ import annotations

from dataclasses import replace

from drimbox.consumer.consultation import Found
from drimbox.consumer.identity_check import person_name
from drimbox.consumer.sessions import OpenCall
from drimbox.identity.traits import Traits, same_name
from drimbox.manifest.manifest import Manifest


def traits_found(call: OpenCall, source: Found | Manifest | Traits) -> None:
    """Fill in what is not known yet from the entries of a search, a KOS or a report of the call's patient."""
    if isinstance(source, Traits):
        told = source
    elif isinstance(source, Manifest):
        told = _of_manifest(call.call.traits, source)
    else:
        told = _of_entries(call.call.traits, source)
    known = call.details
    if known is None:
        call.details = told
        return
    call.details = replace(
        known,
        given_names=max(known.given_names, told.given_names, key=len),
        used_family=known.used_family or told.used_family,
        used_given=known.used_given or told.used_given,
    )


def used_names(call: OpenCall) -> tuple[str, ...]:
    """Every used name known so far: a PACS may know the patient by one of them (decision 4)."""
    details = call.details
    return tuple(name for name in (details.used_family, details.used_given) if name) if details is not None else ()


def _of_manifest(ours: Traits, manifest: Manifest) -> Traits:
    """Other names of a KOS: ``^GIVEN NAMES`` then ``USED^NAME`` (official-data.md 9.1)."""
    found = ours
    for name in manifest.other_names:
        family, given = person_name(name)
        if not family:
            found = replace(found, given_names=tuple(given.split()))
        else:
            found = replace(found, used_family=family, used_given=given)
    return found


def _of_entries(ours: Traits, found: Found) -> Traits:
    """sourcePatientInfo of an entry: ``PID-5|NOM^Prénom^…^^^L`` for the birth name, ``D`` for the used one."""
    told = ours
    for exam in found.exams:
        for document in exam.documents:
            for info in document.entry.source_patient_info:
                if info.startswith("PID-5|"):
                    told = _of_name(told, info.removeprefix("PID-5|"))
        if told.given_names and told.used_family:
            break
    return told


def _of_name(told: Traits, xpn: str) -> Traits:
    for name in xpn.split("~"):
        family, given, others, *rest = (*name.split("^"), "", "", "")
        kind = rest[3] if len(rest) > 3 else ""
        if kind == "D" and family and not told.used_family:
            told = replace(told, used_family=family, used_given=given)
        elif kind in ("L", "") and others.strip() and not told.given_names and same_name(family, told.birth_family):
            told = replace(told, given_names=tuple(f"{given} {others}".split()))
    return told
