"""Requests that the state of the DMP forbids, and questions that are badly put."""

from __future__ import annotations

from collections.abc import Callable

from drimbox.foundation.uids import new_uid, new_uuid_urn
from drimbox.sandbox.dmp import Authorisation, KnownPatient
from sandbox_dmp import metadata as md
from sandbox_dmp.bending import Case, added, also, edit, one, without
from sandbox_dmp.scene import CLOSED, NO_RECORD, OTHER, PATIENT, STRUCTURE, Bends, Caller, Scene, Wire
from sandbox_dmp.signing import Element

APPROVED, DEPRECATED = (f"urn:oasis:names:tc:ebxml-regrep:StatusType:{s}" for s in ("Approved", "Deprecated"))
ARCHIVED, DELETED = (f"urn:asip:ci-sis:2010:StatusType:{s}" for s in ("Archived", "Deleted"))
POLICY, DENIED = "LocalPolicyRestrictionError", "DMPAccessDenied"
MALFORMED, FORBIDDEN = "dmp:MalformedRequest", "dmp:NotAllowed"
SECOND = KnownPatient("274075176079430", PATIENT.split("&")[1], "PAT-DEUX", "JEANNE", "19751017", "F")

FIND, BY_REFERENCE = "14d4debf-8f97-4251-9a74-a90016b0af0d", "12941a89-e02e-4be5-967c-ce4bfc8fe492"
SETS, GET, ASSOCIATIONS = (
    "f26abbcb-ac74-4422-8a30-edb644bbc1a9",
    "5c4f972b-d56b-40ac-a5fc-c8ca9b40b9d4",
    "a7ae438b-4bc2-4642-93e9-be891f7bb155",
)
MINE = ("$XDSDocumentEntryPatientId", f"'{PATIENT}'")
CURRENT = ("$XDSDocumentEntryStatus", f"('{APPROVED}')")


# --- publications that the registry refuses -------------------------------------------------------------------------


def same_set(scene: Scene) -> Wire:
    """A new KOS in a set whose uniqueId is registered."""
    scene.published()
    known = scene.dmp.store.submissions()[-1].unique_id
    path = "//rim:RegistryPackage/rim:ExternalIdentifier[3]"
    return scene.publication(bends=Bends(body=edit(path, value=known)))


def one_id_for_two(body: Element) -> None:
    kos = one(body, "//rim:ExtrinsicObject[@id='DocumentKOS']/rim:ExternalIdentifier[2]").get("value", "")
    edit("//rim:ExtrinsicObject[@id='Signature01']/rim:ExternalIdentifier[2]", value=kos)(body)


def same_id(scene: Scene) -> Wire:
    first, _ = scene.published()
    return scene.publication(unique_id=first.unique_id)


def same_document(scene: Scene) -> Wire:
    """The very octets again: the study and the uniqueId are those of the first."""
    study = new_uid()
    first, _ = scene.published(study=study)
    second = scene.publication(unique_id=first.unique_id, study=study)
    assert first.content == second.content
    return second


def replacing(target: Callable[[Scene], str], **caller: str) -> Callable[[Scene], Wire]:
    def build(scene: Scene) -> Wire:
        uuid = target(scene)
        unit = caller.get("unit", STRUCTURE)
        return scene.publication(scene.caller(unit), replaces=uuid, site=unit)

    return build


def of_second_patient(scene: Scene) -> str:
    scene.dmp.set_patient(SECOND)
    return scene.published(scene.caller(patient=SECOND.cx))[1]


def deleted(scene: Scene) -> str:
    uuid = scene.published()[1]
    assert scene.send(scene.status_change(scene.caller(), uuid, before=APPROVED, after=DELETED)).outcome == "Success"
    return uuid


def archived(scene: Scene) -> str:
    uuid = scene.published()[1]
    assert scene.send(scene.status_change(scene.caller(), uuid, before=APPROVED, after=ARCHIVED)).outcome == "Success"
    return uuid


def replaced(scene: Scene) -> str:
    uuid = scene.published()[1]
    scene.published(replaces=uuid)
    return uuid


def mine(scene: Scene) -> str:
    return scene.published()[1]


def nothing(scene: Scene) -> str:
    return new_uuid_urn()


def change(
    rule: str, code: str, target: Callable[[Scene], str], before: str, after: str, note: str = "", *,
    unit: str = STRUCTURE, patient: str = PATIENT, bends: Bends | None = None,
) -> Case:  # fmt: skip
    def build(scene: Scene) -> Wire:
        uuid = target(scene)
        caller = scene.caller(unit, patient=patient)
        site = edit("//rim:RegistryPackage//rim:Slot[@name='authorInstitution']/rim:ValueList/rim:Value",
                    text=f"C^^^^^&1.2.250.1.71.4.2.2&ISO^IDNST^^^{unit}")  # fmt: skip
        body = also(site, bends.body) if bends and bends.body else site
        return scene.status_change(caller, uuid, before=before, after=after, bends=Bends(body=body))

    return Case(rule, code, build, note)


UPDATE_ONLY, UPDATE_ERROR = "XDSMetadataUpdateOperationError", "XDSMetadataUpdateError"
ASSOCIATION = "//rim:Association"
DOCUMENT = '<rim:ExtrinsicObject id="DocumentKOS" mimeType="application/dicom"/>'

REGISTRY_CASES = [
    Case("SET.NEW", "XDSDuplicateUniqueIdInRegistry", same_set),
    Case("REGISTRY.IN_MESSAGE", "XDSRepositoryDuplicateUniqueIdInMessage",
         lambda s: s.publication(bends=Bends(body=one_id_for_two))),
    Case("REGISTRY.HASH", "XDSNonIdenticalHash", same_id),
    Case("REGISTRY.UNIQUE", "XDSDuplicateUniqueIdInRegistry", same_document),
    Case("REPLACE.FOUND", "XDSReplaceFailed", replacing(nothing), "unknown"),
    Case("REPLACE.FOUND", "XDSReplaceFailed", replacing(deleted), "deleted"),
    Case("REPLACE.PATIENT", "XDSPatientIdDoesNotMatch", replacing(of_second_patient)),
    Case("REPLACE.STRUCTURE", POLICY, replacing(mine, unit=OTHER)),
    Case("REPLACE.STATUS", "XDSRegistryDeprecatedDocumentError", replacing(replaced), "replaced"),
    Case("REPLACE.STATUS", "XDSRegistryDeprecatedDocumentError", replacing(archived), "archived"),
    change("UPDATE.ONLY", UPDATE_ONLY, mine, APPROVED, DELETED, "with a document",
           bends=Bends(body=added("//rim:RegistryObjectList", DOCUMENT))),
    change("UPDATE.ONLY", UPDATE_ONLY, mine, APPROVED, DELETED, "other association",
           bends=Bends(body=edit(ASSOCIATION, associationType=md.HAS_MEMBER))),
    change("UPDATE.ONLY", UPDATE_ONLY, mine, APPROVED, DELETED, "none", bends=Bends(body=without(ASSOCIATION))),
    change("UPDATE.ONLY", UPDATE_ONLY, mine, APPROVED, DELETED, "other source",
           bends=Bends(body=edit(ASSOCIATION, sourceObject="other"))),
    change("UPDATE.TARGET", UPDATE_ERROR, nothing, APPROVED, DELETED, "unknown"),
    change("UPDATE.TARGET", UPDATE_ERROR, deleted, DELETED, APPROVED, "deleted"),
    change("UPDATE.PATIENT", "XDSPatientIdDoesNotMatch", of_second_patient, APPROVED, DELETED),
    change("UPDATE.AUTHOR", POLICY, mine, APPROVED, DELETED, unit=OTHER),
    change("UPDATE.CURRENT", "XDSMetadataVersionError", mine, ARCHIVED, DELETED),
    change("UPDATE.CURRENT", "XDSMetadataVersionError", archived, APPROVED, DELETED, "archived"),
    change("UPDATE.CURRENT", "XDSMetadataVersionError", mine, APPROVED, DELETED, "absent",
           bends=Bends(body=without(f"{ASSOCIATION}/rim:Slot"))),
    change("UPDATE.TRANSITION", UPDATE_ERROR, mine, APPROVED, DEPRECATED),
    change("UPDATE.TRANSITION", UPDATE_ERROR, replaced, DEPRECATED, APPROVED, "back from replaced"),
]  # fmt: skip


# --- questions ------------------------------------------------------------------------------------------------------


def allowed(scene: Scene, **changes: str) -> Caller:
    """A reader who has the authorisation."""
    reader = scene.reader(**changes)
    scene.dmp.set_authorisation(reader.patient, reader.user, Authorisation.VALID)
    return reader


def asked(rule: str, code: str, identifier: str, *slots: tuple[str, str], note: str = "", bend: object = None) -> Case:
    def build(scene: Scene) -> Wire:
        return scene.query(allowed(scene), identifier, slots, bends=Bends(body=bend))

    return Case(rule, code, build, note)


def standing(state: Authorisation, user: str, purpose: str = "normal") -> Callable[[Scene], Wire]:
    def build(scene: Scene) -> Wire:
        reader = scene.reader(user=user, purpose=purpose)
        scene.dmp.set_authorisation(PATIENT, user, state)
        return scene.query(reader, FIND, [MINE, CURRENT])

    return build


def of_patient(patient: str) -> Callable[[Scene], Wire]:
    return lambda s: s.query(
        allowed(s, patient=patient), FIND, [("$XDSDocumentEntryPatientId", f"'{patient}'"), CURRENT]
    )


ERROR, MISSING, NUMBER = "XDSRegistryError", "XDSStoredQueryMissingParam", "XDSStoredQueryParamNumber"
CLASS = "$XDSDocumentEntryClassCode"

QUERY_CASES = [
    Case("ACCESS.RECORD", "XDSUnknownPatientId", of_patient(NO_RECORD)),
    Case("ACCESS.RECORD", "XDSUnknownPatientId", lambda s: s.retrieval(s.reader(patient=NO_RECORD), "1.2.3"), "ITI-43"),
    Case("ACCESS.OPEN", "DMPRecordClosed", of_patient(CLOSED)),
    Case("ACCESS.BLOCKED", DENIED, standing(Authorisation.BLOCKED, "899700360001")),
    Case("ACCESS.BLOCKED", DENIED, standing(Authorisation.BLOCKED, "899700360001", "bris_de_glace"), "emergency"),
    Case("ACCESS.AUTHORISED", DENIED, standing(Authorisation.EXPIRED, "899700360002"), "expired"),
    Case("ACCESS.AUTHORISED", DENIED, standing(Authorisation.ABSENT, "899700360003"), "absent"),
    Case("ACCESS.AUTHORISED", DENIED, lambda s: s.retrieval(s.reader(user="899700360004"), "1.2.3"), "ITI-43"),
    asked("QUERY.KNOWN", "XDSUnknownStoredQuery", "10b545ea-725c-446d-9b95-8aeb444eddf3", MINE, CURRENT, note="GetAll"),
    asked("QUERY.REQUIRED", MISSING, FIND, MINE, note="status"),
    asked("QUERY.REQUIRED", MISSING, FIND, CURRENT, note="patient"),
    asked("QUERY.REQUIRED", MISSING, BY_REFERENCE, MINE, CURRENT, note="reference"),
    asked("QUERY.REQUIRED", MISSING, GET, note="GetDocuments"),
    asked("QUERY.REQUIRED", MISSING, FIND, MINE, CURRENT, note="no value", bend=without("//rim:Slot[2]//rim:Value")),
    asked("QUERY.REPEATED", NUMBER, FIND, MINE, CURRENT, CURRENT, note="slot"),
    asked("QUERY.REPEATED", NUMBER, FIND, MINE, CURRENT, note="value",
          bend=added("//rim:Slot[1]/rim:ValueList", "<rim:Value>'x'</rim:Value>")),
    asked("QUERY.PARAMETER", ERROR, FIND, MINE, CURRENT, ("$XDSDocumentEntryClasscode", "('3^^1')"), note="misspelled"),
    asked("QUERY.PARAMETER", ERROR, FIND, MINE, CURRENT, ("$XDSDocumentEntryReferenceIdList", "('x')"), note="other"),
    asked("QUERY.CODING", ERROR, FIND, ("$XDSDocumentEntryPatientId", PATIENT), CURRENT, note="no quotes"),
    asked("QUERY.CODING", ERROR, FIND, MINE, ("$XDSDocumentEntryStatus", f"'{APPROVED}'"), note="no parentheses"),
    asked("QUERY.CODING", ERROR, FIND, MINE, CURRENT, (CLASS, "('31^^1.2','it's^^1.2')"), note="inner quote"),
    asked("QUERY.SCHEME", ERROR, FIND, MINE, CURRENT, (CLASS, "('31')")),
    asked("QUERY.SCHEME", ERROR, FIND, MINE, CURRENT, (CLASS, "('31^^')"), note="empty"),
    asked("QUERY.DATE", ERROR, FIND, MINE, CURRENT, ("$XDSDocumentEntryCreationTimeFrom", "'20240101'"), note="quoted"),
    asked("QUERY.DATE", ERROR, FIND, MINE, CURRENT, ("$XDSDocumentEntryCreationTimeFrom", "202401011"), note="odd"),
    asked("QUERY.SCHEMA", MALFORMED, FIND, MINE, CURRENT, bend=without("//q:ResponseOption")),
    asked("QUERY.OPTION", ERROR, FIND, MINE, CURRENT, note="type",
          bend=edit("//q:ResponseOption", returnType="RegistryObject")),
    asked("QUERY.OPTION", ERROR, FIND, MINE, CURRENT, note="composed",
          bend=edit("//q:ResponseOption", returnComposedObjects="false")),
    Case("QUERY.MODE", DENIED, lambda s: s.query(s.caller(), FIND, [MINE, CURRENT])),
    asked("QUERY.PATIENT", "XDSPatientIdDoesNotMatch", FIND, ("$XDSDocumentEntryPatientId", f"'{SECOND.cx}'"), CURRENT),
    asked("QUERY.ONE_OF", NUMBER, GET, ("$XDSDocumentEntryUniqueId", "('1')"), ("$XDSDocumentEntryEntryUUID", "('x')")),
    Case("RETRIEVE.SCHEMA", MALFORMED, lambda s: s.retrieval(allowed(s)), "nothing asked"),
    Case("RETRIEVE.LIMIT", "XDSRepositoryOutOfResources", lambda s: s.retrieval(allowed(s), "1.2.3", "1.2.3"), "twice"),
    Case("RETRIEVE.LIMIT", "XDSRepositoryOutOfResources",
         lambda s: s.retrieval(allowed(s), *(f"1.2.{n}" for n in range(51))), "many"),
    Case("RETRIEVE.REPOSITORY", "XDSUnknownRepositoryId", lambda s: s.retrieval(allowed(s), "1.2.3", repository="1.2")),
    Case("RETRIEVE.DOCUMENT", "XDSDocumentUniqueIdError", lambda s: s.retrieval(allowed(s), "1.2.3")),
]  # fmt: skip


# --- existence and authorisation ------------------------------------------------------------------------------------


def existence(rule: str, bend: object, note: str = "", code: str = MALFORMED) -> Case:
    return Case(rule, code, lambda s: s.existence(s.caller(), Bends(body=bend)), note)  # type: ignore[arg-type]


def blocked_author(scene: Scene) -> Wire:
    scene.dmp.set_authorisation(PATIENT, "899700360005", Authorisation.BLOCKED)
    return scene.authorise(scene.reader(user="899700360005"))


ACT, QUERY = "//hl7:controlActProcess", "//hl7:queryByParameter"

PATIENT_CASES = [
    existence("EXISTENCE.INTERACTION", edit(".", ITSVersion="XML_2.0")),
    existence("EXISTENCE.INTERACTION", edit("//hl7:interactionId", extension="PRPA_IN201305UV02"), "interaction"),
    existence("EXISTENCE.ID", edit("hl7:id", extension="")),
    existence("EXISTENCE.ID", edit("hl7:creationTime", value="2024-01-01"), "time"),
    existence("EXISTENCE.CODES", edit("hl7:processingCode", code="X")),
    existence("EXISTENCE.CODES", without("hl7:acceptAckCode"), "ack"),
    existence("EXISTENCE.DEVICES", edit("//hl7:receiver//hl7:id", root="1.2.3")),
    existence("EXISTENCE.DEVICES", edit("//hl7:sender//hl7:id", root="drimbox"), "sender"),
    existence("EXISTENCE.REASON", edit(f"{ACT}/hl7:reasonCode", code="OTHER")),
    existence("EXISTENCE.REASON", edit(ACT, moodCode="RQO"), "mood"),
    existence("EXISTENCE.QUERY", edit(f"{QUERY}/hl7:statusCode", code="old")),
    existence("EXISTENCE.QUERY", without(f"{QUERY}/hl7:queryId"), "id"),
    existence("EXISTENCE.PATIENT", edit("//hl7:patientIdentifier/hl7:value", extension=SECOND.ins), "other", FORBIDDEN),
    existence("EXISTENCE.PATIENT", edit("//hl7:semanticsText", text="IPP"), "semantics", FORBIDDEN),
    Case("AUTHORISE.FORM", MALFORMED, lambda s: s.authorise(s.reader(), "LECTURE")),
    Case("AUTHORISE.RECORD", FORBIDDEN, lambda s: s.authorise(s.reader(patient=CLOSED)), "closed"),
    Case("AUTHORISE.RECORD", FORBIDDEN, lambda s: s.authorise(s.reader(patient=NO_RECORD)), "none"),
    Case("AUTHORISE.BLOCKED", FORBIDDEN, blocked_author),
]  # fmt: skip

CASES = [*REGISTRY_CASES, *QUERY_CASES, *PATIENT_CASES]

# Of a DMP that knows the schemas.
SCHEMA_CASES = [
    Case("VIHF.SCHEMA", "wsse:InvalidSecurityToken", lambda s: s.existence(s.caller(), Bends(
        assertion=edit("saml:AuthnStatement", AuthnInstant="yesterday")))),
    Case("PROVIDE.SCHEMA", MALFORMED, lambda s: s.publication(bends=Bends(
        body=also(added("//rim:RegistryPackage", '<rim:Slot name="x"><rim:ValueList/></rim:Slot>'))))),
    Case("UPDATE.SCHEMA", MALFORMED, lambda s: s.status_change(
        s.caller(), new_uuid_urn(), before=APPROVED, after=DELETED,
        bends=Bends(body=without("//rim:Association", "targetObject")))),
    Case("QUERY.SCHEMA", MALFORMED, lambda s: s.query(s.reader(), FIND, [MINE], bends=Bends(
        body=edit("//q:ResponseOption", returnType="Everything")))),
    Case("RETRIEVE.SCHEMA", MALFORMED, lambda s: s.retrieval(s.reader(), "1.2.3", bends=Bends(
        body=without("//xds:RepositoryUniqueId")))),
]  # fmt: skip
