"""Every identifier of XDS, ebRIM, the VIHF and the French value sets that the DMP client knows: the one place.

Sources: standards.md D and E (IHE ITI TF-2 3.18, 3.41, 3.43, 3.57; TF-3 4.2; ANS nomenclatures).
"""

from __future__ import annotations

from enum import StrEnum

from drimbox.reports.report import Coded

# --- XML namespaces ---------------------------------------------------------------------------------------------------
SOAP = "http://www.w3.org/2003/05/soap-envelope"
WSA = "http://www.w3.org/2005/08/addressing"
WSA_ANONYMOUS = "http://www.w3.org/2005/08/addressing/anonymous"
WSSE = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
DS = "http://www.w3.org/2000/09/xmldsig#"
XADES = "http://uri.etsi.org/01903/v1.1.1#"
RIM = "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"
RS = "urn:oasis:names:tc:ebxml-regrep:xsd:rs:3.0"
LCM = "urn:oasis:names:tc:ebxml-regrep:xsd:lcm:3.0"
QUERY = "urn:oasis:names:tc:ebxml-regrep:xsd:query:3.0"
XDSB = "urn:ihe:iti:xds-b:2007"
XOP = "http://www.w3.org/2004/08/xop/include"
HL7 = "urn:hl7-org:v3"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
HABILITATIONS = "urn:si-dmp-habilitations"

# --- SOAP actions (D.1) -----------------------------------------------------------------------------------------------
ACTION_PROVIDE = "urn:ihe:iti:2007:ProvideAndRegisterDocumentSet-b"
ACTION_QUERY = "urn:ihe:iti:2007:RegistryStoredQuery"
ACTION_RETRIEVE = "urn:ihe:iti:2007:RetrieveDocumentSet"
ACTION_UPDATE = "urn:ihe:iti:2010:UpdateDocumentSet"
ACTION_EXISTENCE = "urn:hl7-org:v3:PRPA_IN201307UV02"
ACTION_AUTHORISATION = "urn:si-dmp-habilitations:HabilitationsEndPoint:setAuthorization"


# --- registry objects (D.3) -------------------------------------------------------------------------------------------
class Node:
    """ClassificationNodes and object types."""

    SUBMISSION_SET = "urn:uuid:a54d6aa5-d40d-43f9-88c5-b4633d873bdd"
    STABLE_DOCUMENT = "urn:uuid:7edca82f-054d-47f2-a032-9b2a5b5186c1"
    ON_DEMAND_DOCUMENT = "urn:uuid:34268e47-fdf5-41a6-ba33-82133c465248"


class SetScheme:
    """Classification and identification schemes of a SubmissionSet."""

    AUTHOR = "urn:uuid:a7058bb9-b4e4-4307-ba5b-e3f0ab85e12d"
    CONTENT_TYPE = "urn:uuid:aa543740-bdda-424e-8c96-df4873be8500"
    PATIENT_ID = "urn:uuid:6b5aea1a-874d-4603-a4bc-96a0a7b38446"
    SOURCE_ID = "urn:uuid:554ac39e-e3fe-47fe-b233-965d2a147832"
    UNIQUE_ID = "urn:uuid:96fdda7c-d067-4183-912e-bf5ee74998a8"


class EntryScheme:
    """Classification and identification schemes of a DocumentEntry."""

    AUTHOR = "urn:uuid:93606bcf-9494-43ec-9b4e-a7748d1a838d"
    CLASS = "urn:uuid:41a5887f-8865-4c09-adf7-e362475b143a"
    TYPE = "urn:uuid:f0306f51-975f-434e-a61c-c59651d33983"
    CONFIDENTIALITY = "urn:uuid:f4f85eac-e6cb-4883-b524-f2705394840f"
    EVENT = "urn:uuid:2c6b8cb7-8b2a-4051-b291-b1ae6a575ef4"
    FORMAT = "urn:uuid:a09d5840-386c-46f2-b5ad-9c3699a4309d"
    FACILITY_TYPE = "urn:uuid:f33fb8ac-18af-42cc-ae0e-ed0b0bdb91e1"
    PRACTICE_SETTING = "urn:uuid:cccf5598-8b07-4b77-a05e-ae952c785ead"
    PATIENT_ID = "urn:uuid:58a6f841-87b3-4a3e-92fd-a8ffeff98427"
    UNIQUE_ID = "urn:uuid:2e82c1f6-a085-4c72-9da3-8640a32e42ab"


class AssociationType:
    """Types of Association."""

    HAS_MEMBER = "urn:oasis:names:tc:ebxml-regrep:AssociationType:HasMember"
    REPLACES = "urn:ihe:iti:2007:AssociationType:RPLC"
    SIGNS = "urn:ihe:iti:2007:AssociationType:signs"
    UPDATE_STATUS = "urn:ihe:iti:2010:AssociationType:UpdateAvailabilityStatus"


class Status(StrEnum):
    """availabilityStatus of an entry: the two of ebRIM and the two of the DMP."""

    APPROVED = "urn:oasis:names:tc:ebxml-regrep:StatusType:Approved"
    DEPRECATED = "urn:oasis:names:tc:ebxml-regrep:StatusType:Deprecated"
    ARCHIVED = "urn:asip:ci-sis:2010:StatusType:Archived"
    DELETED = "urn:asip:ci-sis:2010:StatusType:Deleted"


RESPONSE_SUCCESS = "urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Success"
RESPONSE_FAILURE = "urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Failure"
RESPONSE_PARTIAL = "urn:ihe:iti:2007:ResponseStatusType:PartialSuccess"


# --- stored queries (D.4) ---------------------------------------------------------------------------------------------
class StoredQuery:
    """Ids of the stored queries that the client sends (ITI-18)."""

    FIND_DOCUMENTS = "urn:uuid:14d4debf-8f97-4251-9a74-a90016b0af0d"
    FIND_BY_REFERENCE = "urn:uuid:12941a89-e02e-4be5-967c-ce4bfc8fe492"
    GET_DOCUMENTS = "urn:uuid:5c4f972b-d56b-40ac-a5fc-c8ca9b40b9d4"
    FIND_SUBMISSION_SETS = "urn:uuid:f26abbcb-ac74-4422-8a30-edb644bbc1a9"
    GET_ASSOCIATIONS = "urn:uuid:a7ae438b-4bc2-4642-93e9-be891f7bb155"


# --- identifiers of people, structures, references --------------------------------------------------------------------
PROFESSIONALS_OID = "1.2.250.1.71.4.2.1"
STRUCTURES_OID = "1.2.250.1.71.4.2.2"
REFERENCE_SLOT = "urn:ihe:iti:xds:2013:referenceIdList"
REFERENCE_ACCESSION = "urn:ihe:iti:xds:2013:accession"
REFERENCE_ORDER = "urn:ihe:iti:xds:2013:order"
REFERENCE_STUDY = "urn:ihe:iti:xds:2016:studyInstanceUID"

# --- code systems -----------------------------------------------------------------------------------------------------
SECTORS = "1.2.250.1.71.4.2.4"
PROFESSIONS = "1.2.250.1.71.1.2.7"
SPECIALITIES = "1.2.250.1.71.4.2.5"
ACCESS_MODES = "1.2.250.1.213.1.1.4.248"
CONTENT_TYPES = "1.2.250.1.213.2.2"
CLASSES = "1.2.250.1.213.1.1.4.1"
TYPES = "1.2.250.1.213.1.1.4.12"
PRACTICE_SETTINGS = "1.2.250.1.213.1.1.4.9"
CONFIDENTIALITY = "2.16.840.1.113883.5.25"
VISIBILITY = "1.2.250.1.213.1.1.4.13"
DICOM_UIDS = "1.2.840.10008.2.6.1"
MODALITIES = "1.2.840.10008.2.16.4"
SNOMED_CT = "2.16.840.1.113883.6.96"
QUERY_REASONS = "1.2.250.1.213.1.1.4.11"

# One code, three ways to name its scheme, all seen in official samples (decision 10): a search asks for all of them.
MODALITY_SCHEMES = (MODALITIES, "1.2.250.1.213.1.1.5.618")
REGION_SCHEMES = (SNOMED_CT, "1.2.250.1.213.1.1.5.695", "1.2.250.1.213.2.5")

# Professions whose role carries a second value, the speciality (E).
SPECIALISED_PROFESSIONS = frozenset({"10", "21"})

# --- values of the KOS entry and of its signature (D.5, D.7) ----------------------------------------------------------
KOS_MIME = "application/dicom"
KOS_TITLE = "Reference d'Objets d'un Examen d'Imagerie"
KOS_COMMENTS = "KOS"
KOS_CLASS = Coded("31", CLASSES, "Imagerie médicale")
KOS_TYPE = Coded("IMG-KOS", TYPES, "Reference d'objets d'un examen d'imagerie")
KOS_FORMAT = Coded(
    "1.2.840.10008.5.1.4.1.1.88.59",
    DICOM_UIDS,
    "Document de Références d'objets d'imagerie selon profil IHE RAD XDS-I",
)
REPORT_CLASS = Coded("10", CLASSES, "Compte rendu")

NORMAL = Coded("N", CONFIDENTIALITY, "Normal")
MASKED = Coded("MASQUE_PS", VISIBILITY, "Masqué aux professionnels de santé")
HIDDEN_FROM_PATIENT = Coded("INVISIBLE_PATIENT", VISIBILITY, "Non visible par le patient")
HIDDEN_FROM_REPRESENTATIVES = Coded(
    "INVISIBLE_REPRESENTANTS_LEGAUX", VISIBILITY, "Non visible par les représentants légaux du patient"
)

SIGNATURE_MIME = "text/xml"
SIGNATURE_TITLE = "Source"
SIGNATURE_LANGUAGE = "art"
SIGNATURE_CLASS = Coded("urn:oid:1.3.6.1.4.1.19376.1.2.1.1.1", "URN", "Digital Signature")
SIGNATURE_TYPE = Coded("E1762", "ASTM", "Full Document")
SIGNATURE_FORMAT = Coded("http://www.w3.org/2000/09/xmldsig#", "URN", "Default Signature Style")
SIGNATURE_PURPOSE = Coded("1.2.840.10065.1.12.1.14", "1.2.840.10065.1.12", "Source")

# contentTypeCode of the submission set from PV1-2 (HL7v2 volet, mapping page).
CONTENT_TYPE_OF_PATIENT_CLASS = {
    "I": Coded("03", CONTENT_TYPES, "Hospitalisation complète (non compris hospitalisation de semaine)"),
    "O": Coded("07", CONTENT_TYPES, "Consultation Soins Externes"),
    "E": Coded("07", CONTENT_TYPES, "Consultation Soins Externes"),
    "R": Coded("19", CONTENT_TYPES, "Traitement et Cure Ambulatoire"),
    "N": Coded("97", CONTENT_TYPES, "Type d'Activité Indifférencié"),
}


# --- VIHF attributes (E) ----------------------------------------------------------------------------------------------
class VihfName:
    """Names of the attributes of the VIHF, letter for letter."""

    VERSION = "VIHF_Version"
    SECTOR = "Secteur_Activite"
    RESOURCE_URN = "Ressource_URN"
    SUBJECT = "urn:oasis:names:tc:xspa:1.0:subject:subject-id"
    STRUCTURE = "Identifiant_Structure"
    SOFTWARE_ID = "LPS_ID"
    SOFTWARE_NAME = "LPS_Nom"
    HOMOLOGATION = "LPS_ID_HOMOLOGATION_DMP"
    SOFTWARE_VERSION = "LPS_Version"
    PATIENT = "urn:oasis:names:tc:xacml:2.0:resource:resource-id"
    MODE = "Authentification_Mode"
    CONFIDENTIALITY = "urn:oasis:names:tc:xspa:1.0:resource:patient:hl7:confidentiality-code"
    PURPOSE = "urn:oasis:names:tc:xspa:1.0:subject:purposeofuse"
    ROLE = "urn:oasis:names:tc:xacml:2.0:subject:role"
    REASON = "Mode_Acces_Raison"


NAME_ID_X509 = "urn:oasis:names:tc:SAML:1.1:nameid-format:X509SubjectName"
PURPOSE_NORMAL = Coded("normal", ACCESS_MODES, "Accès normal")
PURPOSE_EMERGENCY = Coded("bris_de_glace", ACCESS_MODES, "Accès bris de glace")

# --- modalities of acquisition (CID 29; value set JDV_ModaliteAcquisition of the CI-SIS), with their labels -----------
# A modality that is not here (SR, PR, KO, SEG…) names objects about images: no way to look for an exam.
ACQUISITIONS = {
    "AR": "Autoréfraction",
    "BDUS": "Échodensitométrie osseuse",
    "BI": "Imagerie biomagnétique",
    "BMD": "Ostéodensitométrie",
    "CR": "Radiographie assistée par ordinateur",
    "CT": "Tomodensitométrie",
    "DG": "Diaphanographie",
    "DMS": "Dermoscopie",
    "DX": "Radiographie numérique",
    "ECG": "Électrocardiographie",
    "EEG": "Électroencéphalographie",
    "EMG": "Électromyographie",
    "EOG": "Électrooculographie",
    "EPS": "Électrophysiologie cardiaque",
    "ES": "Endoscopie",
    "GM": "Microscopie générale",
    "HD": "Onde hémodynamique",
    "IO": "Radiographie intrabuccale",
    "IVOCT": "Tomographie par cohérence optique intravasculaire",
    "IVUS": "Ultrasonore intravasculaire",
    "KER": "Kératométrie",
    "LEN": "Lensométrie",
    "LS": "Scan laser",
    "MG": "Mammographie",
    "MR": "Résonance magnétique",
    "NM": "Médecine nucléaire",
    "OAM": "Mesures axiales ophtalmiques",
    "OCT": "Tomographie à cohérence optique",
    "OP": "Photographie ophtalmique",
    "OPM": "Cartographie ophtalmique",
    "OPT": "Tomographie ophtalmique",
    "OPTBSV": "Tomographie ophtalmique B-scan, analyse de volume",
    "OPTENF": "Tomographie ophtalmique en face",
    "OPV": "Champ visuel ophtalmique",
    "OSS": "Scanner optique de surface",
    "POS": "Détecteur de position",
    "PT": "Tomographie par émission de positons",
    "PX": "Radiographie panoramique",
    "RESP": "Onde respiratoire",
    "RF": "Radio-fluoroscopie",
    "RG": "Imagerie radiographique",
    "RTIMAGE": "Image de radiothérapie",
    "SM": "Microscopie à lames",
    "SRF": "Réfraction subjective",
    "TG": "Thermographie",
    "US": "Échographie",
    "VA": "Acuité visuelle",
    "XA": "Angiographie par rayons X",
    "XC": "Photographie externe",
}
