"""VIHF and XAdES: verified by xmlsec, as a command and as a library, from the very octets that are sent."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import xmlsec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from dmp_examples import KOS_BYTES, KOS_UID, SOFTWARE
from lxml import etree

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import Misconfigured, Refused
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.xml import Element, parse, to_bytes
from drimbox.identity.ins import Ins
from drimbox.national.dmp import codes, vihf, xades
from drimbox.national.dmp.actor import Actor, VihfIdentity
from drimbox.national.dmp.provide import PreparedSubmission
from drimbox.national.dmp.provide import request as provide_request
from drimbox.national.dmp.transport import Transport
from drimbox.national.dmp.xmldsig import Algorithm
from drimbox.reports.report import Coded
from drimbox.sandbox.pki import PemPair, TestAuthority
from drimbox.trust.keystore import Credential

XMLSEC = shutil.which("xmlsec1")
needs_xmlsec = pytest.mark.skipif(XMLSEC is None, reason="the xmlsec1 command is not installed")
SAML = f"{{{codes.SAML}}}"
DS = f"{{{codes.DS}}}"


def message(
    actor: Actor,
    ins: Ins,
    prepared: PreparedSubmission,
    clock: FixedClock,
    *,
    algorithm: Algorithm = "rsa-sha256",
    version: str = "3.0",
) -> bytes:
    """The envelope of an ITI-41, as it goes on the wire."""
    transport = Transport(HttpClient(), SOFTWARE, clock, version, algorithm, 5, test=True)
    request = provide_request("https://dmp.test/repository", ins, prepared)
    return transport.envelope(actor, ins, request, "urn:uuid:00000000-0000-4000-8000-000000000001")


def assertion_of(envelope: bytes) -> Element:
    found = parse(envelope).find(f".//{SAML}Assertion")
    assert found is not None
    return found


def values(assertion: Element, name: str) -> list[str]:
    found = [a for a in assertion.iter(f"{SAML}Attribute") if a.get("Name") == name]
    return ["".join(v.itertext()) for a in found for v in a.iter(f"{SAML}AttributeValue")]


def verified_by_command(file: Path, certificate: Path, *declared: str) -> bool:
    """Does the ``xmlsec1`` command find every signature of the file right, with the key of this certificate?"""
    assert XMLSEC is not None
    # The references of a Manifest are names of documents (urn:oid), not addresses: they are checked by other tests.
    command = [XMLSEC, "--verify", "--ignore-manifests", "--pubkey-cert-pem", str(certificate)]
    for declaration in declared:
        command += ["--id-attr:" + declaration.split("=")[0], declaration.split("=")[1]]
    return subprocess.run([*command, str(file)], capture_output=True, check=False).returncode == 0


def verified_by_library(signature: Element, credential: Credential, *identified: tuple[Element, str]) -> bool:
    context = xmlsec.SignatureContext()
    for element, attribute in identified:
        context.register_id(element, attribute)
    pem = credential.certificate.public_bytes(Encoding.PEM)
    context.key = xmlsec.Key.from_memory(pem, xmlsec.KeyFormat.CERT_PEM)
    try:
        context.verify(signature)
    except xmlsec.Error:
        return False
    return True


# --- VIHF -------------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("D12", "DB.SO.19")
def test_the_assertion_is_right_in_the_message_that_is_sent(
    actor: Actor, ins: Ins, prepared: PreparedSubmission, clock: FixedClock, sign: Credential
) -> None:
    assertion = assertion_of(message(actor, ins, prepared, clock))
    signature = assertion.find(f"{DS}Signature")
    assert signature is not None
    assert verified_by_library(signature, sign, (assertion, "ID"))
    method = signature.find(f"{DS}SignedInfo/{DS}SignatureMethod")
    assert method is not None
    assert method.get("Algorithm") == "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"


@needs_xmlsec
@pytest.mark.parametrize("algorithm", ["rsa-sha256", "rsa-sha1"])
def test_the_xmlsec1_command_agrees(
    algorithm: Algorithm,
    actor: Actor,
    ins: Ins,
    prepared: PreparedSubmission,
    clock: FixedClock,
    sign_pair: PemPair,
    tmp_path: Path,
) -> None:
    envelope = message(actor, ins, prepared, clock, algorithm=algorithm)
    file = tmp_path / "message.xml"
    file.write_bytes(envelope)
    declared = f"ID={codes.SAML}:Assertion"
    assert verified_by_command(file, sign_pair.certificate, declared)
    for change in ((b"801234560801<", b"801234560802<"), (b"279035121518989^^^", b"162018885045327^^^")):
        file.write_bytes(envelope.replace(*change, 1))
        assert envelope != file.read_bytes()
        assert not verified_by_command(file, sign_pair.certificate, declared)


def test_a_changed_assertion_is_noticed(
    actor: Actor, ins: Ins, prepared: PreparedSubmission, clock: FixedClock, sign: Credential
) -> None:
    assertion = assertion_of(message(actor, ins, prepared, clock))
    signature, name = assertion.find(f"{DS}Signature"), assertion.find(f"{SAML}Subject/{SAML}NameID")
    assert signature is not None
    assert name is not None
    name.text = "801234560802"
    assert not verified_by_library(signature, sign, (assertion, "ID"))


def test_the_assertion_is_valid_against_the_saml_schema(
    actor: Actor,
    reinforced: Actor,
    ins: Ins,
    prepared: PreparedSubmission,
    clock: FixedClock,
    shared: Path,
    tmp_path: Path,
) -> None:
    # xsi:type names an HL7 type that the SAML schema does not bring: the least schema that has it.
    (tmp_path / "hl7.xsd").write_text(
        '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:hl7-org:v3">'
        '<xs:complexType name="CE"><xs:anyAttribute processContents="skip"/></xs:complexType></xs:schema>'
    )
    saml = shared / "schemas" / "saml" / "sstc-saml-schema-assertion-2.0.xsd"
    wrapper = (
        '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">'
        f'<xs:import namespace="{codes.SAML}" schemaLocation="{saml}"/>'
        f'<xs:import namespace="{codes.HL7}" schemaLocation="{tmp_path / "hl7.xsd"}"/></xs:schema>'
    )
    schema = etree.XMLSchema(etree.fromstring(wrapper))
    for who in (actor, reinforced, replace(actor, secret_connection=True)):
        schema.assertValid(assertion_of(message(who, ins, prepared, clock)))


@pytest.mark.requirement("DMP/AIRS.06", "D12")
def test_the_subject_is_the_professional_and_the_resource_the_patient(
    actor: Actor, ins: Ins, prepared: PreparedSubmission, clock: FixedClock
) -> None:
    assertion = assertion_of(message(actor, ins, prepared, clock))
    assert [a.get("Name") for a in assertion.iter(f"{SAML}Attribute")] == [
        "VIHF_Version",
        "Secteur_Activite",
        "Ressource_URN",
        "urn:oasis:names:tc:xspa:1.0:subject:subject-id",
        "Identifiant_Structure",
        "LPS_ID",
        "LPS_Nom",
        "LPS_ID_HOMOLOGATION_DMP",
        "LPS_Version",
        "urn:oasis:names:tc:xacml:2.0:resource:resource-id",
        "Authentification_Mode",
        "urn:oasis:names:tc:xspa:1.0:subject:purposeofuse",
        "urn:oasis:names:tc:xacml:2.0:subject:role",
    ]
    assert values(assertion, "VIHF_Version") == ["3.0"]
    assert values(assertion, "Secteur_Activite") == ["SA08^1.2.250.1.71.4.2.4"]
    assert values(assertion, "urn:oasis:names:tc:xspa:1.0:subject:subject-id") == ["Jacques BIDEAULT"]
    assert values(assertion, "Identifiant_Structure") == ["1750803447"]
    assert values(assertion, "urn:oasis:names:tc:xacml:2.0:resource:resource-id") == [ins.cx()]
    assert values(assertion, "Authentification_Mode") == ["INDIRECTE"]
    assert assertion.findtext(f"{SAML}Subject/{SAML}NameID") == "801234560801"
    issuer = assertion.find(f"{SAML}Issuer")
    assert issuer is not None
    assert issuer.text == "CN=DRIMbox, OU=1750803447, O=CENTRE DE RADIOLOGIE AMBROISE, ST=Paris (75), C=FR"
    assert issuer.get("Format") == "urn:oasis:names:tc:SAML:1.1:nameid-format:X509SubjectName"
    assert assertion.find(f".//{SAML}AuthnContextDecl") is None
    statement = assertion.find(f"{SAML}AuthnStatement")
    assert statement is not None
    assert statement.get("AuthnInstant") == "2024-01-15T08:30:00.000Z"
    assert [e.tag for e in assertion][:2] == [f"{SAML}Issuer", f"{DS}Signature"]


def test_the_role_is_a_typed_code(actor: Actor, ins: Ins, prepared: PreparedSubmission, clock: FixedClock) -> None:
    assertion = assertion_of(message(actor, ins, prepared, clock))
    roles = list(assertion.iter(f"{{{codes.HL7}}}Role"))
    assert [(r.get("code"), r.get("codeSystem")) for r in roles] == [
        ("10", "1.2.250.1.71.1.2.7"),
        ("SM44", "1.2.250.1.71.4.2.5"),
    ]
    (purpose,) = assertion.iter(f"{{{codes.HL7}}}PurposeOfUse")
    for typed in (*roles, purpose):
        # The QName in content resolves: no prefix, and HL7 v3 is the default namespace there.
        assert typed.get(f"{{{codes.XSI}}}type") == "CE"
        assert typed.nsmap[None] == codes.HL7


def test_only_doctors_and_pharmacists_have_a_second_role(
    actor: Actor, ins: Ins, prepared: PreparedSubmission, clock: FixedClock
) -> None:
    manipulator = replace(actor.identity, profession=Coded("98", codes.PROFESSIONS, "Manipulateur ERM"))
    assertion = assertion_of(message(replace(actor, identity=manipulator), ins, prepared, clock))
    assert [r.get("code") for r in assertion.iter(f"{{{codes.HL7}}}Role")] == ["98"]


@pytest.mark.requirement("DB.CO.67")
def test_the_reinforced_mode_declares_the_browser(
    reinforced: Actor, ins: Ins, prepared: PreparedSubmission, clock: FixedClock
) -> None:
    assertion = assertion_of(message(reinforced, ins, prepared, clock, version="4.0"))
    assert values(assertion, "Authentification_Mode") == ["INDIRECTE_RENFORCEE"]
    assert values(assertion, "VIHF_Version") == ["4.0"]
    assert assertion.findtext(f".//{SAML}AuthnContextDecl") == "APP_BROWSER_AUTH"


def test_a_secret_connection_says_so(actor: Actor, ins: Ins, prepared: PreparedSubmission, clock: FixedClock) -> None:
    name = "urn:oasis:names:tc:xspa:1.0:resource:patient:hl7:confidentiality-code"
    assert values(assertion_of(message(actor, ins, prepared, clock)), name) == []
    secret = replace(actor, secret_connection=True)
    assert values(assertion_of(message(secret, ins, prepared, clock)), name) == ["INVISIBLE_REPRESENTANTS_LEGAUX"]


def test_each_message_has_an_assertion_of_its_own(
    actor: Actor, ins: Ins, prepared: PreparedSubmission, clock: FixedClock
) -> None:
    first = assertion_of(message(actor, ins, prepared, clock))
    clock.advance(61)
    second = assertion_of(message(actor, ins, prepared, clock))
    assert first.get("ID") != second.get("ID")
    assert first.get("IssueInstant") != second.get("IssueInstant")
    assert etree.tostring(first).count(b"_") > 0
    assert (first.get("ID") or "")[0] == "_"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"subject_id": ""}, "vihf-incomplete"),
        ({"structure_id": " "}, "vihf-incomplete"),
        ({"sector": ""}, "vihf-incomplete"),
        ({"profession": Coded("", "", "")}, "vihf-incomplete"),
        ({"speciality": None}, "vihf-speciality"),
    ],
)
def test_an_incomplete_identity_is_refused_before_anything_is_sent(
    change: dict[str, object], code: str, actor: Actor, ins: Ins, clock: FixedClock
) -> None:
    lacking = replace(actor, identity=replace(actor.identity, **change))  # type: ignore[arg-type]
    with pytest.raises(Refused) as refusal:
        vihf.assertion(lacking, ins, SOFTWARE, version="3.0", now=clock.now())
    assert refusal.value.code == code


def test_software_without_homologation_is_the_operator_s_to_name(actor: Actor, ins: Ins, clock: FixedClock) -> None:
    with pytest.raises(Misconfigured) as error:
        vihf.assertion(actor, ins, replace(SOFTWARE, homologation_number=""), version="3.0", now=clock.now())
    assert error.value.code == "vihf-software"


def test_text_that_xml_cannot_carry_does_not_stop_the_assertion(
    actor: Actor, ins: Ins, prepared: PreparedSubmission, clock: FixedClock
) -> None:
    odd = replace(actor.identity, subject_name="Jac\x0bques & <BIDEAULT>")
    assertion = assertion_of(message(replace(actor, identity=odd), ins, prepared, clock))
    assert values(assertion, "urn:oasis:names:tc:xspa:1.0:subject:subject-id") == ["Jac ques & <BIDEAULT>"]


def test_an_identity_is_kept_as_json(identity: VihfIdentity) -> None:
    for kept in (identity, replace(identity, speciality=None)):
        assert VihfIdentity.from_json(json.loads(json.dumps(kept.to_json()))) == kept


@pytest.mark.parametrize(
    "damage",
    [
        {"mode": "DIRECTE"},
        {"profession": "10"},
        {"profession": {"code": "10"}},
        {"authenticated_at": "hier"},
        {"subject_id": 8},
    ],
)
def test_a_damaged_identity_is_refused(damage: dict[str, object], identity: VihfIdentity) -> None:
    with pytest.raises(Refused) as refusal:
        VihfIdentity.from_json({**identity.to_json(), **damage})
    assert refusal.value.code == "vihf-identity"
    with pytest.raises(Refused):
        VihfIdentity.from_json({})


def test_a_key_that_is_not_rsa_is_the_operator_s_to_change(actor: Actor, ins: Ins, clock: FixedClock) -> None:
    other = replace(actor.sign, key=ec.generate_private_key(ec.SECP256R1()))
    assertion = vihf.assertion(actor, ins, SOFTWARE, version="3.0", now=clock.now())
    with pytest.raises(Misconfigured) as error:
        vihf.sign(assertion, other, "rsa-sha256")
    assert error.value.code == "sign-key"


# --- XAdES ------------------------------------------------------------------------------------------------------------

DECLARED = (
    f"Id={codes.DS}:Manifest",
    f"Id={codes.XADES}:SignedProperties",
    f"Id={codes.DS}:Signature",
)


def signed(sign: Credential, algorithm: Algorithm = "rsa-sha256") -> bytes:
    now = dt.datetime(2024, 1, 16, 14, 11, 13, 25000, tzinfo=dt.UTC)
    return xades.sign_submission(
        "2.25.1",
        [(KOS_UID, KOS_BYTES), ("2.25.9002", b"other")],
        signature_uid="2.25.2",
        credential=sign,
        algorithm=algorithm,
        now=now,
    )


@needs_xmlsec
@pytest.mark.parametrize("algorithm", ["rsa-sha256", "rsa-sha1"])
@pytest.mark.requirement("D13")
def test_the_signature_of_the_set_is_right(
    algorithm: Algorithm, sign: Credential, sign_pair: PemPair, tmp_path: Path
) -> None:
    octets = signed(sign, algorithm)
    file = tmp_path / "SIGN.XML"
    file.write_bytes(octets)
    assert verified_by_command(file, sign_pair.certificate, *DECLARED)
    for change in (
        (f"urn:oid:{KOS_UID}".encode(), b"urn:oid:2.25.666"),
        (b"2024-01-16T14:11:13", b"2024-01-17T14:11:13"),
        (b"AA==", b"AQ=="),
    ):
        file.write_bytes(octets.replace(*change, 1))
        assert file.read_bytes() != octets
        assert not verified_by_command(file, sign_pair.certificate, *DECLARED)


@pytest.mark.requirement("D13")
def test_the_layout_is_that_of_the_official_sample(sign: Credential, samples: Path) -> None:
    ours = parse(signed(sign))
    theirs = parse((samples / "xdm/KA202401/IHE_XDM/SS000001/SIGN_1.XML").read_bytes())

    def shape(root: Element) -> list[str]:
        """Every element in order, each Reference of the Manifest once."""
        paths = [root.getroottree().getelementpath(e) for e in root.iter(etree.Element)]
        return list(dict.fromkeys(p.split("Manifest/")[0] for p in paths))

    assert shape(ours) == shape(theirs)
    for name in ("Manifest", "SignatureProperty"):
        assert ours.find(f".//{DS}{name}").get("Id") == theirs.find(f".//{DS}{name}").get("Id")  # type: ignore[union-attr]
    assert [r.get("Type") for r in ours.findall(f"{DS}SignedInfo/{DS}Reference")] == [
        r.get("Type") for r in theirs.findall(f"{DS}SignedInfo/{DS}Reference")
    ]


@pytest.mark.requirement("D13")
def test_each_document_is_referred_to_by_its_own_octets(sign: Credential) -> None:
    root = parse(signed(sign))
    references = {
        r.get("URI"): (r.findtext(f"{DS}DigestValue"), len(r.findall(f"{DS}Transforms")))
        for r in root.findall(f"{DS}Object/{DS}Manifest/{DS}Reference")
    }
    assert references == {
        "urn:oid:2.25.1": ("AA==", 0),
        f"urn:oid:{KOS_UID}": (base64.b64encode(hashlib.sha256(KOS_BYTES).digest()).decode(), 0),
        "urn:oid:2.25.9002": (base64.b64encode(hashlib.sha256(b"other").digest()).decode(), 0),
    }
    assert root.get("Id") == "_2.25.2"
    targets = {e.get("Target") for e in root.iter(etree.Element) if e.get("Target")}
    assert targets == {"#_2.25.2"}
    assert root.findtext(f".//{DS}SignatureProperty") == "1.2.840.10065.1.12.1.14"


def test_the_signing_certificate_is_named(sign: Credential) -> None:
    root = parse(signed(sign))
    der = sign.certificate.public_bytes(Encoding.DER)
    digest = root.findtext(f".//{{{codes.XADES}}}CertDigest/{{{codes.XADES}}}DigestValue")
    assert digest == base64.b64encode(hashlib.sha256(der).digest()).decode()
    assert root.findtext(f".//{DS}X509SerialNumber") == str(sign.certificate.serial_number)
    assert (
        root.findtext(f".//{DS}X509IssuerName")
        == "CN=TEST AC IGC-SANTE ELEMENTAIRE ORGANISATIONS, OU=IGC-SANTE TEST, O=BAC A SABLE DRIMBOX, C=FR"
    )
    assert root.findtext(f".//{DS}KeyInfo/{DS}X509Data/{DS}X509Certificate") == base64.b64encode(der).decode()


def test_the_signature_is_valid_against_its_schema(sign: Credential, shared: Path) -> None:
    schema = etree.XMLSchema(file=str(shared / "schemas" / "saml" / "xmldsig-core-schema.xsd"))
    root = parse(signed(sign))
    # The official layout puts bare text where the schema wants an element: the one thing that is not valid.
    purpose = root.find(f".//{DS}SignatureProperty")
    assert purpose is not None
    purpose.append(etree.Element("{urn:other}element"))
    schema.assertValid(root)


def test_the_set_is_signed_with_the_certificate_of_the_actor(
    prepared: PreparedSubmission, sign: Credential, authority: TestAuthority
) -> None:
    root = parse(prepared.signature)
    uris = [r.get("URI") for r in root.findall(f"{DS}Object/{DS}Manifest/{DS}Reference")]
    assert uris == [f"urn:oid:{prepared.submission_uid}", f"urn:oid:{KOS_UID}"]
    assert to_bytes(root) == prepared.signature
    assert authority.roots.exists()
