"""Requests whose VIHF breaks a rule."""

from __future__ import annotations

import datetime as dt

from lxml import etree

from drimbox.sandbox.pki import Profile, TestAuthority
from sandbox_dmp.bending import Case, added, also, edit, one, twice, without
from sandbox_dmp.scene import OTHER, STRUCTURE, USER, Bends, Scene, Wire
from sandbox_dmp.signing import Bend, Element, Signer

TOKEN, CHECK, SECURITY, DOOR = (
    "wsse:InvalidSecurityToken", "wsse:FailedCheck", "wsse:InvalidSecurity", "wsse:FailedAuthentication"
)  # fmt: skip
XSPA = "urn:oasis:names:tc:xspa:1.0:subject:"
XACML = "urn:oasis:names:tc:xacml:2.0:"


def value(name: str) -> str:
    return f"saml:AttributeStatement/saml:Attribute[@Name='{name}']/saml:AttributeValue"


def told(rule: str, code: str, bend: Bend, note: str = "", **caller: str) -> Case:
    """A TD0.2 whose assertion is bent before it is signed."""
    return Case(rule, code, lambda s: s.existence(s.caller(**caller), Bends(assertion=bend)), note)


def skeleton(rule: str, bend: Bend, note: str = "", code: str = SECURITY) -> Case:
    """A TD0.2 whose signature skeleton is bent before it is computed."""
    return Case(rule, code, lambda s: s.existence(s.caller(), Bends(signature=bend)), note)


def after(rule: str, code: str, bend: Bend, note: str = "") -> Case:
    """A TD0.2 whose assertion is bent after it was signed."""
    return Case(rule, code, lambda s: s.existence(s.caller(), Bends(assertion_signed=bend)), note)


def at(minutes: float) -> Bend:
    def bend(assertion: Element) -> None:
        when = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes)
        assertion.set("IssueInstant", when.strftime("%Y-%m-%dT%H:%M:%SZ"))

    return bend


def conditions(xml: str) -> Bend:
    def bend(assertion: Element) -> None:
        added(".", xml)(assertion)
        made = assertion[-1]
        one(assertion, "saml:Subject").addnext(made)

    return bend


def signed_by(scene: Scene, signer: Signer) -> Wire:
    """A TD0.2 signed by another key, whose Issuer tells it."""
    return scene.existence(scene.caller(), Bends(vihf_signer=signer, assertion=edit("saml:Issuer", text=signer.dn)))


def stranger(scene: Scene) -> Signer:
    other = TestAuthority(scene.authority.folder / "stranger")
    return Signer.of(
        other.issue(Profile.ORG_SIGN, "sign", common_name="DRIMbox", unit=STRUCTURE, organisation="STRUCTURE")
    )


def revoked(scene: Scene) -> Signer:
    pair = scene.authority.issue(
        Profile.ORG_SIGN, "sign-revoked", common_name="DRIMbox", unit=STRUCTURE, organisation="STRUCTURE"
    )
    scene.authority.revoke(pair)
    return Signer.of(pair)


def wrapped(signature: Element) -> None:
    """Give the identifier of the assertion to another element of the message."""
    assertion = signature.getparent()
    assert assertion is not None
    assertion.getroottree().getroot()[1].set("Id", assertion.get("ID", ""))


def truncated(assertion: Element) -> None:
    """A comment inside a value: what a careless reader takes for the structure is not what was signed."""
    found = one(assertion, value("Identifiant_Structure"))
    whole = found.text or ""
    found.text = whole[:5]
    note = etree.Comment("x")
    note.tail = whole[5:]
    found.append(note)


def role(place: int, **attributes: str) -> Bend:
    path = f"saml:AttributeStatement/saml:Attribute[@Name='{XACML}subject:role']/saml:AttributeValue[{place}]/hl7:Role"
    return edit(path, **attributes)


ROLES = f"saml:AttributeStatement/saml:Attribute[@Name='{XACML}subject:role']"
SPECIALITY = f"{ROLES}/saml:AttributeValue[2]"
PURPOSE = f"saml:AttributeStatement/saml:Attribute[@Name='{XSPA}purposeofuse']"


def air(bend: Bend) -> Case:
    return Case("VIHF.AIR", TOKEN, lambda s: s.existence(s.reader(), Bends(assertion=bend)), "no AIR declaration")


CASES = [
    told("VIHF.SAML_VERSION", TOKEN, edit(".", Version="1.1")),
    told("VIHF.ID", TOKEN, edit(".", ID="6f6056f97-a487"), "digit first"),
    told("VIHF.COMMENTS", TOKEN, truncated),
    told("VIHF.INSTANT", TOKEN, at(-6), "old"),
    told("VIHF.INSTANT", TOKEN, at(3), "future"),
    told("VIHF.INSTANT", TOKEN, edit(".", IssueInstant="2024-01-01T10:00:00+01:00"), "not UTC"),
    told("VIHF.CONDITIONS", TOKEN, conditions('<saml:Conditions NotOnOrAfter="2024-01-01T10:00:00Z"/>'), "over"),
    told("VIHF.CONDITIONS", TOKEN, conditions('<saml:Conditions NotBefore="2124-01-01T10:00:00Z"/>'), "not yet"),
    told(
        "VIHF.AUDIENCE",
        TOKEN,
        conditions(
            "<saml:Conditions><saml:AudienceRestriction><saml:Audience>urn:dmp</saml:Audience></saml:AudienceRestriction>"
            "</saml:Conditions>"
        ),
    ),
    told("VIHF.LAYOUT", TOKEN, twice("saml:Subject/saml:NameID"), "two users"),
    told("VIHF.LAYOUT", TOKEN, without("saml:AuthnStatement"), "no authentication"),
    told("VIHF.LAYOUT", TOKEN, twice("saml:AttributeStatement"), "two statements"),
    told("VIHF.LAYOUT", TOKEN, also(conditions("<saml:Conditions/>"), conditions("<saml:Conditions/>")), "conditions"),
    after("VIHF.SIGNATURE_PLACE", SECURITY, without("ds:Signature"), "absent"),
    after("VIHF.SIGNATURE_PLACE", SECURITY, twice("ds:Signature"), "twice"),
    after("VIHF.SIGNATURE_PLACE", SECURITY, lambda a: a.append(a[1]), "at the end"),
    skeleton(
        "VIHF.SIGNATURE_FORM",
        edit(".//ds:CanonicalizationMethod", Algorithm="http://www.w3.org/TR/2001/REC-xml-c14n-20010315"),
        "inclusive",
    ),
    skeleton(
        "VIHF.SIGNATURE_FORM",
        edit(".//ds:Transform[2]", Algorithm="http://www.w3.org/TR/2001/REC-xml-c14n-20010315"),
        "transform",
    ),
    skeleton("VIHF.SIGNATURE_FORM", edit(".//ds:Reference", URI=""), "whole document"),
    after("VIHF.SIGNATURE_FORM", SECURITY, lambda a: wrapped(a[1]), "identifier twice"),
    Case("VIHF.ALGORITHM", SECURITY, lambda s: s.existence(s.caller(), Bends(sha1_vihf=True)), "SHA-1"),
    skeleton(
        "VIHF.ALGORITHM", edit(".//ds:DigestMethod", Algorithm="http://www.w3.org/2000/09/xmldsig#sha1"), "digest"
    ),
    after("VIHF.KEY_INFO", SECURITY, without("ds:Signature/ds:KeyInfo")),
    after("VIHF.KEY_INFO", SECURITY, edit(".//ds:X509Certificate", text="AAAA"), "unreadable"),
    after("VIHF.SIGNATURE", CHECK, edit(value("Identifiant_Structure"), text=OTHER), "attribute changed"),
    after("VIHF.SIGNATURE", CHECK, edit("saml:Subject/saml:NameID", text="899700367917"), "user changed"),
    Case(
        "VIHF.SIGNATURE",
        CHECK,
        lambda s: s.existence(
            s.caller(), Bends(assertion_signed=edit(".//ds:X509Certificate", text=s.pairs[OTHER].sign.text))
        ),
        "another key",
    ),
    Case("VIHF.CHAIN", CHECK, lambda s: signed_by(s, stranger(s)), "stranger"),
    Case("VIHF.CHAIN", CHECK, lambda s: signed_by(s, revoked(s)), "revoked"),
    Case("VIHF.PROFILE", CHECK, lambda s: signed_by(s, s.pairs[STRUCTURE].auth)),
    told(
        "VIHF.ISSUER", TOKEN, edit("saml:Issuer", text="CN=DRIMbox, OU=1999999999, O=X, ST=Paris (75), C=FR"), "other"
    ),
    told("VIHF.ISSUER", TOKEN, edit("saml:Issuer", text="drimbox"), "no DN"),
    told("VIHF.ISSUER", TOKEN, without("saml:Issuer", "Format"), "no format"),
    Case("VIHF.UNIT", DOOR, lambda s: signed_by(s, s.pairs[OTHER].sign)),
    told("VIHF.NAME_ID", TOKEN, edit("saml:Subject/saml:NameID", text="kit")),
    told("VIHF.NAME_ID", TOKEN, edit("saml:Subject/saml:NameID", text=USER[1:]), "RPPS without its 8"),
    told("VIHF.AUTHN", TOKEN, edit("saml:AuthnStatement", AuthnInstant="2124-01-01T10:00:00Z"), "future"),
    told("VIHF.AUTHN", TOKEN, edit(".//saml:AuthnContextClassRef", text="password"), "class"),
    told("VIHF.REPEATED", TOKEN, twice("saml:AttributeStatement/saml:Attribute[@Name='Identifiant_Structure']")),
    *(
        told("VIHF.ATTRIBUTES", TOKEN, without(f"saml:AttributeStatement/saml:Attribute[@Name='{name}']"), name[-20:])
        for name in (
            "VIHF_Version",
            "Authentification_Mode",
            "Identifiant_Structure",
            "Secteur_Activite",
            f"{XSPA}subject-id",
            f"{XACML}subject:role",
            f"{XSPA}purposeofuse",
            f"{XACML}resource:resource-id",
            "Ressource_URN",
            "LPS_Nom",
            "LPS_Version",
            "LPS_ID_HOMOLOGATION_DMP",
        )
    ),
    told("VIHF.ATTRIBUTES", TOKEN, edit(value("LPS_ID_HOMOLOGATION_DMP"), text=""), "empty homologation"),
    told(
        "VIHF.ATTRIBUTES",
        TOKEN,
        edit("saml:AttributeStatement/saml:Attribute[@Name='Authentification_Mode']", Name="Authentification_mode"),
        "case of a name",
    ),
    told("VIHF.VERSION", TOKEN, edit(value("VIHF_Version"), text="2.0")),
    told("VIHF.MODE", DOOR, edit(value("Authentification_Mode"), text="DIRECTE"), "direct"),
    Case("VIHF.MODE", DOOR, lambda s: s.retrieval(s.caller(), "1.2.3"), "ITI-43 without AIR"),
    Case("VIHF.MODE", DOOR, lambda s: s.authorise(s.caller()), "TD0.3 without AIR"),
    told(
        "VIHF.AIR",
        TOKEN,
        added(".//saml:AuthnContext", "<saml:AuthnContextDecl>APP_BROWSER_AUTH</saml:AuthnContextDecl>"),
        "declared in INDIRECTE",
    ),
    air(without(".//saml:AuthnContextDecl")),
    told("VIHF.STRUCTURE", DOOR, edit(value("Identifiant_Structure"), text="1999999999"), "unknown"),
    told("VIHF.STRUCTURE", DOOR, edit(value("Identifiant_Structure"), text=OTHER), "not the certificate's"),
    told("VIHF.SECTOR", TOKEN, edit(value("Secteur_Activite"), text="SA05")),
    told(
        "VIHF.PATIENT",
        TOKEN,
        edit(value(f"{XACML}resource:resource-id"), text="279035121518988^^^&1.2.250.1.213.1.4.10&ISO^NH"),
        "wrong key",
    ),
    told("VIHF.PATIENT", TOKEN, edit(value(f"{XACML}resource:resource-id"), text="IPP1^^^&1.2.3&ISO^PI"), "IPP"),
    told("VIHF.SUBJECT", TOKEN, edit(value(f"{XSPA}subject-id"), text="Dominique PAT-TROIS")),
    told("VIHF.ROLE", TOKEN, role(1, code="99"), "unknown profession"),
    told("VIHF.ROLE", TOKEN, role(1, codeSystem="1.2.250.1.71.4.2.5"), "system"),
    told("VIHF.ROLE", TOKEN, role(1, displayName=""), "no label"),
    told("VIHF.ROLE", TOKEN, also(*(without(f"{ROLES}/saml:AttributeValue"),) * 2), "no value"),
    told(
        "VIHF.ROLE",
        TOKEN,
        without(f"{ROLES}/saml:AttributeValue/hl7:Role", "{http://www.w3.org/2001/XMLSchema-instance}type"),
        "no xsi:type",
    ),
    told("VIHF.SPECIALITY", TOKEN, without(SPECIALITY), "doctor without one"),
    told("VIHF.SPECIALITY", TOKEN, also(without(SPECIALITY), role(1, code="21")), "pharmacist without one"),
    told("VIHF.SPECIALITY", TOKEN, role(2, codeSystem="1.2.3"), "system"),
    told("VIHF.PURPOSE", TOKEN, edit(f"{PURPOSE}//hl7:PurposeOfUse", code="curiosity")),
    told("VIHF.PURPOSE", TOKEN, without(f"{PURPOSE}//hl7:PurposeOfUse"), "empty"),
    told("VIHF.REASON", TOKEN, edit(f"{PURPOSE}//hl7:PurposeOfUse", code="bris_de_glace"), "none given"),
    told(
        "VIHF.REASON",
        TOKEN,
        added(
            "saml:AttributeStatement",
            '<saml:Attribute Name="Mode_Acces_Raison"><saml:AttributeValue>Urgence</saml:AttributeValue>'
            "</saml:Attribute>",
        ),
        "normal access",
    ),
    told("VIHF.RESOURCE", TOKEN, edit(value("Ressource_URN"), text="urn:dmp:x")),
    told(
        "VIHF.SECRET",
        TOKEN,
        added(
            "saml:AttributeStatement",
            '<saml:Attribute Name="urn:oasis:names:tc:xspa:1.0:resource:patient:hl7:confidentiality-code">'
            "<saml:AttributeValue>INVISIBLE_REP_LEGAUX</saml:AttributeValue></saml:Attribute>",
        ),
    ),
]
