"""Queries and retrievals give what is asked for, to those who may see it, and nothing else."""

from __future__ import annotations

import datetime as dt

import pytest
from lxml import etree

from drimbox.foundation.uids import new_uid
from drimbox.sandbox.dmp import Authorisation, Published
from sandbox_dmp import metadata as md
from sandbox_dmp.refusals_registry import (
    APPROVED,
    ARCHIVED,
    ASSOCIATIONS,
    BY_REFERENCE,
    CURRENT,
    DELETED,
    DEPRECATED,
    FIND,
    GET,
    MINE,
    SECOND,
    SETS,
)  # fmt: skip
from sandbox_dmp.scene import ACCESSION, OTHER, PATIENT, STRUCTURE, USER, Answered, Caller, Scene

EVENTS = "$XDSDocumentEntryEventCodeList"


@pytest.fixture
def reader(scene: Scene) -> Caller:
    """A professional of another structure, with the authorisation of the patient."""
    scene.dmp.set_authorisation(PATIENT, USER, Authorisation.VALID)
    return scene.reader(unit=OTHER)


def report(**changes: object) -> Published:
    when = dt.datetime(2021, 1, 8, 9, 25, tzinfo=dt.UTC)
    values: dict[str, object] = {
        "patient": PATIENT,
        "unique_id": "1.2.250.1.213.4.5.4.405",
        "content": b"<ClinicalDocument/>",
        "author": (USER, "DOC0036790", "KIT"),
        "structure": (STRUCTURE, "Centre de radiologie"),
        "created": when,
        "started": when,
        "stopped": when,
        "references": [f"{ACCESSION[0]}^^^&{ACCESSION[1]}&ISO^urn:ihe:iti:xds:2013:accession"],
    }
    return Published(**{**values, **changes})  # type: ignore[arg-type]


def uuids(answered: Answered) -> list[str]:
    assert answered.outcome == "Success", answered.broken
    return [e.get("id", "") for e in answered.found()]


def found(scene: Scene, reader: Caller, *more: tuple[str, str], query: str = FIND, status: str = APPROVED) -> list[str]:
    slots = [MINE, ("$XDSDocumentEntryStatus", f"('{status}')"), *more]
    return uuids(scene.send(scene.query(reader, query, slots)))


def test_list_holds_the_report_of_the_ris_and_the_kos(scene: Scene, reader: Caller) -> None:
    kos = scene.published()[1]
    cda = scene.dmp.preload(report())
    assert sorted(found(scene, reader)) == sorted([kos, cda])
    assert found(scene, reader, ("$XDSDocumentEntryClassCode", "('10^^1.2.250.1.213.1.1.4.1')")) == [cda]
    assert found(scene, reader, ("$XDSDocumentEntryTypeCode", "('IMG-KOS^^1.2.250.1.213.1.1.4.12')")) == [kos]
    assert scene.dmp.preload(report()) == cda


def test_several_values_are_alternatives_and_several_slots_all_hold(scene: Scene, reader: Caller) -> None:
    kos = scene.published()[1]
    mr, ct = ("'MR^^1.2.840.10008.2.16.4'", "'CT^^1.2.840.10008.2.16.4'")
    head, knee = ("'774007^^2.16.840.1.113883.6.96'", "'61685007^^2.16.840.1.113883.6.96'")
    assert found(scene, reader, (EVENTS, f"({ct},{mr})")) == [kos]
    assert found(scene, reader, (EVENTS, f"({ct})")) == []
    assert found(scene, reader, (EVENTS, f"({mr})"), (EVENTS, f"( {head} , {knee} )")) == [kos]
    assert found(scene, reader, (EVENTS, f"({mr})"), (EVENTS, f"({knee})")) == []
    # The same code of another scheme is another code.
    assert found(scene, reader, (EVENTS, "('MR^^1.2.250.1.213.1.1.5.618')")) == []


def test_dates_bound_from_included_to_excluded(scene: Scene, reader: Caller) -> None:
    kos = scene.published()[1]
    name = "$XDSDocumentEntryServiceStartTime"
    assert found(scene, reader, (f"{name}From", "20210108092500"), (f"{name}To", "202101080926")) == [kos]
    assert found(scene, reader, (f"{name}From", "2021"), (f"{name}To", "2022")) == [kos]
    assert found(scene, reader, (f"{name}To", "20210108092500")) == []
    assert found(scene, reader, (f"{name}From", "202102")) == []


def test_search_by_reference_finds_kos_and_report_of_one_examination(scene: Scene, reader: Caller) -> None:
    kos, cda = scene.published()[1], scene.dmp.preload(report())
    scene.published(accession=("ACN9", "1.2.3.4"))
    value = f"'{ACCESSION[0]}^^^&{ACCESSION[1]}&ISO^urn:ihe:iti:xds:2013:accession'"
    slot = ("$XDSDocumentEntryReferenceIdList", f"({value})")
    assert sorted(found(scene, reader, slot, query=BY_REFERENCE)) == sorted([kos, cda])


def test_quotes_inside_a_text_are_doubled(scene: Scene, reader: Caller) -> None:
    cda = scene.dmp.preload(report(author=(USER, "D'ARC", "JEANNE")))
    assert found(scene, reader, ("$XDSDocumentEntryAuthorPerson", "('%^D''ARC^%')")) == [cda]
    assert found(scene, reader, ("$XDSDocumentEntryAuthorPerson", "('D''ARC')")) == []


def test_status_chooses_and_a_deleted_document_is_never_seen(scene: Scene, reader: Caller) -> None:
    replaced = scene.published()[1]
    current = scene.published(replaces=replaced)[1]
    archived, deleted = scene.published()[1], scene.published()[1]
    for uuid, status in ((archived, ARCHIVED), (deleted, DELETED)):
        scene.send(scene.status_change(scene.caller(), uuid, before=APPROVED, after=status))
    assert found(scene, reader) == [current]
    assert found(scene, reader, status=DEPRECATED) == [replaced]
    assert found(scene, reader, status=ARCHIVED) == [archived]
    assert found(scene, reader, status=DELETED) == []
    wanted = ("$XDSDocumentEntryEntryUUID", f"('{deleted}','{archived}')")
    answered = scene.send(scene.query(reader, GET, [wanted]))
    assert [e.get("status") for e in answered.found()] == [ARCHIVED]


def test_masked_documents_are_seen_by_their_author_only(scene: Scene, reader: Caller) -> None:
    masked, uuid = scene.published(masks=["MASQUE_PS"])
    hidden = scene.published(masks=["INVISIBLE_PATIENT"])[1]
    author = scene.reader()
    assert found(scene, reader) == [hidden]
    assert {uuid, hidden} <= set(found(scene, author))
    assert scene.send(scene.retrieval(reader, masked.unique_id)).errors == [
        ("XDSDocumentUniqueIdError", "RETRIEVE.DOCUMENT")
    ]
    assert list(scene.send(scene.retrieval(author, masked.unique_id)).parts.values()) == [masked.content]


def test_signatures_are_masked_to_others(scene: Scene, reader: Caller) -> None:
    scene.published()
    mimes = [e.get("mimeType") for e in scene.send(scene.query(reader, FIND, [MINE, CURRENT])).found()]
    assert mimes == ["application/dicom"]


def test_nobody_sees_the_documents_of_another_patient(scene: Scene, reader: Caller) -> None:
    scene.dmp.set_patient(SECOND)
    wire, uuid = scene.published(scene.caller(patient=SECOND.cx))
    assert found(scene, reader) == []
    for name, value in (("UniqueId", wire.unique_id), ("EntryUUID", uuid)):
        assert uuids(scene.send(scene.query(reader, GET, [(f"$XDSDocumentEntry{name}", f"('{value}')")]))) == []
        assert uuids(scene.send(scene.query(scene.caller(), GET, [(f"$XDSDocumentEntry{name}", f"('{value}')")]))) == []
    assert scene.send(scene.retrieval(reader, wire.unique_id)).outcome == "Failure"


@pytest.mark.parametrize("returns", ["ObjectRef", "LeafClass"])
def test_source_finds_the_identifier_of_its_own_documents_without_air(scene: Scene, returns: str) -> None:
    wire, uuid = scene.published()
    slots = [("$XDSDocumentEntryUniqueId", f"('{wire.unique_id}')")]
    assert uuids(scene.send(scene.query(scene.caller(), GET, slots, returns=returns))) == [uuid]
    assert uuids(scene.send(scene.query(scene.caller(OTHER), GET, slots, returns=returns))) == []


def test_sets_since_the_last_visit(scene: Scene, reader: Caller) -> None:
    scene.published()
    name = "$XDSSubmissionSet"
    slots = [(f"{name}PatientId", f"'{PATIENT}'"), (f"{name}Status", f"('{APPROVED}')")]
    lately = (f"{name}SubmissionTimeFrom", (scene.clock.now() - dt.timedelta(minutes=5)).strftime("%Y%m%d%H%M%S"))
    later = (f"{name}SubmissionTimeFrom", (scene.clock.now() + dt.timedelta(minutes=5)).strftime("%Y%m%d%H%M%S"))
    assert len(uuids(scene.send(scene.query(reader, SETS, [*slots, lately])))) == 1
    assert uuids(scene.send(scene.query(reader, SETS, [*slots, later]))) == []
    source = (f"{name}SourceId", "('1.2.250.1.999.1.1.8121')")
    kind = (f"{name}ContentType", "('07^^1.2.250.1.213.2.2')")
    assert len(uuids(scene.send(scene.query(reader, SETS, [*slots, source, kind])))) == 1


def test_associations_join_what_may_be_seen(scene: Scene, reader: Caller) -> None:
    old = scene.published()[1]
    new = scene.published(replaces=old)[1]
    answered = scene.send(scene.query(reader, ASSOCIATIONS, [("$uuid", f"('{new}')")]))
    kinds = sorted(e.get("associationType", "").rpartition(":")[2] for e in answered.found())
    assert kinds == ["HasMember", "RPLC"]


def test_answers_are_valid_against_the_schemas(schooled: Scene) -> None:
    wire, uuid = schooled.published()
    schooled.dmp.preload(report())
    reader = schooled.reader(unit=STRUCTURE)
    schooled.dmp.set_authorisation(PATIENT, USER, Authorisation.VALID)
    schemas = schooled.dmp.bench().schemas
    for returns in ("LeafClass", "ObjectRef"):
        answered = schooled.send(schooled.query(reader, FIND, [MINE, CURRENT], returns=returns))
        assert len(answered.found()) == 3
        assert answered.body.get("totalResultCount") == "3"
        assert schemas.query is not None
        assert schemas.query.validate(answered.body), schemas.query.error_log
    for question in (
        schooled.query(reader, ASSOCIATIONS, [("$uuid", f"('{uuid}')")]),
        schooled.query(
            reader, SETS, [("$XDSSubmissionSetPatientId", MINE[1]), ("$XDSSubmissionSetStatus", CURRENT[1])]
        ),
        schooled.query(reader, FIND, [MINE]),
    ):
        assert schemas.query.validate(schooled.send(question).body), schemas.query.error_log
    retrieved = schooled.send(schooled.retrieval(reader, wire.unique_id, "1.2.3"))
    for document in retrieved.body.iter("{urn:ihe:iti:xds-b:2007}Document"):
        document.remove(document[0])
        document.text = "AAAA"
    assert schemas.xds is not None
    assert schemas.xds.validate(retrieved.body), schemas.xds.error_log


def test_retrieved_octets_are_those_published(scene: Scene, reader: Caller) -> None:
    wire, _ = scene.published()
    scene.dmp.preload(report())
    answered = scene.send(scene.retrieval(reader, wire.unique_id, "1.2.250.1.213.4.5.4.405"))
    assert (answered.outcome, answered.errors) == ("Success", [])
    described = list(answered.body.iter("{urn:ihe:iti:xds-b:2007}DocumentResponse"))
    included = [d.find(".//{*}Include").get("href", "") for d in described]  # type: ignore[union-attr]
    assert [etree.QName(d[2]).localname for d in described] == ["mimeType", "mimeType"]
    assert [d[2].text for d in described] == ["application/dicom", "text/xml"]
    contents = [answered.parts[href.removeprefix("cid:").replace("%3A", ":")] for href in included]
    assert contents == [wire.content, b"<ClinicalDocument/>"]


def test_retrieval_is_partial_when_some_documents_are_refused(scene: Scene, reader: Caller) -> None:
    wire, _ = scene.published()
    answered = scene.send(scene.retrieval(reader, new_uid(), wire.unique_id))
    assert answered.outcome == "PartialSuccess"
    assert answered.errors == [("XDSDocumentUniqueIdError", "RETRIEVE.DOCUMENT")]
    assert list(answered.parts.values()) == [wire.content]


def test_emergency_opens_the_record_but_not_to_a_blocked_professional(scene: Scene) -> None:
    kos = scene.published()[1]
    for purpose in ("bris_de_glace", "centre_15"):
        assert found(scene, scene.reader(unit=OTHER, user="899700360009", purpose=purpose)) == [kos]
    scene.dmp.set_authorisation(PATIENT, "899700360009", Authorisation.BLOCKED)
    hurried = scene.reader(unit=OTHER, user="899700360009", purpose="bris_de_glace")
    assert scene.send(scene.query(hurried, FIND, [MINE, CURRENT])).broken == ("ACCESS.BLOCKED", "DMPAccessDenied")


def test_two_documents_of_one_metadata_name_keep_their_own_metadata(scene: Scene, reader: Caller) -> None:
    first, second = scene.published()[0], scene.published()[0]
    answered = scene.send(scene.query(reader, FIND, [MINE, CURRENT]))
    path = f"rim:ExternalIdentifier[@identificationScheme='urn:uuid:{md.UNIQUE}']"
    told = [e.xpath(path, namespaces={"rim": md.RIM})[0].get("value") for e in answered.found()]
    assert told == [first.unique_id, second.unique_id]
