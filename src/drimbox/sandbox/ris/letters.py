"""Reports as a RIS sends them: a CDA of level 1 in an ORU or an MDM, of the form of the official exams."""

from __future__ import annotations

import base64
import datetime as dt
from dataclasses import dataclass, replace
from xml.sax.saxutils import quoteattr

from drimbox.sandbox.ris.exams import Exam
from drimbox.sandbox.ris.paper import one_page

_OPERATIONS = {"new": ("NW", "F", "T02"), "replace": ("RO", "C", "T10"), "delete": ("CA", "D", "T04")}
_FLAGS = (
    ("MASQUE_PS", "Masqué aux professionnels de Santé"),
    ("INVISIBLE_PATIENT", "Document Non Visible par le patient"),
    ("INVISIBLE_REP_LEGAUX", "Non visible par les représentants Légaux du patient"),
    ("CONNEXION_SECRETE", "Connexion Secrete"),
    ("MODIF_CONF_CODE", "Modification Confidentiality Code"),
    ("DESTDMP", "Destinataire DMP"),
    ("DESTMSSANTEPS", "Destinataire (Professionnel de Santé, organisation ou BAL applicative)"),
    ("DESTMSSANTEPAT", "Destinataire Patient"),
    ("ACK_RECEPTION", "Accusé de réception"),
    ("ACK_LECTURE_MSS", "Accusé de lecture"),
)


@dataclass(frozen=True, slots=True)
class Identity:
    """The patient of a report."""

    ins: str = "279035121518989"
    ins_oid: str = "1.2.250.1.213.1.4.10"
    family: str = "PAT-TROIS"
    given: str = "DOMINIQUE"
    birth_date: str = "19790328"
    sex: str = "F"
    birth_place: str = "51215"
    birth_city: str = "DOMPREMY"
    email: str = "279035121518989@patient.mssante.fr"
    mobile: str = "0647151010"
    ipp: str = "IPP101"
    ipp_issuer: str = "1.2.250.1.213.4.5.2.4"
    status: str = "VALI"


@dataclass(frozen=True, slots=True)
class Letter:
    """One report to send. ``structure`` is a Struct_IdNat; ``flags`` holds the DMP flags that are ``Y``."""

    exam: Exam
    control_id: str
    identity: Identity = Identity()
    structure: str = "1750803447"
    structure_name: str = "Centre de radiologie Ambroise"
    operation: str = "new"
    document_id: str = ""
    replaces: str = ""
    version: int = 1
    flags: frozenset[str] = frozenset({"DESTDMP"})
    application: str = "RIS-A"
    facility: str = "AMBROISE"
    link: str = ""

    def corrected(self, document_id: str, control_id: str) -> Letter:
        """The same report, replaced by a new version."""
        return replace(
            self,
            operation="replace",
            replaces=self.document_id or self.exam.document_id,
            document_id=document_id,
            control_id=control_id,
            version=self.version + 1,
        )


def oru(letter: Letter, now: dt.datetime) -> bytes:
    """ORU^R01 of HL7 2.5."""
    order, status, _ = _OPERATIONS[letter.operation]
    segments = [
        _msh(letter, now, "ORU^R01^ORU_R01", "2.5"),
        _pid(letter.identity),
        _pv1(),
        f"ORC|{order}|",
        "OBR|1|984375862^EntityNAME|09011600123^EntityNAME|18748-4^CR d'imagerie médicale^LN"
        "||||||||||||899700367909^DOC0036790^KIT^^^DR^^^^D^^^RPPS^||09011600123|||||||F",
        *_observations(letter, "TEXT", status, "CE"),
    ]
    return _join(segments)


def mdm(letter: Letter, now: dt.datetime) -> bytes:
    """MDM^T02, T10 or T04 of HL7 2.6."""
    order, status, event = _OPERATIONS[letter.operation]
    document = letter.document_id or letter.exam.document_id
    segments = [
        _msh(letter, now, f"MDM^{event}^MDM_T02", "2.6"),
        f"EVN||{now:%Y%m%d%H%M%S}",
        _pid(letter.identity),
        _pv1(),
        f"ORC|{order}|",
        "OBR|1|||18748-4^CR d'imagerie médicale^LN|",
        f"TXA|1|18748-4|TEXT|{now:%Y%m%d%H%M}||||||||{document}|{letter.replaces}||||AU|||||801234560801",
        *_observations(letter, "text", status, "CWE"),
    ]
    return _join(segments)


def filled_in(template: bytes, letter: Letter, now: dt.datetime) -> bytes:
    """An official message file with its ``{{…}}`` placeholders filled in."""
    values = {
        b"{{applicationSupplier}}": letter.application.encode(),
        b"{{facilitySupplier}}": letter.facility.encode(),
        b"{{applicationReceiver}}": b"DRIMBOX",
        b"{{facilityReceiver}}": b"SOURCE",
    }
    for mark, value in values.items():
        template = template.replace(mark, value)
    # One placeholder serves MSH-7 and MSH-10; both take the message's identifier, as in an official run.
    return template.replace(b"{{idMessage}}", letter.control_id.encode())


def _join(segments: list[str]) -> bytes:
    return "".join(segment + "\r" for segment in segments).encode("utf-8")


def _msh(letter: Letter, now: dt.datetime, kind: str, version: str) -> str:
    return (
        rf"MSH|^~\&|{letter.application}|{letter.facility}|DRIMBOX|SOURCE|{now:%Y%m%d%H%M%S}||{kind}|"
        f"{letter.control_id}|P|{version}|||||FRA|UNICODE UTF-8|||2.1^CISIS_CDA_HL7_V2"
    )


def _pid(who: Identity) -> str:
    return (
        f"PID|||{who.ins}^^^ASIP-SANTE-INS-NIR&{who.ins_oid}&ISO^INS^^"
        f"~{who.ipp}^^^AUT-AFFECTATION&{who.ipp_issuer}&ISO^PI||"
        f"{who.family}^{who.given}^{who.given}^^^^L~{who.family}^^^^^^D||{who.birth_date}|{who.sex}|||"
        f"^^^^^^BDL^^{who.birth_place}||||||||||||||||||||N|{who.status}"
    )


def _pv1() -> str:
    return "PV1|1|I|UFNEPH||||||||||||||||000897406^^^AUT-AFFECTATION&120456789&M^VN^^20210409"


def _observations(letter: Letter, form: str, status: str, coded: str) -> list[str]:
    document = base64.b64encode(clinical_document(letter)).decode("ascii")
    finess = letter.structure[1:] if letter.structure.startswith("1") else letter.structure
    segments = [
        f"OBX|1|ED|18748-4^CR d'imagerie médicale^LN||^{form}^XML^Base64^{document}||||||{status}|",
        "PRT||UC||SB^^participation|801234560801^BIDEAULT^Jacques^^^^^^ASIP-SANTE-PS&1.2.250.1.71.4.2.1&ISO^D^^^RPPS|||"
        f"{letter.structure_name}^^^^^ASIP-SANTE-ST&1.2.250.1.71.4.2.2&ISO^FINEG^^^{finess}",
    ]
    for number, (code, label) in enumerate(_FLAGS, 2):
        value = "Y" if code in letter.flags else "N"
        segments.append(f"OBX|{number}|{coded}|{code}^{label}^MetaDMPMSS||{value}^^expandedYes-NoIndicator||||||F|")
    return segments


def clinical_document(letter: Letter) -> bytes:
    """The CDA of level 1: header as official-data.md 5 lists it, body a PDF."""
    exam, who, act = letter.exam, letter.identity, letter.exam.act
    body = base64.b64encode(
        one_page(
            [
                letter.structure_name,
                "",
                f"Compte rendu d'examen : {act.ccam_label}",
                "",
                "Compte rendu simulé : aucune valeur clinique.",
            ],
            link=letter.link,
        )
    ).decode("ascii")
    organisation = (
        f'<representedOrganization><id root="1.2.250.1.71.4.2.2" extension="{letter.structure}"/>'
        f"<name>{letter.structure_name}</name>"
        '<standardIndustryClassCode code="AMBULATOIRE" displayName="Ambulatoire" codeSystem="1.2.250.1.213.1.1.4.9"/>'
        "</representedOrganization>"
    )
    professional = (
        '<id root="1.2.250.1.71.4.2.1" extension="801234560801"/>'
        '<code code="G15_10/SM44" displayName="Médecin - Radio-diagnostic (SM)" codeSystem="1.2.250.1.213.1.1.4.5"/>'
        "<assignedPerson><name><prefix>M</prefix><given>Jacques</given><family>BIDEAULT</family></name></assignedPerson>"
    )
    orders = "".join(
        f'<inFulfillmentOf><order><id root="{exam.order_issuer}" extension="{placer}"/>'
        f'<ps3-20:accessionNumber root="{exam.accession_issuer}" extension="{accession}"/></order></inFulfillmentOf>'
        for placer, accession in exam.orders
    )
    studies = "".join(f'<id root="{study}"/>' for study in exam.studies)
    parent = (
        f'<relatedDocument typeCode="RPLC"><parentDocument><id root="{letter.replaces}"/>'
        "</parentDocument></relatedDocument>"
        if letter.replaces
        else ""
    )
    text = f"""<?xml version="1.0" encoding="utf-8"?>
<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:ps3-20="urn:dicom-org:ps3-20">
<realmCode code="FR"/><typeId root="2.16.840.1.113883.1.3" extension="POCD_HD000040"/>
<templateId root="2.16.840.1.113883.2.8.2.1"/><templateId root="1.2.250.1.213.1.1.1.1"/>
<templateId root="1.3.6.1.4.1.19376.1.2.20"/>
<id root="{letter.document_id or exam.document_id}"/>
<code code="18748-4" displayName="CR d'imagerie médicale" codeSystem="2.16.840.1.113883.6.1" codeSystemName="LOINC">
<translation code="{act.loinc}" displayName={quoteattr(act.loinc_label)} codeSystem="2.16.840.1.113883.6.1"/></code>
<title>CR d’imagerie médicale</title><effectiveTime value="20210108111700+0100"/>
<confidentialityCode code="N" displayName="Normal" codeSystem="2.16.840.1.113883.5.25"/><languageCode code="fr-FR"/>
<setId root="D52DE737-001D-4031-B571-0A0ED7C42300"/><versionNumber value="{letter.version}"/>
<recordTarget><patientRole><id extension="{who.ins}" root="{who.ins_oid}"/>
<id extension="{who.ipp}" root="{who.ipp_issuer}"/>
<telecom value="tel:{who.mobile}" use="MC"/><telecom value="mailto:{who.email}"/><patient classCode="PSN"><name>
<family qualifier="BR">{who.family}</family><given qualifier="BR">{who.given}</given><given>{who.given}</given>
<family qualifier="CL">{who.family}</family><given qualifier="CL">{who.given}</given></name>
<administrativeGenderCode code="{who.sex}" codeSystem="2.16.840.1.113883.5.1"/><birthTime value="{who.birth_date}"/>
<birthplace><place><addr><county>{who.birth_place}</county><city>{who.birth_city}</city></addr></place></birthplace>
</patient></patientRole></recordTarget>
<author><time value="20210108111700+0100"/><assignedAuthor>{professional}{organisation}</assignedAuthor></author>
<custodian><assignedCustodian><representedCustodianOrganization><id root="1.2.250.1.71.4.2.2"
 extension="{letter.structure}"/><name>{letter.structure_name}</name></representedCustodianOrganization>
</assignedCustodian></custodian>
<legalAuthenticator><time value="20210108111700+0100"/><signatureCode code="S"/>
<assignedEntity>{professional}{organisation}</assignedEntity></legalAuthenticator>
{orders}<documentationOf><serviceEvent classCode="ACT">{studies}
<code code="{act.loinc}" displayName={quoteattr(act.loinc_label)} codeSystem="2.16.840.1.113883.6.1">
<translation code="{act.ccam}" displayName={quoteattr(act.ccam_label)} codeSystem="1.2.250.1.213.2.5"/>
<translation code="{act.modality}" displayName={quoteattr(act.modality_label)} codeSystem="1.2.840.10008.2.16.4">
<qualifier><name code="121139" codeSystem="1.2.840.10008.2.16.4"/></qualifier></translation>
<translation code="{act.region}" displayName={quoteattr(act.region_label)} codeSystem="2.16.840.1.113883.6.96">
<qualifier><name code="39111-0" codeSystem="2.16.840.1.113883.6.1"/></qualifier></translation></code>
<effectiveTime><low value="20210108102500+0100"/><high value="20210108111700+0100"/></effectiveTime>
<performer typeCode="PRF"><assignedEntity>{professional}{organisation}</assignedEntity></performer>
</serviceEvent></documentationOf>{parent}
<componentOf><encompassingEncounter><code code="AMB" codeSystem="2.16.840.1.113883.5.4"/>
<effectiveTime><low value="20210108102500+0100"/><high value="20210108111700+0100"/></effectiveTime>
<location><healthCareFacility><code code="SA08" displayName="Cabinet de groupe" codeSystem="1.2.250.1.71.4.2.4"/>
</healthCareFacility></location></encompassingEncounter></componentOf>
<component><nonXMLBody><text mediaType="application/pdf" representation="B64">{body}</text></nonXMLBody></component>
</ClinicalDocument>
"""
    return text.encode("utf-8")
