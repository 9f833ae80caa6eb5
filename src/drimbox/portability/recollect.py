"""A report made again from what an archived version says: its KOS and its submission set.

An imported version comes without the message behind it, and must be updated all the same when the PACS or the address
of the source changes. What is made here says again what was published, no more.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from drimbox.foundation.errors import Refused
from drimbox.foundation.xml import parse
from drimbox.identity.traits import LocalId, Patient, Sex, Traits, parse_date
from drimbox.manifest.manifest import Manifest
from drimbox.manifest.read import read_manifest
from drimbox.national.dmp import codes
from drimbox.national.dmp.metadata import DocumentEntry, Dtm, RegistryObjects, Xcn, read_objects
from drimbox.national.dmp.metadata.datatypes import unescape
from drimbox.portability.compose import local_number
from drimbox.publication.kos import ArchivedKos
from drimbox.reports.report import Act, Coded, Identifier, Operation, Order, Person, Report, Sender, Structure

_DEVICE = "EI"
_BIRTH_PLACE = "BDL"
_UNDIFFERENTIATED = "N"


def recollect(kos: ArchivedKos, structure: Structure) -> Report:
    """The report as far as a version tells it; ``structure`` is the publishing one.

    Raises ``Refused``: ``archive-metadata`` (its metadata do not describe it, or name no professional), and what
    reading a KOS, XML or traits may raise.
    """
    manifest = read_manifest(kos.kos)
    objects = read_objects(parse(kos.metadata))
    entry = next((e for e in objects.entries if e.unique_id == kos.kos_uid), None)
    if entry is None:
        raise Refused("Les métadonnées archivées ne décrivent pas le KOS", code="archive-metadata")
    patient = _patient(kos, manifest, entry)
    signatory, sender = _people(entry, objects)
    return Report(
        operation=Operation.NEW,
        document_id=next(reversed(kos.document_ids), kos.kos_uid),
        replaces=None,
        title=entry.title,
        created=_instant(entry.creation_time),
        language=entry.language,
        patient=patient,
        message_patient=patient,
        orders=tuple(_orders(manifest, entry)),
        acts=(_act(kos.study_uid, manifest, entry),),
        author=None,
        signatory=signatory,
        structure=structure,
        practice_setting=entry.practice_setting,
        facility_type=entry.facility_type,
        patient_class=_patient_class(objects),
        visibility=kos.visibility,
        visibility_changed=False,
        publish_to_dmp=True,
        sender=Sender("", "", sender),
    )


# --- the patient ------------------------------------------------------------------------------------------------------


def _patient(kos: ArchivedKos, manifest: Manifest, entry: DocumentEntry) -> Patient:
    """The INS was qualified when the version was published; it is the archive's, whatever the KOS calls the patient."""
    number = local_number(entry, kos.ins)
    return Patient(
        ins=kos.ins,
        qualified=True,
        traits=_traits(manifest, entry),
        local_ids=(LocalId(number.value, number.authority),) if number else (),
    )


def _traits(manifest: Manifest, entry: DocumentEntry) -> Traits:
    family, given = _name(manifest.patient_name)
    if not (family and given):
        told = entry.source_patient("PID-5").split("^")
        family, given = family or unescape(told[0]), given or (unescape(told[1]) if len(told) > 1 else "")
    others = [_name(name) for name in manifest.other_names]
    birth_names = next((names for other, names in others if not other), "")
    used = next(((other, names) for other, names in others if other), ("", ""))
    return Traits(
        birth_family=family,
        first_given=given,
        birth_date=parse_date(manifest.birth_date or entry.source_patient("PID-7")),
        sex=Sex.of(manifest.sex or entry.source_patient("PID-8")),
        birth_place=manifest.birth_place or _birth_place(entry),
        given_names=(birth_names,) if birth_names else (),
        used_family=used[0],
        used_given=used[1],
    )


def _name(pn: str) -> tuple[str, str]:
    """Family and given name of a DICOM PN."""
    parts = [part.strip() for part in pn.split("=")[0].split("^")]
    return parts[0], parts[1] if len(parts) > 1 else ""


def _birth_place(entry: DocumentEntry) -> str:
    """XAD-7 says that it is the place of birth, XAD-9 which (INSEE)."""
    parts = entry.source_patient("PID-11").split("^")
    return unescape(parts[8]) if len(parts) > 8 and parts[6] == _BIRTH_PLACE else ""


# --- the exam ---------------------------------------------------------------------------------------------------------


def _orders(manifest: Manifest, entry: DocumentEntry) -> Iterator[Order]:
    """The requests of the KOS; an issuer that it does not name is the one of the metadata."""
    accessions = tuple(Identifier(r.value, r.authority) for r in entry.accession_numbers())
    placers = tuple(Identifier(r.value, r.authority) for r in entry.references_of(codes.REFERENCE_ORDER))
    for order in manifest.requests:
        yield Order(_whole(order.placer, placers), _whole(order.accession, accessions))
    if not manifest.requests:
        placer = placers[0] if len(placers) == 1 else None
        yield from (Order(placer, accession) for accession in accessions)


def _whole(told: Identifier | None, known: tuple[Identifier, ...]) -> Identifier | None:
    if told is None or told.issuer:
        return told
    return next((other for other in known if other.value == told.value), told)


def _act(study_uid: str, manifest: Manifest, entry: DocumentEntry) -> Act:
    """One act, with every modality and region that the entry codes."""
    modalities = tuple(c for c in entry.event_codes if c.code in codes.ACQUISITIONS)
    regions = tuple(c for c in entry.event_codes if c.code not in codes.ACQUISITIONS)
    return Act(
        study_uids=(study_uid,),
        code=Coded("", "", manifest.act) if manifest.act else None,
        procedure=None,
        modalities=modalities,
        regions=regions,
        start=_instant(entry.service_start),
        stop=_instant(entry.service_stop),
    )


def _instant(time: Dtm | None) -> dt.datetime | None:
    return time.instant() if time is not None else None


# --- who and where ----------------------------------------------------------------------------------------------------


def _people(entry: DocumentEntry, objects: RegistryObjects) -> tuple[Person, Person]:
    """Who signed the report, and who sent it: the legal authenticator, and the author of the submission set."""
    authors = [author.person for submission_set in objects.submission_sets for author in submission_set.authors]
    senders = [person for person in map(_person, authors) if person]
    signers = [person for person in (_person(entry.legal_authenticator), *senders) if person]
    if not signers:
        raise Refused("Les métadonnées archivées ne nomment aucun professionnel", code="archive-metadata")
    return signers[0], next(iter(senders), signers[0])


def _person(xcn: Xcn | None) -> Person | None:
    if xcn is None or not xcn.identifier or xcn.identifier_type == _DEVICE:
        return None
    return Person(xcn.identifier, xcn.family, xcn.given)


def _patient_class(objects: RegistryObjects) -> str:
    """The PV1-2 of which the content type of the submission set was made."""
    told = next((s.content_type.code for s in objects.submission_sets if s.content_type is not None), "")
    known = codes.CONTENT_TYPE_OF_PATIENT_CLASS.items()
    return next((name for name, content_type in known if content_type.code == told), _UNDIFFERENTIATED)
