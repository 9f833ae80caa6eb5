"""How accepted objects are registered: the DMP's own identifiers, versions and statuses (standards.md D.6)."""

from __future__ import annotations

import copy
import datetime as dt
import hashlib
from collections.abc import Mapping

from lxml import etree

from drimbox.foundation.clock import iso_utc
from drimbox.foundation.uids import new_uuid_urn
from drimbox.foundation.xml import Builder, Element, parse, to_bytes
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.ebrim import Association, RegistryObject, Submission, rim
from drimbox.sandbox.dmp.store import StoredAssociation, StoredEntry, StoredSubmission

_RIM = Builder({"rim": v.RIM}, "rim")


def new_identifiers(submission: Submission) -> dict[str, str]:
    """An entryUUID for each object: the client's ids are symbols of its message, never kept."""
    objects = [*submission.packages, *submission.entries]
    return {o.id: new_uuid_urn() for o in objects} | {a.id: new_uuid_urn() for a in submission.associations}


def stored_submission(
    package: RegistryObject, ids: Mapping[str, str], *, kind: str, now: dt.datetime
) -> StoredSubmission:
    """The submission set as the registry keeps it."""
    element = _renamed(package.element, ids[package.id])
    element.set("objectType", v.REGISTRY_PACKAGE_TYPE)
    element.set("status", v.APPROVED)
    patient = package.identifier(v.SET_PATIENT)
    unique = package.identifier(v.SET_UNIQUE)
    return StoredSubmission(ids[package.id], unique, patient, kind, _bytes(element), iso_utc(now))


def stored_entry(
    entry: RegistryObject, content: bytes, ids: Mapping[str, str], submission: str, *, repository: str, now: dt.datetime
) -> StoredEntry:
    """A document entry as the registry keeps it: entryUUID, logicalId, version 1, repositoryUniqueId."""
    uuid = ids[entry.id]
    element = _renamed(entry.element, uuid)
    element.set("lid", uuid)
    for found in element.findall(rim("Slot")):
        if found.get("name") == "repositoryUniqueId":
            element.remove(found)
    slot = _RIM("Slot", _RIM("ValueList", _RIM("Value", repository)), name="repositoryUniqueId")
    element.insert(0, slot)
    _set_version(element, 1)
    masked = any(c.code == v.MASKED_TO_PROFESSIONALS for c in entry.codes.get(v.ENTRY_CONFIDENTIALITY, ()))
    return StoredEntry(
        uuid=uuid,
        logical_id=uuid,
        version=1,
        status=v.APPROVED,
        unique_id=entry.identifier(v.ENTRY_UNIQUE),
        patient=entry.identifier(v.ENTRY_PATIENT),
        structures=entry.institutions,
        masked=masked,
        hash=hashlib.sha1(content).hexdigest(),
        mime=entry.element.get("mimeType", ""),
        metadata=_bytes(element),
        submission=submission,
        registered=iso_utc(now),
    )


def stored_association(association: Association, ids: Mapping[str, str]) -> StoredAssociation:
    """An association between registered objects."""
    source, target = (ids.get(end, end) for end in (association.source, association.target))
    element = copy.deepcopy(association.element)
    element.set("id", ids[association.id])
    element.set("sourceObject", source)
    element.set("targetObject", target)
    return StoredAssociation(ids[association.id], association.kind, source, target, _bytes(element))


def leaf(entry: StoredEntry) -> Element:
    """The ExtrinsicObject of a registered entry, with its present status."""
    element = parse(entry.metadata)
    element.set("status", entry.status)
    return element


def _renamed(element: Element, uuid: str) -> Element:
    renamed = copy.deepcopy(element)
    renamed.set("id", uuid)
    for part in renamed.iterchildren(rim("Classification"), rim("ExternalIdentifier")):
        part.set("id", new_uuid_urn())
        part.set("classifiedObject" if part.tag == rim("Classification") else "registryObject", uuid)
    return renamed


def _set_version(element: Element, version: int) -> None:
    for found in element.findall(rim("VersionInfo")):
        element.remove(found)
    before = [c for c in element.iterchildren(etree.Element) if c.tag in map(rim, ("Slot", "Name", "Description"))]
    element.insert(element.index(before[-1]) + 1, _RIM("VersionInfo", versionName=str(version)))


def _bytes(element: Element) -> bytes:
    element.tail = None
    etree.cleanup_namespaces(element)
    return to_bytes(element, declaration=False)
