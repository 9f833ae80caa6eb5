"""The VIHF: a signed SAML 2.0 assertion that tells the DMP who acts, for whom, on which patient (standards.md E).

One assertion per transaction. It is signed where it stands in the message, so its signature covers what is sent.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from drimbox.foundation.clock import iso_utc
from drimbox.foundation.errors import Misconfigured, Refused
from drimbox.foundation.uids import new_xml_id
from drimbox.foundation.xml import Builder, Element
from drimbox.identity.ins import Ins
from drimbox.national.dmp import xmldsig
from drimbox.national.dmp.actor import REINFORCED, Actor, Software, VihfIdentity
from drimbox.national.dmp.codes import (
    HIDDEN_FROM_REPRESENTATIVES,
    HL7,
    NAME_ID_X509,
    PROFESSIONS,
    PURPOSE_EMERGENCY,
    PURPOSE_NORMAL,
    SAML,
    SECTORS,
    SPECIALISED_PROFESSIONS,
    SPECIALITIES,
    XSI,
    VihfName,
)
from drimbox.national.dmp.metadata.datatypes import clean
from drimbox.reports.report import Coded
from drimbox.trust.keystore import Credential

_SAML = Builder({"saml2": SAML}, "saml2")
# xsi:type="CE" is a QName in content: it means urn:hl7-org:v3 only while that is the default namespace.
_HL7 = Builder({"": HL7, "xsi": XSI}, "")
_CODE_SYSTEM_NAMES = {PROFESSIONS: "professions", SPECIALITIES: "specialites RPPS"}


def assertion(actor: Actor, patient: Ins, software: Software, *, version: str, now: dt.datetime) -> Element:
    """The assertion, not signed yet.

    ``version`` is ``VIHF_Version`` (decision 12). Raises ``Refused`` (``vihf-incomplete``, ``vihf-speciality``) when
    the identity lacks what the DMP demands, ``Misconfigured`` (``vihf-software``) when the settings do.
    """
    identity = actor.identity
    _check(identity)
    if not (software.name and software.version and software.homologation_number):
        raise Misconfigured(
            "Donnez le numéro d'homologation CNDA (box.homologation_number) : le DMP l'exige", code="vihf-software"
        )
    return _SAML(
        "Assertion",
        _SAML("Issuer", actor.sign.subject_dn, Format=NAME_ID_X509),
        _SAML("Subject", _SAML("NameID", identity.subject_id)),
        _authentication(identity),
        _SAML("AttributeStatement", *_attributes(actor, patient, software, version)),
        ID=new_xml_id(),
        IssueInstant=iso_utc(now),
        Version="2.0",
    )


def sign(root: Element, credential: Credential, algorithm: xmldsig.Algorithm) -> None:
    """Put the enveloped signature of the assertion right after its Issuer, where the schema wants it."""
    suite = xmldsig.suite(algorithm)
    ds = xmldsig.ds_builder("ds")
    digest = suite.digest(xmldsig.canonical(root, exclusive=True))
    signed_info = ds(
        "SignedInfo",
        ds("CanonicalizationMethod", Algorithm=xmldsig.EXCLUSIVE),
        ds("SignatureMethod", Algorithm=suite.signature_uri),
        ds(
            "Reference",
            ds(
                "Transforms",
                ds("Transform", Algorithm=xmldsig.ENVELOPED),
                ds("Transform", Algorithm=xmldsig.EXCLUSIVE),
            ),
            ds("DigestMethod", Algorithm=suite.digest_uri),
            ds("DigestValue", digest),
            URI=f"#{root.get('ID')}",
        ),
    )
    value = ds("SignatureValue")
    root.insert(1, ds("Signature", signed_info, value, xmldsig.key_info(ds, credential)))
    value.text = xmldsig.sign(xmldsig.canonical(signed_info, exclusive=True), credential, suite)


def _check(identity: VihfIdentity) -> None:
    required = (identity.subject_id, identity.subject_name, identity.structure_id, identity.sector)
    if not all(value.strip() for value in (*required, identity.profession.code, identity.authn_context)):
        raise Refused(
            "Identité incomplète pour le DMP (professionnel, profession, structure, secteur)", code="vihf-incomplete"
        )
    if identity.profession.code in SPECIALISED_PROFESSIONS and identity.speciality is None:
        raise Refused("Le DMP exige le savoir-faire des médecins et des pharmaciens", code="vihf-speciality")


def _authentication(identity: VihfIdentity) -> Element:
    context = _SAML("AuthnContext", _SAML("AuthnContextClassRef", identity.authn_context))
    if identity.mode == REINFORCED:
        context.append(_SAML("AuthnContextDecl", "APP_BROWSER_AUTH"))
    return _SAML("AuthnStatement", context, AuthnInstant=identity.authn_instant())


def _attributes(actor: Actor, patient: Ins, software: Software, version: str) -> Iterable[Element]:
    """In the order of the official sample; the patient stands in resource-id, the subject is the professional."""
    identity = actor.identity
    yield _attribute(VihfName.VERSION, version)
    yield _attribute(VihfName.SECTOR, f"{identity.sector}^{SECTORS}")
    yield _attribute(VihfName.RESOURCE_URN, "urn:dmp")
    yield _attribute(VihfName.SUBJECT, identity.subject_name)
    yield _attribute(VihfName.STRUCTURE, identity.structure_id)
    if software.installation_id:
        yield _attribute(VihfName.SOFTWARE_ID, software.installation_id)
    yield _attribute(VihfName.SOFTWARE_NAME, software.name)
    yield _attribute(VihfName.HOMOLOGATION, software.homologation_number)
    yield _attribute(VihfName.SOFTWARE_VERSION, software.version)
    yield _attribute(VihfName.PATIENT, patient.cx())
    yield _attribute(VihfName.MODE, identity.mode)
    if actor.secret_connection:
        yield _attribute(VihfName.CONFIDENTIALITY, HIDDEN_FROM_REPRESENTATIVES.code)
    purpose = PURPOSE_EMERGENCY if actor.emergency else PURPOSE_NORMAL
    yield _attribute(VihfName.PURPOSE, _ce("PurposeOfUse", purpose, "mode acces VIHF 1.0"))
    if actor.emergency:
        yield _attribute(VihfName.REASON, actor.emergency)
    yield _attribute(VihfName.ROLE, *(_role(code) for code in _roles(identity)))


def _roles(identity: VihfIdentity) -> Iterable[Coded]:
    yield identity.profession
    if identity.speciality is not None and identity.profession.code in SPECIALISED_PROFESSIONS:
        yield identity.speciality


def _role(code: Coded) -> Element:
    return _ce("Role", code, _CODE_SYSTEM_NAMES.get(code.system, ""))


def _attribute(name: str, *values: str | Element) -> Element:
    return _SAML(
        "Attribute",
        *(_SAML("AttributeValue", clean(value) if isinstance(value, str) else value) for value in values),
        Name=name,
    )


def _ce(tag: str, code: Coded, system_name: str) -> Element:
    element = _HL7(
        tag,
        code=code.code,
        codeSystem=code.system,
        codeSystemName=system_name,
        displayName=clean(code.label or code.code),
    )
    element.set(f"{{{XSI}}}type", "CE")
    return element
