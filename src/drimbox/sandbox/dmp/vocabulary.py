"""The names, OIDs and codes that the judge knows (standards.md D and E): written again here, on purpose."""

from __future__ import annotations

from drimbox.sandbox.dmp.rules import Fault

# Namespaces.
SOAP = "http://www.w3.org/2003/05/soap-envelope"
SOAP_11 = "http://schemas.xmlsoap.org/soap/envelope/"
WSA = "http://www.w3.org/2005/08/addressing"
WSSE = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
DS = "http://www.w3.org/2000/09/xmldsig#"
XADES = "http://uri.etsi.org/01903/v1.1.1#"
HL7 = "urn:hl7-org:v3"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
XOP = "http://www.w3.org/2004/08/xop/include"
RIM = "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"
RS = "urn:oasis:names:tc:ebxml-regrep:xsd:rs:3.0"
LCM = "urn:oasis:names:tc:ebxml-regrep:xsd:lcm:3.0"
QUERY = "urn:oasis:names:tc:ebxml-regrep:xsd:query:3.0"
XDSB = "urn:ihe:iti:xds-b:2007"
HABILITATIONS = "urn:si-dmp-habilitations"
SANDBOX = "urn:drimbox:sandbox:dmp"

# Where the services live, and the SOAP actions (standards.md D.1).
SERVICES_PATH = "/si-dmp-server/v2/services"
PROVIDE = "urn:ihe:iti:2007:ProvideAndRegisterDocumentSet-b"
STORED_QUERY = "urn:ihe:iti:2007:RegistryStoredQuery"
RETRIEVE = "urn:ihe:iti:2007:RetrieveDocumentSet"
UPDATE = "urn:ihe:iti:2010:UpdateDocumentSet"
EXISTENCE = "urn:hl7-org:v3:PRPA_IN201307UV02"
AUTHORISE = "urn:si-dmp-habilitations:HabilitationsEndPoint:setAuthorization"

# Addressing.
ANONYMOUS = "http://www.w3.org/2005/08/addressing/anonymous"

# ebRIM nodes and schemes (standards.md D.3).
SUBMISSION_SET = "urn:uuid:a54d6aa5-d40d-43f9-88c5-b4633d873bdd"
STABLE_DOCUMENT = "urn:uuid:7edca82f-054d-47f2-a032-9b2a5b5186c1"
SET_AUTHOR = "urn:uuid:a7058bb9-b4e4-4307-ba5b-e3f0ab85e12d"
SET_CONTENT_TYPE = "urn:uuid:aa543740-bdda-424e-8c96-df4873be8500"
SET_PATIENT = "urn:uuid:6b5aea1a-874d-4603-a4bc-96a0a7b38446"
SET_SOURCE = "urn:uuid:554ac39e-e3fe-47fe-b233-965d2a147832"
SET_UNIQUE = "urn:uuid:96fdda7c-d067-4183-912e-bf5ee74998a8"
ENTRY_AUTHOR = "urn:uuid:93606bcf-9494-43ec-9b4e-a7748d1a838d"
ENTRY_CLASS = "urn:uuid:41a5887f-8865-4c09-adf7-e362475b143a"
ENTRY_TYPE = "urn:uuid:f0306f51-975f-434e-a61c-c59651d33983"
ENTRY_CONFIDENTIALITY = "urn:uuid:f4f85eac-e6cb-4883-b524-f2705394840f"
ENTRY_EVENT = "urn:uuid:2c6b8cb7-8b2a-4051-b291-b1ae6a575ef4"
ENTRY_FORMAT = "urn:uuid:a09d5840-386c-46f2-b5ad-9c3699a4309d"
ENTRY_FACILITY = "urn:uuid:f33fb8ac-18af-42cc-ae0e-ed0b0bdb91e1"
ENTRY_PRACTICE = "urn:uuid:cccf5598-8b07-4b77-a05e-ae952c785ead"
ENTRY_PATIENT = "urn:uuid:58a6f841-87b3-4a3e-92fd-a8ffeff98427"
ENTRY_UNIQUE = "urn:uuid:2e82c1f6-a085-4c72-9da3-8640a32e42ab"

EXTRINSIC_OBJECT_TYPE = STABLE_DOCUMENT
REGISTRY_PACKAGE_TYPE = "urn:oasis:names:tc:ebxml-regrep:ObjectType:RegistryObject:RegistryPackage"

# Associations and statuses.
HAS_MEMBER = "urn:oasis:names:tc:ebxml-regrep:AssociationType:HasMember"
REPLACES = "urn:ihe:iti:2007:AssociationType:RPLC"
SIGNS = "urn:ihe:iti:2007:AssociationType:signs"
UPDATE_STATUS = "urn:ihe:iti:2010:AssociationType:UpdateAvailabilityStatus"
APPROVED = "urn:oasis:names:tc:ebxml-regrep:StatusType:Approved"
DEPRECATED = "urn:oasis:names:tc:ebxml-regrep:StatusType:Deprecated"
ARCHIVED = "urn:asip:ci-sis:2010:StatusType:Archived"
DELETED = "urn:asip:ci-sis:2010:StatusType:Deleted"

# Answers.
SUCCESS = "urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Success"
FAILURE = "urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Failure"
PARTIAL = "urn:ihe:iti:2007:ResponseStatusType:PartialSuccess"
ERROR = "urn:oasis:names:tc:ebxml-regrep:ErrorSeverityType:Error"

# Identifier systems (standards.md D.5, J.1).
PERSONS = "1.2.250.1.71.4.2.1"
STRUCTURES = "1.2.250.1.71.4.2.2"
INS_OIDS = frozenset({f"1.2.250.1.213.1.4.{n}" for n in (8, 9, 10, 11)})

# Code systems.
PROFESSIONS = "1.2.250.1.71.1.2.7"
AUTOMATS = "1.2.250.1.213.1.1.4.6"
SPECIALITIES = "1.2.250.1.71.4.2.5"
PURPOSES = "1.2.250.1.213.1.1.4.248"
FACILITIES = "1.2.250.1.71.4.2.4"
PRACTICES = "1.2.250.1.213.1.1.4.9"
CLASSES = "1.2.250.1.213.1.1.4.1"
IMAGING_TYPES = "1.2.250.1.213.1.1.4.12"
LOINC = "2.16.840.1.113883.6.1"
DICOM_UIDS = "1.2.840.10008.2.6.1"
CONFIDENTIALITY = "2.16.840.1.113883.5.25"
MASKS = "1.2.250.1.213.1.1.4.13"
CONTENT_TYPES = "1.2.250.1.213.2.2"
# Samples disagree on the schemes of eventCodeList; all that stand in a sample are taken (decision 10).
MODALITY_SCHEMES = frozenset({"1.2.840.10008.2.16.4", "1.2.250.1.213.1.1.5.618"})
REGION_SCHEMES = frozenset({"2.16.840.1.113883.6.96", "1.2.250.1.213.2.5", "1.2.250.1.213.1.1.5.695"})

MASKED_TO_PROFESSIONALS = "MASQUE_PS"
HIDDEN_FROM_PATIENT = "INVISIBLE_PATIENT"
HIDDEN_FROM_REPRESENTATIVES = "INVISIBLE_REPRESENTANTS_LEGAUX"

MODALITIES = frozenset(
    {
        "AR",
        "BDUS",
        "BI",
        "BMD",
        "CR",
        "CT",
        "DG",
        "DMS",
        "DX",
        "ECG",
        "EEG",
        "EMG",
        "EOG",
        "EPS",
        "ES",
        "GM",
        "HD",
        "IO",
        "IVOCT",
        "IVUS",
        "KER",
        "LEN",
        "LS",
        "MG",
        "MR",
        "NM",
        "OAM",
        "OCT",
        "OP",
        "OPM",
        "OPT",
        "OPTBSV",
        "OPTENF",
        "OPV",
        "OSS",
        "POS",
        "PT",
        "PX",
        "RESP",
        "RF",
        "RG",
        "RTIMAGE",
        "SM",
        "SRF",
        "TG",
        "US",
        "VA",
        "XA",
        "XC",
    }
)
REGIONS = frozenset(
    {
        "63337009",
        "38266002",
        "53120007",
        "61685007",
        "67734004",
        "69536005",
        "45048000",
        "774007",
        "113257007",
        "80891009",
        "76752008",
        "786880003",
        "737561001",
    }
)
PROFESSION_CODES = frozenset(
    {
        "10",
        "21",
        "26",
        "28",
        "31",
        "35",
        "40",
        "41",
        "50",
        "60",
        "69",
        "70",
        "71",
        "72",
        "73",
        "80",
        "81",
        "82",
        "83",
        "84",
        "85",
        "86",
        "91",
        "92",
        "93",
        "94",
        "95",
        "96",
        "97",
        "98",
    }
)

KOS_SOP_CLASS = "1.2.840.10008.5.1.4.1.1.88.59"
REFERENCES_SLOT = "urn:ihe:iti:xds:2013:referenceIdList"
ACCESSION_REFERENCE = "urn:ihe:iti:xds:2013:accession"
ORDER_REFERENCE = "urn:ihe:iti:xds:2013:order"
STUDY_REFERENCE = "urn:ihe:iti:xds:2016:studyInstanceUID"

# Faults.
MALFORMED = Fault(400, "Sender", "dmp:MalformedRequest")
UNSUPPORTED_MEDIA = Fault(415, "Sender", "dmp:UnsupportedMediaType")
TOO_LARGE = Fault(413, "Sender", "dmp:RequestTooLarge")
VERSION_MISMATCH = Fault(500, "VersionMismatch")
MUST_UNDERSTAND = Fault(500, "MustUnderstand")
INVALID_ADDRESSING = Fault(400, "Sender", "wsa:InvalidAddressingHeader")
ADDRESSING_REQUIRED = Fault(400, "Sender", "wsa:MessageAddressingHeaderRequired")
ACTION_NOT_SUPPORTED = Fault(400, "Sender", "wsa:ActionNotSupported")
INVALID_SECURITY = Fault(400, "Sender", "wsse:InvalidSecurity")
INVALID_TOKEN = Fault(400, "Sender", "wsse:InvalidSecurityToken")
FAILED_CHECK = Fault(400, "Sender", "wsse:FailedCheck")
FAILED_AUTHENTICATION = Fault(403, "Sender", "wsse:FailedAuthentication")
NOT_ALLOWED = Fault(400, "Sender", "dmp:NotAllowed")

# Error codes of the registry. Those that begin with DMP stand for national ones whose spelling is not public.
REPOSITORY_METADATA = "XDSRepositoryMetadataError"
REGISTRY_METADATA = "XDSRegistryMetadataError"
MISSING_DOCUMENT = "XDSMissingDocument"
MISSING_METADATA = "XDSMissingDocumentMetadata"
INVALID_CONTENT = "InvalidDocumentContent"
LOCAL_POLICY = "LocalPolicyRestrictionError"
UNKNOWN_PATIENT = "XDSUnknownPatientId"
RECORD_CLOSED = "DMPRecordClosed"
ACCESS_DENIED = "DMPAccessDenied"
