"""Answers of a DMP, as text: what the tests have it say."""

from __future__ import annotations

from dataclasses import dataclass

from drimbox.identity.ins import Ins
from drimbox.national.dmp.codes import HL7, QUERY, RIM, RS, SOAP, WSA, XDSB

ID = "urn:uuid:00000000-0000-4000-8000-000000000001"


def envelope(body: str, relates_to: str = ID) -> str:
    related = f"<wsa:RelatesTo>{relates_to}</wsa:RelatesTo>" if relates_to else ""
    return (
        f'<soap:Envelope xmlns:soap="{SOAP}" xmlns:wsa="{WSA}"><soap:Header>{related}</soap:Header>'
        f"<soap:Body>{body}</soap:Body></soap:Envelope>"
    )


def registry_response(state: str = "Success", errors: str = "", tag: str = "RegistryResponse", ns: str = RS) -> str:
    listed = f'<e:RegistryErrorList xmlns:e="{RS}">{errors}</e:RegistryErrorList>' if errors else ""
    uri = {
        "Success": "urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Success",
        "Failure": "urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Failure",
        "PartialSuccess": "urn:ihe:iti:2007:ResponseStatusType:PartialSuccess",
    }.get(state, state)
    return f'<r:{tag} xmlns:r="{ns}" status="{uri}">{listed}</r:{tag}>'


def extrinsic(entry_id: str, patient: str, unique_id: str = "1.2.3", more: str = "") -> str:
    return (
        f'<ExtrinsicObject id="{entry_id}" status="urn:oasis:names:tc:ebxml-regrep:StatusType:Approved" '
        f'mimeType="application/dicom">{more}'
        '<ExternalIdentifier id="a" registryObject="x" value="'
        + patient.replace("&", "&amp;")
        + '" identificationScheme="urn:uuid:58a6f841-87b3-4a3e-92fd-a8ffeff98427"/>'
        f'<ExternalIdentifier id="b" registryObject="x" value="{unique_id}" '
        'identificationScheme="urn:uuid:2e82c1f6-a085-4c72-9da3-8640a32e42ab"/></ExtrinsicObject>'
    )


def query_response(objects: str | None, state: str = "Success", errors: str = "", total: str = "") -> str:
    listed = f'<RegistryObjectList xmlns="{RIM}">{objects}</RegistryObjectList>' if objects is not None else ""
    bare = registry_response(state, errors, "AdhocQueryResponse", QUERY)
    counted = f' totalResultCount="{total}"' if total else ""
    return bare.replace(' status="', f'{counted} status="', 1).replace(
        "</r:AdhocQueryResponse>", f"{listed}</r:AdhocQueryResponse>"
    )


@dataclass(frozen=True)
class Sent:
    unique_id: str = "1.2.3"
    content: str = "AAEC"


def retrieve_response(*documents: Sent, state: str = "Success", errors: str = "") -> str:
    inside = "".join(
        f"<DocumentResponse><RepositoryUniqueId>1.2</RepositoryUniqueId><DocumentUniqueId>{d.unique_id}</DocumentUniqueId>"
        f"<mimeType>application/dicom</mimeType><Document>{d.content}</Document></DocumentResponse>"
        for d in documents
    )
    return (
        f'<RetrieveDocumentSetResponse xmlns="{XDSB}">{registry_response(state, errors)}{inside}'
        "</RetrieveDocumentSetResponse>"
    )


def existence_response(
    ins: Ins, observations: str = "", *, ack: str = '<typeCode code="AA"/>', code: str = "OK", state: str = "active"
) -> str:
    subject = (
        f'<subject><registrationEvent><subject1><patient><id root="{ins.oid}" extension="{ins.matricule}"/>'
        f'<statusCode code="{state}"/>{observations}</patient></subject1></registrationEvent></subject>'
    )
    return (
        f'<PRPA_IN201308UV02 xmlns="{HL7}"><acknowledgement>{ack}</acknowledgement><controlActProcess>'
        f'{subject if code == "OK" else ""}<queryAck><queryResponseCode code="{code}"/></queryAck></controlActProcess>'
        "</PRPA_IN201308UV02>"
    )
