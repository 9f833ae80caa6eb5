"""Publications whose metadata break a rule: submission set, associations, entries."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox_dmp import metadata as md
from sandbox_dmp.bending import (
    KOS,
    SET,
    SIGN,
    Case,
    added,
    also,
    coded,
    edit,
    feed,
    one,
    scheme_of,
    slot,
    twice,
    without,
)
from sandbox_dmp.scene import CLOSED, LEGAL, NO_RECORD, OTHER, PATIENT, Bends, Scene, Wire
from sandbox_dmp.signing import Bend, Element

REGISTRY, REPOSITORY = "XDSRegistryMetadataError", "XDSRepositoryMetadataError"
POLICY = "LocalPolicyRestrictionError"
MEMBER = f"//rim:Association[@associationType='{md.HAS_MEMBER}']"
SIGNS = f"//rim:Association[@associationType='{md.SIGNS}']"
OTHER_PATIENT = PATIENT.replace("279035121518989", "274075176079430")
LIST = "//rim:RegistryObjectList"


def meta(rule: str, code: str, bend: Bend, note: str = "") -> Case:
    return feed(rule, code, note, body=bend)


def later(name: str, owner: str, hours: int = 2) -> Bend:
    """A time in the future, as French local time is when it is given for UTC."""

    def bend(body: Element) -> None:
        found = one(body, slot(owner, name))
        text = found.text or ""
        found.text = f"{int(text[:10]) + hours:010d}{text[10:]}" if int(text[8:10]) + hours < 24 else f"2099{text[4:]}"

    return bend


def slots(owner: str, name: str, *values: str) -> Bend:
    """Give a slot other values."""

    def bend(body: Element) -> None:
        listed = one(body, f"{owner}/rim:Slot[@name='{name}']/rim:ValueList")
        for child in list(listed):
            listed.remove(child)
        for value in values:
            added(".", "<rim:Value/>")(listed)
            listed[-1].text = value

    return bend


def coding(owner: str, axis: str, rule: str, note: str = "", code: str = REPOSITORY) -> list[Case]:
    """An axis with another code, under another scheme, absent, and twice."""
    return [
        meta(rule, code, edit(coded(owner, axis), nodeRepresentation="other"), f"{note}code"),
        meta(rule, code, edit(scheme_of(owner, axis), text="1.2.3"), f"{note}scheme"),
        meta(rule, code, without(coded(owner, axis)), f"{note}absent"),
        meta(rule, code, doubled(coded(owner, axis)), f"{note}twice"),
    ]


def doubled(path: str) -> Bend:
    """The same classification twice, each with an id of its own."""
    return also(twice(path), edit(path, id="cl-doubled"))


def refused_record(rule: str, code: str, patient: str) -> Case:
    return Case(rule, code, lambda s: s.publication(s.caller(patient=patient)))


def legal_site(scene: Scene) -> Wire:
    """Mode EJ: the legal entity stands in the submission set itself."""
    return scene.publication(scene.caller(LEGAL), site=LEGAL)


def references(*values: str) -> Bend:
    return slots(KOS, md.REFERENCES, *values)


ACCESSION = "ACN105^^^&1.2.250.1.213.4.5.5.1&ISO^urn:ihe:iti:xds:2013:accession"
STUDY = "1.2.3^^^^urn:ihe:iti:xds:2016:studyInstanceUID"
# The samples give the study a filler as assigning authority.
DUMMY = STUDY.replace("^^^^", "^^^&1.2.3.4.5.6&ISO^")
HUGE = Bends(kos_octets=lambda kos: kos + b"\0" * 5 * 2**20)
MASK = "1.2.250.1.213.1.1.4.13"


def masked(code: str, scheme: str = MASK) -> Bend:
    return also(
        doubled(coded(KOS, md.CONFIDENTIALITY)),
        edit(coded(KOS, md.CONFIDENTIALITY), nodeRepresentation=code),
        edit(scheme_of(KOS, md.CONFIDENTIALITY), text=scheme),
    )


def event(place: int) -> str:
    return f"{coded(KOS, md.EVENT)}[{place}]"


PERSON_SLOT = "rim:Slot[@name='authorPerson']/rim:ValueList/rim:Value"
INSTITUTION_SLOT = "rim:Slot[@name='authorInstitution']/rim:ValueList/rim:Value"
KOS_AUTHOR, SET_AUTHOR = coded(KOS, md.AUTHOR), coded(SET, md.SET_AUTHOR)


def bad_authors(author: str, rule: str, code: str) -> Sequence[Case]:
    person, institution = f"{author}/{PERSON_SLOT}", f"{author}/{INSTITUTION_SLOT}"
    return [
        meta(rule, code, without(author), "absent"),
        meta(rule, code, edit(person, text="899700367909^KIT"), "short XCN"),
        meta(rule, code, edit(person, text=md.PERSON.replace("1.2.250.1.71.4.2.1", "1.2.3")), "authority"),
        meta(rule, code, edit(person, text=md.PERSON.replace("IDNPS", "PI")), "type"),
        meta(rule, code, edit(person, text=md.PERSON.replace("899700367909", "kit")), "identifier"),
        meta(rule, code, edit(institution, text="Centre"), "short XON"),
        meta(rule, code, edit(institution, text="C^^^^^&1.2.3&ISO^IDNST^^^1750803447"), "XON authority"),
        meta(rule, code, edit(institution, text="C^^^^^&1.2.250.1.71.4.2.2&ISO^IDNST^^^750803447"), "bare FINESS"),
    ]


SET_CASES = [
    meta("SET.PACKAGE", REGISTRY, without(SET), "absent"),
    meta("SET.PACKAGE", REGISTRY, twice(SET), "twice"),
    meta("SET.PACKAGE", REGISTRY, without(f"{SET}/rim:Classification[@classificationNode]"), "not classified"),
    meta("SET.PACKAGE", REGISTRY, added(LIST, '<rim:ObjectRef id="urn:uuid:x"/>'), "other object"),
    meta("SET.IDS", REGISTRY, edit(MEMBER, id="Signature01"), "repeated"),
    meta("SET.IDS", REGISTRY, edit(coded(KOS, md.TYPE), classifiedObject="Signature01"), "other owner"),
    meta("SET.IDS", REGISTRY, edit(f"{SIGN}/rim:ExternalIdentifier", registryObject="DocumentKOS"), "other identifier"),
    meta("SET.SLOTS", REGISTRY, twice(f"{KOS}/rim:Slot[@name='hash']")),
    meta("SET.SLOTS", REGISTRY, twice(f"{coded(KOS, md.TYPE)}/rim:Slot"), "of a code"),
    meta("SET.TIME", REGISTRY, later("submissionTime", SET), "local time"),
    meta("SET.TIME", REGISTRY, edit(slot(SET, "submissionTime"), text="20240101101010+0100"), "offset"),
    meta("SET.TIME", REGISTRY, edit(slot(SET, "submissionTime"), text="20241301101010"), "impossible"),
    meta("SET.TIME", REGISTRY, without(f"{SET}/rim:Slot[@name='submissionTime']"), "absent"),
    meta("SET.TITLE", REGISTRY, without(f"{SET}/rim:Name"), "absent"),
    meta("SET.TITLE", REGISTRY, edit(f"{SET}/rim:Name/rim:LocalizedString", value="x" * 129), "long"),
    *bad_authors(SET_AUTHOR, "SET.AUTHOR", REGISTRY),
    meta("SET.AUTHOR", REGISTRY, doubled(SET_AUTHOR), "two"),
    Case("SET.STRUCTURE", POLICY, lambda s: s.publication(site=OTHER), "other site"),
    Case("SET.STRUCTURE", POLICY, legal_site, "legal entity"),
    *coding(SET, md.SET_CONTENT, "SET.CONTENT_TYPE", code=REGISTRY),
    meta("SET.PATIENT", REGISTRY, edit(f"{SET}/rim:ExternalIdentifier", value=OTHER_PATIENT)),
    meta("SET.SOURCE_ID", REGISTRY, edit(f"{SET}/rim:ExternalIdentifier[2]", value="drimbox")),
    meta("SET.UNIQUE_ID", REGISTRY, edit(f"{SET}/rim:ExternalIdentifier[3]", value="1.2.03")),
    meta("SET.ALONE", REGISTRY, edit(SET, home="urn:oid:1.2.3"), "home"),
    meta("SET.ALONE", REGISTRY, added(SET, '<rim:Slot name="intendedRecipient"><rim:ValueList><rim:Value>|x</rim:Value>'
         "</rim:ValueList></rim:Slot>", first=True), "recipient"),
    refused_record("RECORD.KNOWN", "XDSUnknownPatientId", NO_RECORD),
    refused_record("RECORD.KNOWN", "XDSUnknownPatientId", OTHER_PATIENT),
    refused_record("RECORD.OPEN", "DMPRecordClosed", CLOSED),
    meta("ASSOC.KINDS", REGISTRY, edit(SIGNS, associationType="urn:ihe:iti:2007:AssociationType:APND")),
    meta("ASSOC.SIGNS", POLICY, without(SIGNS), "unsigned"),
    meta("ASSOC.SIGNS", POLICY, edit(SIGNS, targetObject="DocumentKOS"), "not the set"),
    meta("ASSOC.SIGNS", POLICY, edit(SIGNS, sourceObject="Nobody"), "no such entry"),
    meta("ASSOC.MEMBERS", REGISTRY, without(MEMBER), "missing"),
    meta("ASSOC.MEMBERS", REGISTRY, also(twice(MEMBER), edit(MEMBER, id="as-twice")), "twice"),
    meta("ASSOC.STATUS", REGISTRY, edit(f"{MEMBER}//rim:Value", text="Reference")),
    meta("ASSOC.DOCUMENTS", "XDSMissingDocumentMetadata", also(without(KOS), without(MEMBER)), "signature alone"),
    Case("ASSOC.REPLACES", REGISTRY, lambda s: s.publication(replaces="DocumentKOS"), "no entryUUID"),
    meta("ASSOC.REPLACES", REGISTRY, added(LIST, f'<rim:Association id="r" associationType="{md.RPLC}" '
         'sourceObject="Signature01" targetObject="urn:uuid:a54d6aa5-d40d-43f9-88c5-b4633d873bdd"/>'), "signature"),
]  # fmt: skip

ENTRY_CASES = [
    meta("ENTRY.OBJECT_TYPE", REPOSITORY, edit(KOS, objectType="urn:uuid:34268e47-fdf5-41a6-ba33-82133c465248")),
    meta("ENTRY.PATIENT", "XDSPatientIdDoesNotMatch", edit(f"{KOS}/rim:ExternalIdentifier", value=OTHER_PATIENT)),
    meta("ENTRY.UNIQUE_ID", REPOSITORY, edit(f"{KOS}/rim:ExternalIdentifier[2]", value="kos-1")),
    *bad_authors(KOS_AUTHOR, "ENTRY.AUTHOR", REPOSITORY),
    meta("ENTRY.AUTHOR_STRUCTURE", POLICY, edit(f"{KOS_AUTHOR}/{INSTITUTION_SLOT}",
         text=f"C^^^^^&1.2.250.1.71.4.2.2&ISO^IDNST^^^{OTHER}")),
    meta("ENTRY.LEGAL_AUTHENTICATOR", REPOSITORY, without(f"{KOS}/rim:Slot[@name='legalAuthenticator']"), "absent"),
    meta("ENTRY.LEGAL_AUTHENTICATOR", REPOSITORY, edit(slot(KOS, "legalAuthenticator"), text=md.DEVICE), "device"),
    meta("ENTRY.CREATION", REPOSITORY, edit(slot(KOS, "creationTime"), text="20240101101010+0100"), "offset"),
    meta("ENTRY.CREATION", REPOSITORY, later("creationTime", KOS), "local time"),
    meta("ENTRY.SERVICE_TIME", REPOSITORY, edit(slot(KOS, "serviceStartTime"), text="20210108102500+0100"), "offset"),
    meta("ENTRY.SERVICE_TIME", REPOSITORY, edit(slot(KOS, "serviceStopTime"), text="20200108102500"), "order"),
    meta("ENTRY.SERVICE_TIME", REPOSITORY, edit(slot(KOS, "serviceStopTime"), text="2021"), "short"),
    meta("ENTRY.SUBMISSION_TIME", REPOSITORY, edit(slot(KOS, "submissionTime"), text="2021-01-08")),
    meta("ENTRY.SOURCE_PATIENT", REPOSITORY, without(f"{KOS}/rim:Slot[@name='sourcePatientId']"), "absent"),
    meta("ENTRY.SOURCE_PATIENT", REPOSITORY, edit(slot(KOS, "sourcePatientId"), text="IPP101^^^^PI"), "no issuer"),
    meta("ENTRY.SOURCE_PATIENT", REPOSITORY, edit(slot(KOS, "sourcePatientId"), text=OTHER_PATIENT), "other INS"),
    meta("ENTRY.SOURCE_PATIENT", REPOSITORY, edit(slot(KOS, "sourcePatientId"), text="1^^^&1.2&ISO^NH"), "IPP as NH"),
    meta("ENTRY.TITLE", REPOSITORY, edit(f"{KOS}/rim:Name/rim:LocalizedString", value=""), "empty"),
    meta("ENTRY.TITLE", REPOSITORY, edit(f"{KOS}/rim:Name/rim:LocalizedString", value="x" * 129), "long"),
    meta("ENTRY.LENGTH", REPOSITORY, edit(f"{coded(KOS, md.CLASS)}/rim:Name/rim:LocalizedString", value="x" * 257)),
    meta("ENTRY.CODES", REPOSITORY, without(f"{coded(KOS, md.CLASS)}/rim:Name"), "no label"),
    meta("ENTRY.CODES", REPOSITORY, added(KOS, f'<rim:Classification id="c" classifiedObject="DocumentKOS" '
         f'classificationScheme="urn:uuid:{md.CLASS[:-1]}e" nodeRepresentation="x"/>'), "no scheme"),
    *coding(KOS, md.FACILITY, "ENTRY.FACILITY"),
    *coding(KOS, md.PRACTICE, "ENTRY.PRACTICE")[1:],
    meta("ENTRY.URI", REPOSITORY, added(KOS, '<rim:Slot name="URI"><rim:ValueList><rim:Value>DOC0001.XML</rim:Value>'
         "</rim:ValueList></rim:Slot>", first=True)),
    Case("ENTRY.VOLUME", "XDSRepositoryOutOfResources", lambda s: s.publication(bends=HUGE)),
    meta("ENTRY.HASH", REPOSITORY, edit(slot(KOS, "hash"), text="0" * 40), "wrong"),
    meta("ENTRY.HASH", REPOSITORY, without(f"{SIGN}/rim:Slot[@name='hash']"), "absent"),
    meta("ENTRY.SIZE", REPOSITORY, edit(slot(KOS, "size"), text="109448")),
    meta("KOS_ENTRY.MIME", REPOSITORY, edit(KOS, mimeType="text/xml")),
    *coding(KOS, md.CLASS, "KOS_ENTRY.CLASS"),
    *coding(KOS, md.TYPE, "KOS_ENTRY.TYPE"),
    *coding(KOS, md.FORMAT, "KOS_ENTRY.FORMAT"),
    meta("KOS_ENTRY.LANGUAGE", REPOSITORY, edit(slot(KOS, "languageCode"), text="fr")),
    meta("KOS_ENTRY.CONFIDENTIALITY", REPOSITORY, without(coded(KOS, md.CONFIDENTIALITY)), "absent"),
    meta("KOS_ENTRY.CONFIDENTIALITY", REPOSITORY, doubled(coded(KOS, md.CONFIDENTIALITY)), "twice"),
    meta("KOS_ENTRY.CONFIDENTIALITY", REPOSITORY, masked("INVISIBLE_REP_LEGAUX"), "HL7 spelling"),
    meta("KOS_ENTRY.CONFIDENTIALITY", REPOSITORY, masked("MASQUE_PS", "2.16.840.1.113883.5.25"), "scheme"),
    meta("KOS_ENTRY.CONFIDENTIALITY", REPOSITORY, edit(coded(KOS, md.CONFIDENTIALITY), nodeRepresentation="R"), "R"),
    meta("KOS_ENTRY.MODALITY", REPOSITORY, edit(event(2), nodeRepresentation="RM"), "unknown"),
    meta("KOS_ENTRY.MODALITY", REPOSITORY, without(event(2)), "absent"),
    meta("KOS_ENTRY.MODALITY", REPOSITORY, also(doubled(event(2))), "twice"),
    meta("KOS_ENTRY.REGION", REPOSITORY, edit(event(1), nodeRepresentation="1"), "unknown"),
    meta("KOS_ENTRY.REGION", REPOSITORY, edit(f"{event(1)}/rim:Slot/rim:ValueList/rim:Value", text="1.2.3"), "scheme"),
    meta("KOS_ENTRY.PATIENT_INFO", REPOSITORY, without(f"{KOS}/rim:Slot[@name='sourcePatientInfo']"), "absent"),
    meta("KOS_ENTRY.PATIENT_INFO", REPOSITORY, slots(KOS, "sourcePatientInfo", "PID-5|A^B^^^^^L", "PID-7|19790328"),
         "no sex"),
    meta("KOS_ENTRY.PATIENT_INFO", REPOSITORY,
         slots(KOS, "sourcePatientInfo", "PID-5|A^B", "PID-7|19790328", "PID-8|F"), "short name"),
    meta("KOS_ENTRY.PATIENT_INFO", REPOSITORY, slots(
        KOS, "sourcePatientInfo", "PID-5|A^B^^^^^L", "PID-7|19790328", "PID-8|F", "PID-8|M"), "repeated"),
    meta("KOS_ENTRY.REFERENCES", REPOSITORY, references(ACCESSION, STUDY, "x"), "malformed"),
    meta("KOS_ENTRY.REFERENCES", REPOSITORY, references(ACCESSION, STUDY, "x^^^&1.2&ISO^urn:other"), "type"),
    meta("KOS_ENTRY.REFERENCES", REPOSITORY, references(STUDY, "1^^^^urn:ihe:iti:xds:2013:accession"), "no issuer"),
    meta("KOS_ENTRY.REFERENCES", REPOSITORY, references(ACCESSION, ACCESSION, STUDY), "repeated"),
    meta("KOS_ENTRY.STUDY", REPOSITORY, references(ACCESSION), "absent"),
    meta("KOS_ENTRY.STUDY", REPOSITORY, references(ACCESSION, STUDY, STUDY.replace("1.2.3", "1.2.4")), "two"),
    meta("KOS_ENTRY.STUDY", REPOSITORY, references(ACCESSION, DUMMY), "dummy authority"),
    meta("KOS_ENTRY.ACCESSION", REPOSITORY, references(STUDY)),
    meta("SIGN_ENTRY.MIME", REPOSITORY, edit(SIGN, mimeType="application/xml")),
    *coding(SIGN, md.CLASS, "SIGN_ENTRY.CLASS"),
    *coding(SIGN, md.TYPE, "SIGN_ENTRY.TYPE"),
    *coding(SIGN, md.FORMAT, "SIGN_ENTRY.FORMAT"),
    *coding(SIGN, md.EVENT, "SIGN_ENTRY.EVENT"),
    meta("SIGN_ENTRY.LANGUAGE", REPOSITORY, edit(slot(SIGN, "languageCode"), text="fr-FR")),
    meta("SIGN_ENTRY.TITLE", REPOSITORY, edit(f"{SIGN}/rim:Name/rim:LocalizedString", value="Signature")),
    meta("SIGN_ENTRY.CONFIDENTIALITY", REPOSITORY, without(f"{coded(SIGN, md.CONFIDENTIALITY)}[2]"), "not masked"),
    meta("SIGN_ENTRY.CONFIDENTIALITY", REPOSITORY, without(f"{coded(SIGN, md.CONFIDENTIALITY)}[3]"), "patient sees it"),
]  # fmt: skip


CASES = [*SET_CASES, *ENTRY_CASES]
