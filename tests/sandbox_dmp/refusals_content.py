"""Publications whose documents break a rule: the KOS, and the XAdES signature of the set."""

from __future__ import annotations

import datetime as dt

from drimbox.sandbox.pki import Profile, TestAuthority
from sandbox_dmp.bending import Case, also, edit, feed, twice, without
from sandbox_dmp.kos_files import item, reference, with_note
from sandbox_dmp.scene import OTHER, STRUCTURE, Bends, Scene
from sandbox_dmp.signing import Signer

CONTENT, POLICY = "InvalidDocumentContent", "LocalPolicyRestrictionError"


def kos(rule: str, note: str = "", **values: object) -> Case:
    """A KOS some of whose attributes have other values."""

    def bend(ds: object) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return feed(rule, CONTENT, note, kos=bend)


def shaped(rule: str, bend: object, note: str = "") -> Case:
    return feed(rule, CONTENT, note, kos=bend)


def evidence(ds):  # type: ignore[no-untyped-def]  # pydicom has no types
    return ds.CurrentRequestedProcedureEvidenceSequence[0]


def series(ds):  # type: ignore[no-untyped-def]
    return evidence(ds).ReferencedSeriesSequence


def two_studies(ds):  # type: ignore[no-untyped-def]
    other = item(StudyInstanceUID="1.2.3.4", ReferencedSeriesSequence=list(series(ds)))
    ds.CurrentRequestedProcedureEvidenceSequence.append(other)


def set_on(path, keyword, value):  # type: ignore[no-untyped-def]
    def bend(ds):  # type: ignore[no-untyped-def]
        setattr(path(ds), keyword, value)

    return bend


def stranger(scene: Scene) -> Signer:
    other = TestAuthority(scene.authority.folder / "stranger")
    pair = other.issue(Profile.ORG_SIGN, "sign", common_name="DRIMbox", unit=STRUCTURE, organisation="STRUCTURE")
    return Signer.of(pair)


KOS_CASES = [
    feed("KOS.READABLE", CONTENT, "not DICOM", kos_octets=lambda _: b"hello"),
    feed("KOS.READABLE", CONTENT, "cut", kos_octets=lambda octets: octets[:-7]),
    kos("KOS.CLASS", SOPClassUID="1.2.840.10008.5.1.4.1.1.4"),
    kos("KOS.CLASS", "modality", Modality="MR"),
    shaped("KOS.SYNTAX", lambda ds: setattr(ds.file_meta, "TransferSyntaxUID", "1.2.840.10008.1.2.1.99")),
    feed("KOS.UID", CONTENT, kos=set_on(lambda ds: ds, "SOPInstanceUID", "1.2.3.4")),
    kos("KOS.PATIENT", PatientID="274075176079430"),
    shaped(
        "KOS.PATIENT", set_on(lambda ds: ds.IssuerOfPatientIDQualifiersSequence[0], "UniversalEntityID", "1.2.3"), "oid"
    ),
    kos("KOS.TRAITS", "name", PatientName="PAT-SIX^ALAIN"),
    kos("KOS.TRAITS", "birth date", PatientBirthDate="19790329"),
    kos("KOS.TRAITS", "sex", PatientSex="M"),
    shaped("KOS.TITLE", set_on(lambda ds: ds.ConceptNameCodeSequence[0], "CodeValue", "113000")),
    kos("KOS.STUDY", "data set", StudyInstanceUID="1.2.3.4"),
    shaped("KOS.STUDY", set_on(evidence, "StudyInstanceUID", "1.2.3.4"), "evidence"),
    shaped("KOS.STUDY", two_studies, "two"),
    shaped("KOS.STUDY", set_on(lambda ds: ds.ReferencedRequestSequence[0], "StudyInstanceUID", "1.2.3.4"), "request"),
    shaped("KOS.SERIES", set_on(evidence, "ReferencedSeriesSequence", []), "none"),
    shaped("KOS.SERIES", set_on(lambda ds: series(ds)[0], "ReferencedSOPSequence", []), "empty"),
    shaped("KOS.SERIES", lambda ds: series(ds).append(series(ds)[0]), "twice"),
    shaped("KOS.URL", lambda ds: series(ds)[0].pop("RetrieveURL"), "absent"),
    shaped(
        "KOS.URL",
        set_on(lambda ds: series(ds)[0], "RetrieveURL", "https://db1.example.test/studies/1.2/series/3"),
        "other study",
    ),
    shaped(
        "KOS.URL",
        lambda ds: setattr(series(ds)[0], "RetrieveURL", series(ds)[0].RetrieveURL.replace("https", "http")),
        "http",
    ),
    shaped("KOS.CONTENT", lambda ds: ds.ContentSequence.pop(0), "missing"),
    shaped(
        "KOS.CONTENT",
        lambda ds: ds.ContentSequence.append(
            item(RelationshipType="CONTAINS", ValueType="IMAGE", ReferencedSOPSequence=[reference("1.2.3")])
        ),
        "in excess",
    ),
    shaped("KOS.VALUE_TYPE", lambda ds: with_note(ds, value_type="IMAGE")),
    shaped("KOS.KIN", lambda ds: with_note(ds, listed=False), "not listed"),
    shaped("KOS.KIN", lambda ds: with_note(ds, SeriesInstanceUID="1.2.3"), "other series"),
    shaped("KOS.KIN", lambda ds: with_note(ds, times=2), "twice"),
    shaped("KOS.KIN_TITLE", lambda ds: with_note(ds, ConceptNameCodeSequence=[]), "none"),
    shaped("KOS.KIN_TITLE", lambda ds: with_note(ds, title="113037"), "rejection"),
    shaped("KOS.KIN_TITLE", lambda ds: with_note(ds, ContentSequence=[item(TextValue="")]), "empty text"),
    shaped(
        "KOS.REQUESTS", set_on(lambda ds: ds.ReferencedRequestSequence[0], "AccessionNumber", "ACN106"), "accession"
    ),
    shaped(
        "KOS.REQUESTS",
        set_on(lambda ds: ds.ReferencedRequestSequence[0], "PlacerOrderNumberImagingServiceRequest", "OPN1"),
        "order",
    ),
    kos("KOS.CREATED", "other zone", TimezoneOffsetFromUTC="+0100"),
    kos("KOS.CREATED", "absent", InstanceCreationDate=""),
]

MANIFEST = "ds:Object/ds:Manifest"
PROPERTIES = "//x:SignedSignatureProperties"


def before(rule: str, bend: object, note: str = "", code: str = CONTENT) -> Case:
    """The signature bent before it is computed: it holds, and says something else."""
    return feed(rule, code, note, xades=bend)


def after(rule: str, bend: object, note: str = "") -> Case:
    """The signature bent after it was computed."""
    return feed(rule, CONTENT, note, xades_signed=bend)


XADES_CASES = [
    feed("XADES.READABLE", CONTENT, "not XML", xades_octets=lambda _: b"signed"),
    feed("XADES.READABLE", CONTENT, "root", xades_octets=lambda _: b"<Signature/>"),
    before("XADES.ID", also(edit(".", Id="2.25.1"), edit("//x:QualifyingProperties", Target="#2.25.1"),
                            edit("//ds:SignatureProperty", Target="#2.25.1")), "digit first"),
    before("XADES.ID", edit("//x:QualifyingProperties", Target="#other"), "target"),
    before("XADES.ID", edit(".", lang="fr"), "other attribute"),
    before("XADES.LAYOUT", edit(MANIFEST, Id="Manifest"), "id"),
    before("XADES.LAYOUT", twice(MANIFEST), "two manifests"),
    before("XADES.LAYOUT", twice(f"{PROPERTIES}/x:SigningTime"), "two times"),
    before("XADES.LAYOUT", twice("//x:Cert"), "two certificates"),
    before("XADES.LAYOUT", without("//x:SignaturePolicyImplied"), "no policy"),
    before("XADES.LAYOUT", without("//ds:SignatureProperty"), "no purpose"),
    before("XADES.LAYOUT", without("//x:SigningCertificate"), "no certificate"),
    before("XADES.PURPOSE", edit("//ds:SignatureProperty", text="1.2.840.10065.1.12.1.1"), "other"),
    Case("XADES.ALGORITHM", CONTENT, lambda s: s.publication(bends=Bends(sha1_xades=True)), "SHA-1"),
    before("XADES.ALGORITHM", edit("ds:SignedInfo/ds:CanonicalizationMethod",
           Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"), "canonicalisation"),
    before("XADES.REFERENCES", without("ds:SignedInfo/ds:Reference[2]"), "properties not signed"),
    before("XADES.REFERENCES", edit("ds:SignedInfo/ds:Reference[1]", Type="urn:other"), "type"),
    after("XADES.VALUE", edit(f"{PROPERTIES}/x:SigningTime", text="2024-01-01T10:00:00Z"), "properties changed"),
    after("XADES.VALUE", edit(f"{MANIFEST}/ds:Reference[2]/ds:DigestValue", text="AAAA"), "manifest changed"),
    after("XADES.CERTIFICATE", without("//ds:X509Data"), "absent"),
    Case("XADES.CERTIFICATE", CONTENT, lambda s: s.publication(bends=Bends(xades_signer=s.pairs[STRUCTURE].auth)),
         "ORG AUTH_CLI"),
    Case("XADES.CERTIFICATE", CONTENT, lambda s: s.publication(bends=Bends(xades_signer=stranger(s))), "stranger"),
    Case("XADES.UNIT", POLICY, lambda s: s.publication(bends=Bends(xades_signer=s.pairs[OTHER].sign))),
    after("XADES.VALUE", edit("ds:SignatureValue", text="AAAA"), "garbage"),
    Case("XADES.VALUE", CONTENT, lambda s: s.publication(bends=Bends(xades_signed=edit(
        "ds:KeyInfo//ds:X509Certificate", text=twin(s).text))), "another key of the structure"),
    before("XADES.SET", edit(f"{MANIFEST}/ds:Reference[1]", URI="urn:oid:1.2.3"), "other set"),
    before("XADES.SET", edit(f"{MANIFEST}/ds:Reference[1]/ds:DigestValue", text="AAAA"), "digest"),
    before("XADES.DOCUMENTS", without(f"{MANIFEST}/ds:Reference[2]"), "missing"),
    before("XADES.DOCUMENTS", twice(f"{MANIFEST}/ds:Reference[2]"), "twice"),
    before("XADES.OCTETS", edit(f"{MANIFEST}/ds:Reference[2]/ds:DigestValue", text="AAAA")),
    before("XADES.SIGNING_CERTIFICATE", edit("//x:CertDigest/x:DigestValue", text="AAAA"), "digest"),
    before("XADES.SIGNING_CERTIFICATE", edit("//ds:X509SerialNumber", text="1"), "serial"),
    before("XADES.TIME", edit(f"{PROPERTIES}/x:SigningTime",
           text=(dt.datetime.now(dt.UTC) + dt.timedelta(hours=2)).isoformat()), "future"),
    before("XADES.TIME", edit(f"{PROPERTIES}/x:SigningTime", text="2024-01-01T10:00:00"), "no offset"),
]  # fmt: skip


def twin(scene: Scene) -> Signer:
    return Signer.of(
        scene.authority.issue(
            Profile.ORG_SIGN, "twin", common_name="DRIMbox", unit=STRUCTURE, organisation=f"STRUCTURE {STRUCTURE}"
        )
    )


CASES = [*KOS_CASES, *XADES_CASES]
