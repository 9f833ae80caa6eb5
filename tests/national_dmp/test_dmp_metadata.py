"""XDS metadata: what we write is valid and says what the nation agreed on; what others write is read."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from dmp_examples import DEVICE, KOS_BYTES, KOS_UID, ORDER, RADIOLOGIST, SOURCE_ID, STRUCTURE, STUDY_UID, make_entry
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from drimbox.foundation.errors import IdentityMismatch, Misconfigured, Refused
from drimbox.foundation.xml import Element, parse, to_bytes
from drimbox.identity.ins import Ins
from drimbox.identity.traits import Patient
from drimbox.national.dmp import codes, provide, soap
from drimbox.national.dmp.actor import Actor
from drimbox.national.dmp.client import DmpClient
from drimbox.national.dmp.metadata import (
    Association,
    Author,
    Cx,
    DocumentEntry,
    Dtm,
    KosCoding,
    RegistryObjects,
    SubmissionDraft,
    SubmissionSet,
    Xcn,
    Xon,
    content_type_of,
    read_objects,
    submission_draft,
    submit_objects_request,
)
from drimbox.national.dmp.provide import KosDocument, PreparedSubmission
from drimbox.national.dmp.provide import request as provide_request
from drimbox.pacs.study import Study
from drimbox.reports.report import Coded, Identifier, Order, Report, Sender, Visibility


@pytest.fixture(scope="session")
def xds_schema(shared: Path) -> etree.XMLSchema:
    return etree.XMLSchema(file=str(shared / "schemas" / "xds" / "IHE" / "IHEXDSB.xsd"))


def inlined(request: Element, parts: dict[str, bytes]) -> Element:
    """The request as its schema sees it: each document in base64 in the place of its Include."""
    whole = parse(to_bytes(request))
    for document in whole.iterfind(f"{{{codes.XDSB}}}Document"):
        include = document[0]
        content = parts[include.get("href", "").removeprefix("cid:")]
        document.remove(include)
        document.text = base64.b64encode(content).decode()
    return whole


# --- the KOS entry ----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("D9", "D10", "D11", "exam:E")
def test_the_kos_entry_says_what_the_nation_agreed_on(entry: DocumentEntry, ins: Ins) -> None:
    assert entry.unique_id == KOS_UID
    assert entry.patient_id.encode() == ins.cx()
    assert (entry.mime_type, entry.language, entry.title, entry.comments) == (
        "application/dicom",
        "fr-FR",
        "Reference d'Objets d'un Examen d'Imagerie",
        "KOS",
    )
    assert (entry.class_code.code, entry.class_code.system) == ("31", "1.2.250.1.213.1.1.4.1")  # type: ignore[union-attr]
    assert (entry.type_code.code, entry.type_code.system) == ("IMG-KOS", "1.2.250.1.213.1.1.4.12")  # type: ignore[union-attr]
    assert entry.format_code == Coded(
        "1.2.840.10008.5.1.4.1.1.88.59",
        "1.2.840.10008.2.6.1",
        "Document de Références d'objets d'imagerie selon profil IHE RAD XDS-I",
    )
    assert (entry.hash, entry.size) == (hashlib.sha1(KOS_BYTES).hexdigest(), len(KOS_BYTES))
    (author,) = entry.authors
    assert author.person is not None
    assert author.person.encode() == "31750803447/drimbox-1^DRIMbox^drimbox^^^^^^&1.2.250.1.71.4.2.1&ISO^U^^^EI"
    assert [i.encode() for i in author.institutions] == [
        "Centre de radiologie Ambroise^^^^^&1.2.250.1.71.4.2.2&ISO^IDNST^^^1750803447"
    ]
    assert entry.legal_authenticator is not None
    assert entry.legal_authenticator.encode() == "801234560801^BIDEAULT^Jacques^^^^^^&1.2.250.1.71.4.2.1&ISO^D^^^IDNPS"
    assert entry.source_patient_id is not None
    assert entry.source_patient_id.encode() == "IPP101^^^&1.2.250.1.213.4.5.2.4&ISO^PI"
    assert entry.source_patient_info == (
        "PID-5|PAT-TROIS^DOMINIQUE^^^^^L",
        "PID-7|19790328",
        "PID-8|F",
        "PID-11|^^^^^^BDL^^63220",
    )
    assert [r.encode() for r in entry.references] == [
        "ACN105^^^&1.2.250.1.925.994044.27&ISO^urn:ihe:iti:xds:2013:accession",
        f"{STUDY_UID}^^^^urn:ihe:iti:xds:2016:studyInstanceUID",
        "OPN105^^^&1.2.250.1.748.12345678.12&ISO^urn:ihe:iti:xds:2013:order",
    ]
    assert [(e.code, e.system) for e in entry.event_codes] == [
        ("67734004", "2.16.840.1.113883.6.96"),
        ("CT", "1.2.840.10008.2.16.4"),
    ]
    assert entry.is_kos


def test_times_are_in_utc(entry: DocumentEntry) -> None:
    assert entry.creation_time == Dtm("20240115090012")
    assert (entry.service_start, entry.service_stop) == (Dtm("20210108092500"), Dtm("20210108101700"))


def test_a_report_without_act_times_takes_the_study_s(report: Report, study: Study) -> None:
    acts = tuple(replace(act, start=None, stop=None) for act in report.acts)
    timeless = make_entry(replace(report, acts=acts), study)
    assert (timeless.service_start, timeless.service_stop) == (Dtm("20210108092500"), Dtm("20210108092500"))
    neither = make_entry(replace(report, acts=acts), replace(study, study_date="", study_time=""))
    assert neither.service_start == neither.creation_time


@pytest.mark.requirement("D9")
def test_the_radiologist_may_be_the_author(report: Report, study: Study) -> None:
    (author,) = make_entry(report, study, author="radiologist").authors
    assert author.person == Xcn.professional("801234560801", "BIDEAULT", "Jacques")


@pytest.mark.requirement("D10")
def test_coding_schemes_are_settings_and_modalities_come_from_the_pacs(report: Report, study: Study) -> None:
    coding = KosCoding(modality_scheme="1.2.250.1.213.1.1.5.618", region_scheme="1.2.250.1.213.2.5")
    series = (replace(study.series[0], modality="MR"), study.series[1])
    coded = make_entry(report, replace(study, series=series), coding=coding)
    assert [(e.code, e.system, e.label) for e in coded.event_codes] == [
        ("67734004", "1.2.250.1.213.2.5", "Thorax"),
        ("MR", "1.2.250.1.213.1.1.5.618", "Résonance magnétique"),
    ]


def test_a_study_of_objects_only_is_told_as_it_is(report: Report, study: Study) -> None:
    only = make_entry(report, replace(study, series=(study.series[1],)))
    assert [e.code for e in only.event_codes] == ["67734004", "SR"]


@pytest.mark.parametrize(
    ("visibility", "expected"),
    [
        (Visibility(), ["N"]),
        (Visibility(masked_to_professionals=True), ["N", "MASQUE_PS"]),
        (Visibility(hidden_from_patient=True), ["N", "INVISIBLE_PATIENT"]),
        (Visibility(hidden_from_representatives=True), ["N", "INVISIBLE_REPRESENTANTS_LEGAUX"]),
        (Visibility(True, True, True), ["N", "MASQUE_PS", "INVISIBLE_PATIENT", "INVISIBLE_REPRESENTANTS_LEGAUX"]),
        (Visibility(secret_connection=True), ["N"]),
    ],
)
@pytest.mark.requirement("DB.SO.97", "D6")
def test_visibility_becomes_confidentiality(
    visibility: Visibility, expected: list[str], report: Report, study: Study
) -> None:
    found = make_entry(replace(report, visibility=visibility), study)
    assert [c.code for c in found.confidentiality] == expected
    assert {c.system for c in found.confidentiality[1:]} <= {"1.2.250.1.213.1.1.4.13"}
    assert replace(found.visibility, secret_connection=visibility.secret_connection) == visibility


def test_without_an_ipp_of_known_issuer_the_ins_is_the_source_id(report: Report, study: Study) -> None:
    patient = replace(report.patient, local_ids=tuple(replace(i, issuer="") for i in report.patient.local_ids))
    found = make_entry(replace(report, patient=patient), study).source_patient_id
    assert found is not None
    assert found.encode() == patient.ins.cx()


def test_the_ipp_of_the_pacs_comes_first(report: Report, study: Study) -> None:
    other = replace(report.patient.local_ids[0], value="AUTRE")
    patient = replace(report.patient, local_ids=(other, *report.patient.local_ids))
    found = make_entry(replace(report, patient=patient), study).source_patient_id
    assert found is not None
    assert found.value == "IPP101"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"facility_type": None}, "metadata-facility"),
        ({"practice_setting": None}, "metadata-practice"),
    ],
)
def test_a_report_that_does_not_say_where_is_refused(
    change: dict[str, None], code: str, report: Report, study: Study
) -> None:
    with pytest.raises(Refused) as refusal:
        make_entry(replace(report, **change), study)
    assert refusal.value.code == code


@pytest.mark.requirement("D11")
def test_a_number_without_issuer_cannot_be_a_reference(report: Report, study: Study) -> None:
    with pytest.raises(Refused) as refusal:
        make_entry(report, study, orders=(Order(None, Identifier("ACN105")),))
    assert refusal.value.code == "metadata-reference"


@pytest.mark.requirement("D3", "D26")
def test_each_order_of_the_study_stands_once(report: Report, study: Study) -> None:
    twice = make_entry(report, study, orders=(ORDER, ORDER, Order(None, ORDER.accession)))
    assert len(twice.references) == 3


@pytest.mark.parametrize(
    ("told", "code"), [("I", "03"), ("O", "07"), ("e", "07"), ("R", "19"), ("N", "97"), ("", "97")]
)
def test_content_type_follows_the_patient_class(told: str, code: str) -> None:
    assert content_type_of(told).code == code


def test_the_sender_is_the_author_of_the_set(report: Report) -> None:
    assert submission_draft(report).author.person == Xcn.professional("801234560801", "BIDEAULT", "Jacques")
    sent = Sender("RIS", "AMBROISE", replace(RADIOLOGIST, identifier="801234560999", family="SENDER"), STRUCTURE)
    assert submission_draft(replace(report, sender=sent)).author.person == Xcn.professional(
        "801234560999", "SENDER", "Jacques"
    )


def test_nothing_of_the_patient_is_shown_by_repr(entry: DocumentEntry, prepared: PreparedSubmission) -> None:
    shown = repr((entry, prepared, prepared.objects().submission_sets))
    assert not any(secret in shown for secret in ("PAT-TROIS", "279035", "19790328", "IPP101", "ACN105"))


# --- ebRIM ------------------------------------------------------------------------------------------------------------


def test_the_body_is_valid_with_its_documents_inlined(
    prepared: PreparedSubmission, ins: Ins, xds_schema: etree.XMLSchema
) -> None:
    request = provide_request("https://dmp.test/", ins, prepared)
    parts = {a.content_id: a.content for a in request.attachments}
    xds_schema.assertValid(inlined(request.body, parts))
    assert [
        base64.b64decode(d.text or "") for d in inlined(request.body, parts).iterfind(f"{{{codes.XDSB}}}Document")
    ] == [
        KOS_BYTES,
        prepared.signature,
    ]


@pytest.mark.requirement("DB.SO.13")
def test_a_replacement_points_to_the_version_it_replaces(
    client: DmpClient,
    actor: Actor,
    ins: Ins,
    entry: DocumentEntry,
    draft: SubmissionDraft,
    xds_schema: etree.XMLSchema,
) -> None:
    old = "urn:uuid:11111111-2222-3333-4444-555555555555"
    prepared = client.prepare(actor, ins, KosDocument(entry, KOS_BYTES), draft, replaces=old)
    found = [(a.kind.rpartition(":")[2], a.source, a.target) for a in prepared.objects().associations]
    assert found == [
        ("HasMember", "SubmissionSet01", "Document01"),
        ("HasMember", "SubmissionSet01", "Signature01"),
        ("signs", "Signature01", "SubmissionSet01"),
        ("RPLC", "Document01", old),
    ]
    assert all(dict(a.slots)["SubmissionSetStatus"] == ("Original",) for a in prepared.objects().associations)
    request = provide_request("https://dmp.test/", ins, prepared)
    xds_schema.assertValid(inlined(request.body, {a.content_id: a.content for a in request.attachments}))


@pytest.mark.requirement("D26")
def test_several_kos_go_in_one_set(
    client: DmpClient, actor: Actor, ins: Ins, entry: DocumentEntry, draft: SubmissionDraft
) -> None:
    second = replace(entry, unique_id="2.25.9002")
    both = client.prepare(
        actor, ins, [KosDocument(entry, KOS_BYTES), KosDocument(second, KOS_BYTES, "urn:uuid:x")], draft
    )
    assert [d.unique_id for d in both.kos] == [KOS_UID, "2.25.9002"]
    assert [a.target for a in both.objects().associations if a.kind.endswith("RPLC")] == ["urn:uuid:x"]


def test_the_signature_entry_is_hidden_from_all(prepared: PreparedSubmission, ins: Ins) -> None:
    signature = prepared.objects().entries[-1]
    assert (signature.mime_type, signature.language, signature.title) == ("text/xml", "art", "Source")
    assert [c.code for c in signature.confidentiality] == ["N", "MASQUE_PS", "INVISIBLE_PATIENT"]
    assert [signature.class_code, signature.type_code, signature.format_code] == [
        Coded("urn:oid:1.3.6.1.4.1.19376.1.2.1.1.1", "URN", "Digital Signature"),
        Coded("E1762", "ASTM", "Full Document"),
        Coded("http://www.w3.org/2000/09/xmldsig#", "URN", "Default Signature Style"),
    ]
    assert signature.event_codes == (Coded("1.2.840.10065.1.12.1.14", "1.2.840.10065.1.12", "Source"),)
    assert (signature.hash, signature.size) == (
        hashlib.sha1(prepared.signature).hexdigest(),
        len(prepared.signature),
    )
    assert signature.is_of(ins)


def test_a_submission_can_be_put_together_again(prepared: PreparedSubmission) -> None:
    restored = PreparedSubmission.restore(prepared.metadata, [prepared.signature, KOS_BYTES])
    assert restored == prepared
    for wrong in ([KOS_BYTES], [KOS_BYTES, prepared.signature, b"other"], [b"x" * len(KOS_BYTES), prepared.signature]):
        with pytest.raises(Refused) as refusal:
            PreparedSubmission.restore(prepared.metadata, wrong)
        assert refusal.value.code == "submission-archive"


def test_a_submission_is_never_sent_for_another_patient(
    client: DmpClient,
    actor: Actor,
    prepared: PreparedSubmission,
    entry: DocumentEntry,
    draft: SubmissionDraft,
    other_ins: Ins,
) -> None:
    with pytest.raises(IdentityMismatch):
        provide_request("https://dmp.test/", other_ins, prepared)
    with pytest.raises(IdentityMismatch):
        client.prepare(actor, other_ins, KosDocument(entry, KOS_BYTES), draft)


def test_metadata_of_other_octets_are_not_prepared(
    client: DmpClient, actor: Actor, ins: Ins, entry: DocumentEntry, draft: SubmissionDraft
) -> None:
    with pytest.raises(Refused) as refusal:
        client.prepare(actor, ins, KosDocument(entry, KOS_BYTES + b"!"), draft)
    assert refusal.value.code == "kos-hash"
    with pytest.raises(Refused) as refusal:
        client.prepare(actor, ins, [], draft)
    assert refusal.value.code == "submission-empty"


# Values as a registry may hold them: any text, but no surrounding blanks, which XML tools drop.
_WORD = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_categories=("Cs", "Cc", "Zs", "Cn")),
    min_size=1,
    max_size=24,
)
_CODE = st.builds(Coded, _WORD, _WORD, _WORD)
_CX = st.builds(Cx, _WORD, st.just("1.2.3"), _WORD)
_PERSON = st.builds(Xcn, _WORD, _WORD, _WORD, authority=st.just("1.2.3"), name_type=st.just("D"))
_AUTHOR = st.builds(
    Author,
    st.one_of(st.none(), _PERSON),
    st.lists(st.builds(Xon, _WORD, _WORD, st.just("1.2.3"), st.just("IDNST")), max_size=2).map(tuple),
    st.lists(_WORD, max_size=2).map(tuple),
    st.lists(_WORD, max_size=2).map(tuple),
)
_DTM = st.integers(0, 4 * 10**9).map(lambda seconds: Dtm.of(dt.datetime.fromtimestamp(seconds, dt.UTC)))
_ENTRY = st.builds(
    DocumentEntry,
    unique_id=_WORD,
    patient_id=_CX,
    mime_type=_WORD,
    entry_id=_WORD,
    logical_id=st.one_of(st.just(""), _WORD),
    version=st.sampled_from(["", "1", "2.1"]),
    status=st.sampled_from(["", *codes.Status]).map(str),
    repository_id=st.one_of(st.just(""), _WORD),
    hash=st.sampled_from(["", "a" * 40]),
    size=st.one_of(st.none(), st.integers(0, 10**12)),
    language=st.sampled_from(["", "fr-FR"]),
    creation_time=st.one_of(st.none(), _DTM),
    service_start=st.one_of(st.none(), _DTM),
    title=st.one_of(st.just(""), _WORD),
    comments=st.one_of(st.just(""), _WORD),
    authors=st.lists(_AUTHOR, max_size=2).map(tuple),
    legal_authenticator=st.one_of(st.none(), _PERSON),
    source_patient_id=st.one_of(st.none(), _CX),
    source_patient_info=st.lists(_WORD, max_size=3).map(tuple),
    class_code=st.one_of(st.none(), _CODE),
    type_code=st.one_of(st.none(), _CODE),
    confidentiality=st.lists(_CODE, max_size=3).map(tuple),
    event_codes=st.lists(_CODE, max_size=3).map(tuple),
    references=st.lists(_CX, max_size=3).map(tuple),
    unknown_slots=st.just((("urn:other:slot", ("a", "b")),)),
)


@settings(deadline=None)
@given(_ENTRY, _AUTHOR, _CODE)
def test_metadata_are_read_as_they_were_written(entry: DocumentEntry, author: Author, code: Coded) -> None:
    owner = SubmissionSet(
        "1.2.3", SOURCE_ID, entry.patient_id, Dtm("20240115090012"), code, (author,), "t", "c", "Set01"
    )
    link = replace(Association.member("Set01", entry.entry_id), entry_id="as1")
    written = to_bytes(submit_objects_request(owner, [entry], [link]))
    assert read_objects(parse(written)) == RegistryObjects((entry,), (owner,), (link,))


def test_what_is_written_is_valid_in_every_part(entry: DocumentEntry, ins: Ins, shared: Path) -> None:
    schema = etree.XMLSchema(file=str(shared / "schemas" / "xds" / "ebRS30" / "lcm.xsd"))
    full = replace(
        entry,
        entry_id="urn:uuid:1",
        logical_id="urn:uuid:0",
        version="2",
        status=codes.Status.APPROVED,
        home="urn:oid:1.2.3",
        repository_id="1.2.3",
        uri="DOC.DCM",
        unknown_slots=(("urn:x:y", ("z",)),),
    )
    owner = SubmissionSet("1.2.3", SOURCE_ID, entry.patient_id, Dtm("20240115090012"), None, (), "t", "", "Set01")
    change = Association.status_change("Set01", "urn:uuid:1", codes.Status.APPROVED, codes.Status.DELETED)
    schema.assertValid(submit_objects_request(owner, [full], [change]))


def test_long_titles_are_cut_and_long_codes_refused(entry: DocumentEntry) -> None:
    owner = SubmissionSet("1.2.3", SOURCE_ID, entry.patient_id, None, None, (), "t" * 400, "c" * 4000, "Set01")
    cut = read_objects(submit_objects_request(owner, [], [])).submission_sets[0]
    assert (len(cut.title), len(cut.comments)) == (128, 1024)
    with pytest.raises(Refused) as refusal:
        submit_objects_request(owner, [replace(entry, entry_id="a", type_code=Coded("x" * 300, "1.2"))], [])
    assert refusal.value.code == "metadata-length"


# --- what others write ------------------------------------------------------------------------------------------------


def envelope_of(path: Path) -> Element:
    """The SOAP envelope inside a sample, whose copy has lost its line ends or was indented as a whole."""
    data = path.read_bytes()
    return parse(data[data.index(b"<soap:Envelope") : data.index(b"</soap:Envelope>") + len(b"</soap:Envelope>")])


@pytest.mark.parametrize(
    ("sample", "person", "modality"),
    [
        ("xds/publication.xml", "899700367909", "1.2.250.1.213.1.1.5.618"),
        ("xds/validator_sample_XDS.xml", "899711256811", "1.2.250.1.213.1.1.5.618"),
        ("xdm/KA202401/IHE_XDM/SS000001/METADATA.XML", "899700367909", "1.2.250.1.213.1.1.5.618"),
    ],
)
def test_official_metadata_are_read(sample: str, person: str, modality: str, samples: Path) -> None:
    objects = read_objects(envelope_of(samples / sample))
    kos, signature = objects.entries
    assert kos.is_kos
    assert not signature.is_kos
    assert signature.masked
    assert signature.hidden_from_patient
    assert kos.patient_id == Cx("162018885045327", "1.2.250.1.213.1.4.10", "NH")
    assert kos.source_patient("PID-8") == "M"
    assert kos.source_patient("PID-5") == "PAT-SIX^Alain^^^^^L"
    assert kos.authors[0].person is not None
    assert kos.authors[0].person.identifier == person
    assert kos.authors[0].institutions[0].identifier == "499700367909006"
    assert {e.system for e in kos.event_codes if e.code == "MR"} == {modality}
    assert {r.kind for r in kos.references} == {
        codes.REFERENCE_ACCESSION,
        codes.REFERENCE_STUDY,
        codes.REFERENCE_ORDER,
    }
    assert kos.service_start is not None
    assert len(objects.submission_sets) == 1
    assert sorted(a.kind.rpartition(":")[2] for a in objects.associations) == ["HasMember", "HasMember", "signs"]


def test_the_sample_kos_is_the_one_its_metadata_describe(samples: Path) -> None:
    kos = read_objects(envelope_of(samples / "xds/publication.xml")).entries[0]
    content = (samples / "kos/publication_KOS.dcm").read_bytes()
    assert (kos.hash, kos.size) == (hashlib.sha1(content).hexdigest(), len(content))


def test_the_official_answer_is_a_success(samples: Path) -> None:
    answer = soap.read("application/soap+xml", to_bytes(envelope_of(samples / "xds/response.xml")))
    assert answer.relates_to == "urn:uuid:a6ba8f7f-b214-4a2d-96f1-54293d537ce3"
    assert provide.result(answer) == provide.ProvideResult(False, (), ())


RIM = 'xmlns="urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"'


@pytest.mark.parametrize(
    "objects",
    [
        '<ExtrinsicObject id="urn:uuid:1" mimeType="application/dicom"/>',
        '<ExtrinsicObject mimeType="application/dicom"/>',
        '<ExtrinsicObject id="a"><ExternalIdentifier id="e" registryObject="a" '
        'identificationScheme="urn:uuid:2e82c1f6-a085-4c72-9da3-8640a32e42ab" value="1.2.3"/></ExtrinsicObject>',
        '<RegistryPackage id="s"><Classification id="c" classifiedObject="s" '
        'classificationNode="urn:uuid:a54d6aa5-d40d-43f9-88c5-b4633d873bdd"/></RegistryPackage>',
        "<ObjectRef/>",
    ],
)
def test_an_object_that_cannot_be_told_is_refused(objects: str) -> None:
    with pytest.raises(Refused) as refusal:
        read_objects(parse(f"<RegistryObjectList {RIM}>{objects}</RegistryObjectList>".encode()))
    assert refusal.value.code == "metadata-identifier"


def test_a_patient_is_recognised_by_number_and_authority(entry: DocumentEntry, ins: Ins, report: Report) -> None:
    assert entry.is_of(ins)
    assert not replace(entry, patient_id=replace(entry.patient_id, authority="1.2.250.1.213.1.4.8")).is_of(ins)
    assert not replace(entry, patient_id=replace(entry.patient_id, value="162018885045327")).is_of(ins)
    assert isinstance(report.patient, Patient)
    assert DEVICE.name == "DRIMbox"


def test_a_status_in_the_wrong_namespace_is_recognised(entry: DocumentEntry) -> None:
    written = submit_objects_request(
        SubmissionSet("1.2.3", SOURCE_ID, entry.patient_id, None, None, (), entry_id="Set01"),
        [replace(entry, entry_id="a", status="urn:oasis:names:tc:ebxml-regrep:StatusType:Archived")],
        [],
    )
    (found,) = read_objects(written).entries
    assert found.status == codes.Status.ARCHIVED
    assert found.archived


def test_a_device_without_identifier_is_the_operator_s_to_name(report: Report, study: Study) -> None:
    with pytest.raises(Misconfigured):
        make_entry(report, study, device=replace(DEVICE, identifier=""))
    assert make_entry(report, study, device=replace(DEVICE, identifier=""), author="radiologist")


@pytest.mark.parametrize("text", ["20240115101112.5+9999", "20240115101112+2460", "2024+0100Z", "+0100", "20240231"])
def test_what_is_no_date_is_none(text: str) -> None:
    assert Dtm.parse(text) is None


def test_an_offset_becomes_utc() -> None:
    assert Dtm.parse("20240115101112.5+0100") == Dtm("20240115091112")
