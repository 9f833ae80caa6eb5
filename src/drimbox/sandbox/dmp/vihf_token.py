"""Rules of the VIHF as a token: identity, freshness, issuer, signature, certificates (standards.md E, K.1)."""

from __future__ import annotations

import copy
import re

from lxml import etree

from drimbox.foundation.xml import text_of
from drimbox.sandbox.dmp import certificates, datatypes, dsig
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.rules import Rule, rule
from drimbox.sandbox.dmp.schemas import schema_error
from drimbox.sandbox.dmp.vihf import Presented

_NCNAME = re.compile(r"[A-Za-z_][A-Za-z0-9._-]*")
_X509_NAME = "urn:oasis:names:tc:SAML:1.1:nameid-format:X509SubjectName"


@rule("VIHF.SAML_VERSION", v.INVALID_TOKEN)
def saml_version(p: Presented) -> str | None:
    """Version is 2.0 (standards.md E)."""
    return None if p.assertion.get("Version") == "2.0" else "assertion SAML 2.0 attendue"


@rule("VIHF.ID", v.INVALID_TOKEN)
def assertion_id(p: Presented) -> str | None:
    """ID is an NCName (standards.md E, decision 12; SAML core 1.3.4)."""
    return None if _NCNAME.fullmatch(p.assertion.get("ID", "")) else "ID de l'assertion absent, ou pas un NCName"


@rule("VIHF.COMMENTS", v.INVALID_TOKEN)
def comments(p: Presented) -> str | None:
    """No comment inside the assertion: canonicalisation drops it, and two readers would read two texts."""
    inside = any(True for _ in p.assertion.iter(etree.Comment, etree.ProcessingInstruction))
    return "commentaire dans l'assertion" if inside else None


@rule("VIHF.SCHEMA", v.INVALID_TOKEN)
def schema(p: Presented) -> str | None:
    """The assertion is valid against the SAML schema (order of elements, types of attributes)."""
    bare = copy.deepcopy(p.assertion)
    # The HL7 types that xsi:type names are not in the SAML schema: the content of values is judged by other rules.
    for value in bare.iter(f"{{{v.SAML}}}AttributeValue"):
        for child in list(value):
            value.remove(child)
    return schema_error(p.bench.schemas.saml, bare)


@rule("VIHF.INSTANT", v.INVALID_TOKEN)
def issue_instant(p: Presented) -> str | None:
    """IssueInstant is UTC, and not older than a few minutes nor in the future (standards.md E)."""
    text = p.assertion.get("IssueInstant", "")
    issued = datatypes.instant(text) if text.endswith("Z") else None
    if issued is None:
        return "IssueInstant absent, ou pas en UTC"
    policy = p.bench.policy
    fresh = p.bench.skewed(-policy.assertion_age) <= issued <= p.bench.skewed(policy.clock_skew)
    return None if fresh else "IssueInstant trop ancien ou dans le futur"


@rule("VIHF.CONDITIONS", v.INVALID_TOKEN)
def conditions(p: Presented) -> str | None:
    """Conditions are optional; their period must hold now (standards.md E)."""
    found = p.saml("Conditions")
    if not found:
        return None
    start, end = (datatypes.instant(found[0].get(name, "")) for name in ("NotBefore", "NotOnOrAfter"))
    early = start is not None and start > p.bench.skewed(p.bench.policy.clock_skew)
    late = end is not None and end <= p.bench.now
    return "assertion hors de sa période de validité" if early or late else None


@rule("VIHF.AUDIENCE", v.INVALID_TOKEN)
def audience(p: Presented) -> str | None:
    """AudienceRestriction is not filled (standards.md E)."""
    return "AudienceRestriction non admis" if p.saml("Conditions/AudienceRestriction") else None


@rule("VIHF.LAYOUT", v.INVALID_TOKEN)
def layout(p: Presented) -> str | None:
    """One Subject with its NameID, one AuthnStatement with its context, one AttributeStatement (standards.md E)."""
    once = (
        "Subject",
        "Subject/NameID",
        "AuthnStatement/AuthnContext",
        "AuthnStatement/AuthnContext/AuthnContextClassRef",
    )
    right = all(len(p.saml(path)) == 1 for path in (*once, "AuthnStatement", "AttributeStatement"))
    right = right and len(p.saml("AuthnStatement/AuthnContext/AuthnContextDecl")) <= 1 >= len(p.saml("Conditions"))
    return None if right else "élément de l'assertion absent ou répété"


@rule("VIHF.SIGNATURE_PLACE", v.INVALID_SECURITY)
def signature_place(p: Presented) -> str | None:
    """One ds:Signature, right after Issuer (standards.md E; SAML core 2.3.3)."""
    children = [c.tag for c in p.assertion.iterchildren(etree.Element)]
    right = children[:2] == [f"{{{v.SAML}}}Issuer", f"{{{v.DS}}}Signature"] and p.signature is not None
    return None if right else "une signature attendue juste après Issuer"


@rule("VIHF.SIGNATURE_FORM", v.INVALID_SECURITY)
def signature_form(p: Presented) -> str | None:
    """Enveloped, one reference to the assertion, exclusive canonicalisation; its ID carried once (standards.md E)."""
    signature = p.signature
    assert signature is not None
    if dsig.algorithm(signature, "SignedInfo/CanonicalizationMethod") != dsig.EXCLUSIVE:
        return "canonicalisation exclusive attendue"
    references = signature.findall(dsig.ds("SignedInfo/Reference"))
    identifier = p.assertion.get("ID", "")
    if len(references) != 1 or references[0].get("URI") != f"#{identifier}":
        return "une seule référence, à l'assertion, attendue dans la signature"
    transforms = [t.get("Algorithm") for t in references[0].findall(dsig.ds("Transforms/Transform"))]
    if transforms != [dsig.ENVELOPED, dsig.EXCLUSIVE]:
        return "transformations enveloped-signature puis exc-c14n attendues"
    if dsig.carriers(p.assertion.getroottree().getroot(), identifier) != 1:
        return "identifiant de l'assertion porté par plusieurs éléments"
    return None


@rule("VIHF.ALGORITHM", v.INVALID_SECURITY)
def algorithm(p: Presented) -> str | None:
    """RSA-SHA256 and SHA-256; SHA-1 only if this DMP is set to take it (standards.md E, decision 12)."""
    sha1 = p.bench.policy.accept_sha1
    method = dsig.algorithm(p.signature, "SignedInfo/SignatureMethod")
    digest = dsig.algorithm(p.signature, "SignedInfo/Reference/DigestMethod")
    right = method in dsig.signature_methods(accept_sha1=sha1) and digest in dsig.digest_methods(accept_sha1=sha1)
    return None if right else "algorithme de signature ou d'empreinte refusé"


@rule("VIHF.KEY_INFO", v.INVALID_SECURITY)
def key_info(p: Presented) -> str | None:
    """KeyInfo holds the one certificate of the signer (standards.md E)."""
    return None if p.signer is not None else "un certificat attendu dans KeyInfo"


@rule("VIHF.SIGNATURE", v.FAILED_CHECK)
def signature_value(p: Presented) -> str | None:
    """Digest and signature are right (xmlsec)."""
    signature, certificate = p.signature, p.signer
    assert signature is not None
    assert certificate is not None
    return None if dsig.is_right(signature, certificate, [p.assertion], "ID") else "signature de l'assertion fausse"


@rule("VIHF.CHAIN", v.FAILED_CHECK)
def chain(p: Presented) -> str | None:
    """The signing certificate chains to IGC-Sante, is in its period and not revoked (standards.md K)."""
    assert p.signer is not None
    error = certificates.chain_error(p.signer, p.bench.anchors, p.bench.now)
    return f"certificat de signature : {error}" if error else None


@rule("VIHF.PROFILE", v.FAILED_CHECK)
def profile(p: Presented) -> str | None:
    """The VIHF is signed by an ORG SIGN certificate (standards.md E, K.1)."""
    assert p.signer is not None
    error = certificates.sign_profile_error(p.signer)
    return f"certificat de signature, profil ORG SIGN : {error}" if error else None


@rule("VIHF.ISSUER", v.INVALID_TOKEN)
def issuer(p: Presented) -> str | None:
    """Issuer is the X509SubjectName of the signing certificate, its DN in either order (standards.md E)."""
    found = p.saml("Issuer")
    if len(found) != 1 or found[0].get("Format") != _X509_NAME:
        return "Issuer au format X509SubjectName attendu"
    assert p.signer is not None
    same = certificates.same_name(p.signer.subject, text_of(found[0]))
    return None if same else "Issuer n'est pas le DN du certificat de signature"


@rule("VIHF.UNIT", v.FAILED_AUTHENTICATION)
def unit(p: Presented) -> str | None:
    """The ORG AUTH_CLI of the connection and the ORG SIGN of the VIHF are of one structure (ans-faq.md 3.1)."""
    assert p.signer is not None
    same = certificates.unit(p.signer) == certificates.unit(p.transport)
    return None if same else "certificats de connexion et de signature de structures différentes"


TOKEN_RULES: tuple[Rule[Presented], ...] = (
    saml_version,
    assertion_id,
    comments,
    schema,
    issue_instant,
    conditions,
    audience,
    layout,
    signature_place,
    signature_form,
    algorithm,
    key_info,
    signature_value,
    chain,
    profile,
    issuer,
    unit,
)
