"""Rules of the VIHF as claims: user, profession, structure, patient, software (standards.md E; volet Transport)."""

from __future__ import annotations

import re

from drimbox.sandbox.dmp import certificates, datatypes, vihf
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.rules import Rule, rule
from drimbox.sandbox.dmp.vihf import Presented

_REQUIRED = (
    "VIHF_Version",
    "Authentification_Mode",
    "Identifiant_Structure",
    "Secteur_Activite",
    vihf.SUBJECT_ID,
    vihf.ROLE,
    vihf.PURPOSE,
    vihf.RESOURCE_ID,
    "Ressource_URN",
    "LPS_Nom",
    "LPS_Version",
    "LPS_ID_HOMOLOGATION_DMP",
)
_TEXTS = frozenset(_REQUIRED) - {vihf.ROLE, vihf.PURPOSE}
_CONTEXT_CLASS = re.compile(r"urn:oasis:names:tc:SAML:2\.0:ac:classes:[A-Za-z0-9]+")
_SECTOR = re.compile(r"SA\d{2}\^" + re.escape(v.FACILITIES))
# SM26, SCD01, CEX22 of doctors; A, BA, GR, the sections of pharmacists.
_SPECIALITY = re.compile(r"[A-Z]{1,4}\d{0,4}")


@rule("VIHF.NAME_ID", v.INVALID_TOKEN)
def name_id(p: Presented) -> str | None:
    """NameID is the PS_IdNat of the user: 8+RPPS, 0+ADELI, 3+FINESS/internal (standards.md E, D.5)."""
    return (
        None if datatypes.is_person_id(p.vihf.name_id) else "NameID n'est pas un identifiant national de professionnel"
    )


@rule("VIHF.AUTHN", v.INVALID_TOKEN)
def authentication(p: Presented) -> str | None:
    """One AuthnStatement: the login instant, past, and a SAML context class (standards.md E; EX_0.1-1020)."""
    found = p.saml("AuthnStatement")
    when = datatypes.instant(found[0].get("AuthnInstant", "")) if len(found) == 1 else None
    if when is None or when > p.bench.skewed(p.bench.policy.clock_skew):
        return "un AuthnStatement avec un AuthnInstant passé attendu"
    return None if _CONTEXT_CLASS.fullmatch(p.vihf.context_class) else "AuthnContextClassRef absent ou inconnu"


@rule("VIHF.REPEATED", v.INVALID_TOKEN)
def repeated(p: Presented) -> str | None:
    """No attribute is given twice: two readers could choose differently."""
    return f"attribut répété : {p.vihf.repeated[0]}" if p.vihf.repeated else None


@rule("VIHF.ATTRIBUTES", v.INVALID_TOKEN)
def attributes(p: Presented) -> str | None:
    """All mandatory attributes stand there, spelled right, with one value (standards.md E, table)."""
    for name in _REQUIRED:
        if name not in p.vihf.attributes:
            return f"attribut absent : {name}"
        if name in _TEXTS and not p.vihf.value(name):
            return f"une valeur attendue pour l'attribut {name}"
    return None


@rule("VIHF.VERSION", v.INVALID_TOKEN)
def version(p: Presented) -> str | None:
    """VIHF_Version is one that this DMP takes (standards.md E; decision 12)."""
    return None if p.vihf.value("VIHF_Version") in p.bench.policy.vihf_versions else "VIHF_Version refusée"


@rule("VIHF.MODE", v.FAILED_AUTHENTICATION)
def mode(p: Presented) -> str | None:
    """Authentification_Mode fits the transaction: consultation asks for INDIRECTE_RENFORCEE (standards.md E, D.8)."""
    return None if p.vihf.mode in p.modes else "mode d'authentification insuffisant pour cette transaction"


@rule("VIHF.AIR", v.INVALID_TOKEN)
def reinforced(p: Presented) -> str | None:
    """AuthnContextDecl is APP_BROWSER_AUTH in mode INDIRECTE_RENFORCEE, and only there (standards.md E)."""
    expected = "APP_BROWSER_AUTH" if p.vihf.reinforced else ""
    return None if p.vihf.context_declaration == expected else "AuthnContextDecl contraire au mode d'authentification"


@rule("VIHF.STRUCTURE", v.FAILED_AUTHENTICATION)
def structure(p: Presented) -> str | None:
    """Identifiant_Structure is a known structure, and the certificate's: EG, or EJ/EG (ans-faq.md 3.1)."""
    unit = certificates.unit(p.transport)
    known = p.bench.structure(p.vihf.structure)
    if known is None or not known.allowed:
        return "structure inconnue du DMP, ou non autorisée"
    return None if p.bench.one_structure(unit, p.vihf.structure) else "structure différente de celle du certificat"


@rule("VIHF.SECTOR", v.INVALID_TOKEN)
def sector(p: Presented) -> str | None:
    """Secteur_Activite is SAnn^1.2.250.1.71.4.2.4 (standards.md E, JDV_J61)."""
    return None if _SECTOR.fullmatch(p.vihf.value("Secteur_Activite")) else "Secteur_Activite mal formé"


@rule("VIHF.SUBJECT", v.INVALID_TOKEN)
def subject(p: Presented) -> str | None:
    """subject-id names the user, never the patient as the samples do (standards.md E, L.1)."""
    told = datatypes.words(p.vihf.value(vihf.SUBJECT_ID))
    patient = p.bench.patient(p.vihf.patient)
    if patient is not None and told == datatypes.words(f"{patient.given} {patient.family}"):
        return "subject-id porte le nom du patient"
    return None if told else "subject-id vide"


@rule("VIHF.ROLE", v.INVALID_TOKEN)
def role(p: Presented) -> str | None:
    """The first role is a profession (or AUTOMATE), a CE of HL7 v3 (standards.md E, JDV_J65)."""
    roles = p.vihf.roles
    if not 1 <= len(roles) <= 2 or any(r.tag != f"{{{v.HL7}}}Role" or not r.is_ce for r in roles):
        return "un ou deux éléments Role de type CE (urn:hl7-org:v3) attendus"
    profession = roles[0].system == v.PROFESSIONS and roles[0].code in v.PROFESSION_CODES
    automat = roles[0].system == v.AUTOMATS and bool(roles[0].code)
    return None if (profession or automat) and roles[0].label else "profession inconnue, ou sans libellé"


@rule("VIHF.SPECIALITY", v.INVALID_TOKEN)
def speciality(p: Presented) -> str | None:
    """Doctors (10) and pharmacists (21) have a second role: their speciality (standards.md E)."""
    first, rest = p.vihf.roles[0], p.vihf.roles[1:]
    if not rest:
        regulated = first.system == v.PROFESSIONS and first.code in ("10", "21")
        return "savoir-faire attendu pour un médecin ou un pharmacien" if regulated else None
    right = rest[0].system == v.SPECIALITIES and _SPECIALITY.fullmatch(rest[0].code) and rest[0].label
    return None if right else "savoir-faire mal formé"


@rule("VIHF.PURPOSE", v.INVALID_TOKEN)
def purpose(p: Presented) -> str | None:
    """One PurposeOfUse, a CE of 1.2.250.1.213.1.1.4.248 (standards.md E)."""
    found = p.vihf.purposes
    right = (
        len(found) == 1
        and found[0].tag == f"{{{v.HL7}}}PurposeOfUse"
        and found[0].is_ce
        and found[0].system == v.PURPOSES
        and found[0].code in ("normal", "bris_de_glace", "centre_15")
    )
    return None if right else "PurposeOfUse absent ou inconnu"


@rule("VIHF.REASON", v.INVALID_TOKEN)
def reason(p: Presented) -> str | None:
    """An emergency access tells its reason, a normal one has none (standards.md E; EX_0.2-1050)."""
    told = p.vihf.value(vihf.REASON).strip()
    if p.vihf.emergency:
        return None if 3 <= len(told) <= 256 else "motif de l'accès en urgence absent ou trop long"
    return "motif donné pour un accès normal" if vihf.REASON in p.vihf.attributes else None


@rule("VIHF.PATIENT", v.INVALID_TOKEN)
def patient(p: Presented) -> str | None:
    """resource-id is an INS with a right key: <INS>^^^&<OID>&ISO^NH (standards.md E, J)."""
    told = datatypes.reference(p.vihf.patient)
    right = told is not None and told.kind == "NH" and told.authority in v.INS_OIDS and datatypes.is_ins(told.value)
    return None if right else "resource-id n'est pas un INS bien formé"


@rule("VIHF.RESOURCE", v.INVALID_TOKEN)
def resource(p: Presented) -> str | None:
    """Ressource_URN is urn:dmp (standards.md E)."""
    return None if p.vihf.value("Ressource_URN") == "urn:dmp" else "Ressource_URN doit être urn:dmp"


@rule("VIHF.SECRET", v.INVALID_TOKEN)
def secret(p: Presented) -> str | None:
    """The confidentiality code, when sent, is the one of a secret connection (standards.md E; EX_0.1-1100)."""
    sent = p.vihf.attributes.get(vihf.SECRET)
    return None if sent is None or sent == (v.HIDDEN_FROM_REPRESENTATIVES,) else "code de connexion secrète inconnu"


CLAIM_RULES: tuple[Rule[Presented], ...] = (
    name_id,
    authentication,
    repeated,
    attributes,
    version,
    mode,
    reinforced,
    structure,
    sector,
    patient,
    subject,
    role,
    speciality,
    purpose,
    reason,
    resource,
    secret,
)
