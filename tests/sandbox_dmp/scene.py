"""A sandbox DMP, the structures that call it, and requests to it: right ones, and bent ones."""

from __future__ import annotations

import datetime as dt
import email
import email.policy
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lxml import etree

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.uids import new_uid, new_uuid_urn, new_xml_id
from drimbox.sandbox.dmp import Dmp, KnownPatient, KnownStructure, Policy, RecordStatus
from drimbox.sandbox.dmp.answers import HttpAnswer
from drimbox.sandbox.dmp.faults import FaultKind
from drimbox.sandbox.dmp.packaging import HttpRequest
from drimbox.sandbox.pki import Profile, TestAuthority
from sandbox_dmp import metadata as md
from sandbox_dmp.kos_files import kos_file
from sandbox_dmp.signing import Bend, Element, Signer, sign_assertion, xades

SOAP = "http://www.w3.org/2003/05/soap-envelope"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
RS = "urn:oasis:names:tc:ebxml-regrep:xsd:rs:3.0"
BASE = "/si-dmp-server/v2/services"

INS, OID = "279035121518989", "1.2.250.1.213.1.4.10"
PATIENT = f"{INS}^^^&{OID}&ISO^NH"
CLOSED = f"162018885045327^^^&{OID}&ISO^NH"
NO_RECORD = f"207058575627097^^^&{OID}&ISO^NH"
STRUCTURE, LEGAL, OTHER, REFUSED_STRUCTURE = "1750803447", "1750000001", "1690000017", "1130000018"
USER = "899700367909"
ACCESSION, ORDER = ("ACN105", "1.2.250.1.213.4.5.5.1"), ("OPN105", "1.2.250.1.213.4.5.5.2")

PROVIDE = "urn:ihe:iti:2007:ProvideAndRegisterDocumentSet-b"
QUERY = "urn:ihe:iti:2007:RegistryStoredQuery"
RETRIEVE = "urn:ihe:iti:2007:RetrieveDocumentSet"
UPDATE = "urn:ihe:iti:2010:UpdateDocumentSet"
EXISTENCE = "urn:hl7-org:v3:PRPA_IN201307UV02"
AUTHORISE = "urn:si-dmp-habilitations:HabilitationsEndPoint:setAuthorization"


@dataclass(frozen=True)
class Pair:
    """The two certificates of a structure."""

    auth: Signer
    sign: Signer

    @staticmethod
    def of(authority: TestAuthority, unit: str) -> Pair:
        def issue(profile: Profile, name: str) -> Signer:
            return Signer.of(
                authority.issue(
                    profile, f"{name}-{unit}", common_name="DRIMbox", unit=unit, organisation=f"STRUCTURE {unit}"
                )
            )

        return Pair(issue(Profile.ORG_AUTH_CLI, "auth"), issue(Profile.ORG_SIGN, "sign"))


@dataclass(frozen=True)
class Caller:
    """Who calls, and on whom."""

    pair: Pair
    structure: str = STRUCTURE
    patient: str = PATIENT
    mode: str = "INDIRECTE"
    user: str = USER
    purpose: str = "normal"

    def reinforced(self) -> Caller:
        return replace(self, mode="INDIRECTE_RENFORCEE")


@dataclass(frozen=True)
class Bends:
    """What to bend, and when. Each is applied to the element named, in place."""

    assertion: Bend | None = None
    signature: Bend | None = None
    assertion_signed: Bend | None = None
    envelope: Bend | None = None
    body: Bend | None = None
    kos: Callable[[object], None] | None = None
    kos_octets: Callable[[bytes], bytes] | None = None
    xades: Bend | None = None
    xades_signed: Bend | None = None
    xades_octets: Callable[[bytes], bytes] | None = None
    sha1_vihf: bool = False
    sha1_xades: bool = False
    xades_signer: Signer | None = None
    vihf_signer: Signer | None = None


@dataclass(frozen=True)
class Wire:
    """A request as it goes on the wire."""

    service: str
    content_type: str
    body: bytes
    certificate: bytes | None
    path: str
    unique_id: str = ""
    content: bytes = b""

    def request(self) -> HttpRequest:
        headers = {"content-type": self.content_type, "host": "dmp.example.test"}
        return HttpRequest(self.service, self.path, headers, self.body, self.certificate)

    def bent(self, before: bytes | str, after: bytes | str) -> Wire:
        """The same with octets of the body (bytes) or text of the Content-Type (str) changed; they must be there."""
        if isinstance(before, str):
            assert before in self.content_type
            return replace(self, content_type=self.content_type.replace(before, str(after)))
        assert isinstance(after, bytes)
        assert before in self.body
        return replace(self, body=self.body.replace(before, after))


@dataclass(frozen=True)
class Answered:
    """An answer, read apart from the project's own code."""

    status: int
    envelope: Element
    parts: dict[str, bytes]
    content_type: str

    @staticmethod
    def of(answer: HttpAnswer) -> Answered:
        return Answered.read(answer.status, answer.media_type, answer.body)

    @staticmethod
    def read(status: int, media_type: str, body: bytes) -> Answered:
        if not media_type.startswith("multipart/"):
            return Answered(status, etree.fromstring(body), {}, media_type)
        raw = b"Content-Type: " + media_type.encode() + b"\r\nMIME-Version: 1.0\r\n\r\n" + body
        parsed = email.message_from_bytes(raw, policy=email.policy.HTTP)
        parts = {p["Content-ID"][1:-1]: p.get_payload(decode=True) for p in parsed.iter_parts()}  # type: ignore[attr-defined]
        root = parts.pop(parsed.get_param("start")[1:-1])  # type: ignore[index,union-attr,arg-type]
        return Answered(status, etree.fromstring(root), parts, media_type)

    def text(self, path: str) -> str:
        found = self.envelope.find(path)
        return (found.text or "") if found is not None else ""

    @property
    def body(self) -> Element:
        return self.envelope.find(f"{{{SOAP}}}Body")[0]  # type: ignore[index]

    @property
    def outcome(self) -> str:
        found = next(e for e in self.envelope.iter(etree.Element) if e.get("status") is not None)
        return found.get("status", "").rpartition(":")[2]

    @property
    def errors(self) -> list[tuple[str, str]]:
        """(errorCode, rule) of each registry error."""
        return [
            (e.get("errorCode", ""), e.get("location", "").split(" ")[0])
            for e in self.envelope.iter(f"{{{RS}}}RegistryError")
        ]

    @property
    def fault(self) -> tuple[str, str, str]:
        """(Code, Subcode, rule) of the fault; empty strings when there is none."""
        values = [e.text or "" for e in self.envelope.iter(f"{{{SOAP}}}Value")]
        rule = self.text(f".//{{{SOAP}}}Detail/{{*}}Rule")
        return (values[0], values[1] if len(values) > 1 else "", rule) if values else ("", "", "")

    @property
    def broken(self) -> tuple[str, str]:
        """The rule that was broken, and the code by which it was told; empty when all was well."""
        if self.errors:
            return self.errors[0][1], self.errors[0][0]
        code, subcode, rule = self.fault
        return rule, subcode or code.removeprefix("soap:")

    def found(self) -> list[Element]:
        """The objects of a query answer."""
        listed = self.body.find(f"{{{md.RIM}}}RegistryObjectList")
        return list(listed) if listed is not None else []


@dataclass
class Scene:
    """A DMP, its clock, and the certificates of the structures around it."""

    dmp: Dmp
    clock: FixedClock
    authority: TestAuthority
    pairs: dict[str, Pair]
    no_bends: Bends = field(default_factory=Bends)

    def send(self, wire: Wire, *, ordered: FaultKind | None = None) -> Answered:
        return Answered.of(self.dmp.judge(wire.request(), ordered=ordered))

    def caller(self, unit: str = STRUCTURE, **changes: str) -> Caller:
        return replace(Caller(self.pairs[unit], structure=changes.pop("structure", unit)), **changes)  # type: ignore[arg-type]

    def reader(self, **changes: str) -> Caller:
        return self.caller(**changes).reinforced()

    # --- requests ---------------------------------------------------------------------------------------------------

    def message(self, caller: Caller, service: str, action: str, body: Element, bends: Bends) -> Element:
        """The envelope, its assertion signed in place."""
        to = f"https://dmp.example.test{BASE}/{service}"
        head = f"""<soap:Envelope xmlns:soap="{SOAP}" xmlns:wsa="http://www.w3.org/2005/08/addressing"><soap:Header>\
<wsa:MessageID>{new_uuid_urn()}</wsa:MessageID><wsa:To>{to}</wsa:To>\
<wsa:Action soap:mustUnderstand="true">{action}</wsa:Action>\
<wsse:Security xmlns:wsse="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"/>\
</soap:Header><soap:Body/></soap:Envelope>"""
        envelope = etree.fromstring(head)
        assertion = self.assertion(caller)
        _bend(bends.assertion, assertion)
        security = envelope.find(f"{{{SOAP}}}Header")[3]  # type: ignore[index]
        security.append(assertion)
        _bend(bends.body, body)
        envelope[1].append(body)
        signer = bends.vihf_signer or caller.pair.sign
        sign_assertion(assertion, signer, sha1=bends.sha1_vihf, bend=bends.signature)
        _bend(bends.assertion_signed, assertion)
        _bend(bends.envelope, envelope)
        return envelope

    def assertion(self, caller: Caller) -> Element:
        now = self.clock.now().strftime("%Y-%m-%dT%H:%M:%S.000Z")
        ce = 'xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CE"'
        role = "urn:oasis:names:tc:xacml:2.0:subject:role"
        plain = {
            "VIHF_Version": "3.0",
            "Authentification_Mode": caller.mode,
            "Identifiant_Structure": caller.structure,
            "Secteur_Activite": "SA05^1.2.250.1.71.4.2.4",
            "urn:oasis:names:tc:xspa:1.0:subject:subject-id": "KIT DOC0036790",
            "urn:oasis:names:tc:xacml:2.0:resource:resource-id": caller.patient.replace("&", "&amp;"),
            "Ressource_URN": "urn:dmp",
            "LPS_Nom": "drimbox",
            "LPS_Version": "1.0",
            "LPS_ID_HOMOLOGATION_DMP": "TEST-000000",
            **({} if caller.purpose == "normal" else {"Mode_Acces_Raison": "Urgence vitale"}),
        }
        attributes = "".join(
            f'<saml:Attribute Name="{name}"><saml:AttributeValue>{value}</saml:AttributeValue></saml:Attribute>'
            for name, value in plain.items()
        )
        issuer = caller.pair.sign.dn
        air = "<saml:AuthnContextDecl>APP_BROWSER_AUTH</saml:AuthnContextDecl>" if "RENF" in caller.mode else ""
        return etree.fromstring(f"""<saml:Assertion xmlns:saml="{SAML}" ID="{new_xml_id()}" IssueInstant="{now}" \
Version="2.0"><saml:Issuer Format="urn:oasis:names:tc:SAML:1.1:nameid-format:X509SubjectName">{issuer}</saml:Issuer>\
<saml:Subject><saml:NameID>{caller.user}</saml:NameID></saml:Subject><saml:AuthnStatement AuthnInstant="{now}">\
<saml:AuthnContext><saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:Password\
</saml:AuthnContextClassRef>{air}</saml:AuthnContext></saml:AuthnStatement><saml:AttributeStatement>{attributes}\
<saml:Attribute Name="urn:oasis:names:tc:xspa:1.0:subject:purposeofuse"><saml:AttributeValue><PurposeOfUse {ce} \
code="{caller.purpose}" codeSystem="1.2.250.1.213.1.1.4.248" codeSystemName="mode acces VIHF 1.0" \
displayName="Accès normal"/></saml:AttributeValue></saml:Attribute>\
<saml:Attribute Name="{role}"><saml:AttributeValue><Role {ce} code="10" codeSystem="1.2.250.1.71.1.2.7" \
displayName="Médecin"/></saml:AttributeValue><saml:AttributeValue><Role {ce} code="SM26" \
codeSystem="1.2.250.1.71.4.2.5" displayName="Qualifié en médecine générale (SM)"/></saml:AttributeValue>\
</saml:Attribute></saml:AttributeStatement></saml:Assertion>""")

    def plain(self, caller: Caller, service: str, action: str, body: Element | str, bends: Bends | None = None) -> Wire:
        """A message without attachments."""
        element = etree.fromstring(body) if isinstance(body, str) else body
        envelope = self.message(caller, service, action, element, bends or self.no_bends)
        return Wire(
            service,
            f'application/soap+xml; charset=UTF-8; action="{action}"',
            etree.tostring(envelope, encoding="UTF-8", xml_declaration=True),
            caller.pair.auth.der,
            f"{BASE}/{service}",
        )

    def publication(
        self,
        caller: Caller | None = None,
        *,
        bends: Bends | None = None,
        replaces: str = "",
        masks: Sequence[str] = (),
        unique_id: str = "",
        site: str = STRUCTURE,
        study: str = "",
        accession: tuple[str, str] = ACCESSION,
    ) -> Wire:
        """An ITI-41 message with one KOS and its signature."""
        caller, bends = caller or self.caller(), bends or self.no_bends
        ins, oid = caller.patient.split("^")[0], caller.patient.split("&")[1]
        kos_id, sign_id, set_id = unique_id or new_uid(), new_uid(), new_uid()
        study = study or new_uid()[:50].rstrip(".")
        now = self.clock.now().replace(microsecond=0)
        created = now - dt.timedelta(minutes=1)
        kos = kos_file(
            uid=kos_id, study=study, created=created, ins=ins, oid=oid, accession=accession, order=ORDER, bend=bends.kos
        )
        kos = bends.kos_octets(kos) if bends.kos_octets else kos
        signature = xades(
            identifier=new_xml_id(),
            set_id=set_id,
            documents={kos_id: kos},
            signer=bends.xades_signer or caller.pair.sign,
            when=now,
            sha1=bends.sha1_xades,
            bend=bends.xades,
            bend_signed=bends.xades_signed,
        )
        signature = bends.xades_octets(signature) if bends.xades_octets else signature
        references = [
            f"{accession[0]}^^^&{accession[1]}&ISO^urn:ihe:iti:xds:2013:accession",
            f"{ORDER[0]}^^^&{ORDER[1]}&ISO^urn:ihe:iti:xds:2013:order",
            f"{study}^^^^urn:ihe:iti:xds:2016:studyInstanceUID",
        ]
        digits = now.strftime("%Y%m%d%H%M%S")
        common = {"patient": caller.patient, "structure": site, "now": digits}
        associations = [
            md.association(md.HAS_MEMBER, "SubmissionSet01", "DocumentKOS", SubmissionSetStatus="Original"),
            md.association(md.HAS_MEMBER, "SubmissionSet01", "Signature01", SubmissionSetStatus="Original"),
            md.association(md.SIGNS, "Signature01", "SubmissionSet01", SubmissionSetStatus="Original"),
        ]
        if replaces:
            associations.append(md.association(md.RPLC, "DocumentKOS", replaces))
        submission = md.submit_objects(
            md.submission_set(uid=set_id, **common),
            md.kos_entry(
                owner="DocumentKOS",
                uid=kos_id,
                content=kos,
                created=created.strftime("%Y%m%d%H%M%S"),
                references=references,
                masks=masks,
                **common,
            ),
            md.signature_entry(uid=sign_id, content=signature, **common),
            *associations,
        )
        body = etree.fromstring("""<xdsb:ProvideAndRegisterDocumentSetRequest xmlns:xdsb="urn:ihe:iti:xds-b:2007">\
<xdsb:Document xmlns:xop="http://www.w3.org/2004/08/xop/include" id="DocumentKOS"><xop:Include href="cid:0.2"/>\
</xdsb:Document><xdsb:Document xmlns:xop="http://www.w3.org/2004/08/xop/include" id="Signature01">\
<xop:Include href="cid:0.3"/></xdsb:Document></xdsb:ProvideAndRegisterDocumentSetRequest>""")
        body.insert(0, submission)
        envelope = etree.tostring(self.message(caller, "repository", PROVIDE, body, bends), encoding="UTF-8")
        content_type, octets = multipart(envelope, {"0.2": kos, "0.3": signature})
        return Wire("repository", content_type, octets, caller.pair.auth.der, f"{BASE}/repository", kos_id, kos)

    def status_change(
        self, caller: Caller, target: str, *, before: str, after: str, bends: Bends | None = None
    ) -> Wire:
        """An ITI-57 message."""
        now = self.clock.now().strftime("%Y%m%d%H%M%S")
        body = md.submit_objects(
            md.submission_set(uid=new_uid(), patient=caller.patient, structure=STRUCTURE, now=now),
            md.association(md.UPDATE_STATUS, "SubmissionSet01", target, OriginalStatus=before, NewStatus=after),
        )
        return self.plain(caller, "registry", UPDATE, body, bends)

    def query(
        self,
        caller: Caller,
        identifier: str,
        slots: Sequence[tuple[str, str]],
        *,
        returns: str = "LeafClass",
        bends: Bends | None = None,
    ) -> Wire:
        """An ITI-18 message."""
        told = "".join(md.slot(name, value) for name, value in slots)
        body = f"""<q:AdhocQueryRequest xmlns:q="urn:oasis:names:tc:ebxml-regrep:xsd:query:3.0" xmlns="{md.RIM}">\
<q:ResponseOption returnComposedObjects="true" returnType="{returns}"/>\
<AdhocQuery id="urn:uuid:{identifier}">{told}</AdhocQuery></q:AdhocQueryRequest>"""
        return self.plain(caller, "registry", QUERY, body, bends)

    def retrieval(self, caller: Caller, *unique_ids: str, repository: str = "", bends: Bends | None = None) -> Wire:
        """An ITI-43 message."""
        repository = repository or self.dmp.policy.repository
        asked = "".join(
            f"<DocumentRequest><RepositoryUniqueId>{repository}</RepositoryUniqueId>"
            f"<DocumentUniqueId>{uid}</DocumentUniqueId></DocumentRequest>"
            for uid in unique_ids
        )
        body = f'<RetrieveDocumentSetRequest xmlns="urn:ihe:iti:xds-b:2007">{asked}</RetrieveDocumentSetRequest>'
        return self.plain(caller, "repository", RETRIEVE, body, bends)

    def existence(self, caller: Caller, bends: Bends | None = None) -> Wire:
        """A TD0.2 message."""
        ins, oid = caller.patient.split("^")[0], caller.patient.split("&")[1]
        body = f"""<PRPA_IN201307UV02 xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
ITSVersion="XML_1.0"><id root="1.2.250.1.999.1" extension="{uuid.uuid4()}"/><creationTime value="20240101101010"/>\
<interactionId root="2.16.840.1.113883.1.6" extension="PRPA_IN201307UV02"/><processingCode code="D"/>\
<processingModeCode code="T"/><acceptAckCode code="AL"/><receiver typeCode="RCV"><device classCode="DEV" \
determinerCode="INSTANCE"><id root="1.2.250.1.213.4.1.1.1"/><softwareName>DMP</softwareName></device></receiver>\
<sender typeCode="SND"><device classCode="DEV" determinerCode="INSTANCE"><id root="1.2.250.1.999.1"/>\
<softwareName>drimbox</softwareName></device></sender><attentionLine xsi:nil="true"/>\
<controlActProcess classCode="CACT" moodCode="EVN"><reasonCode code="TEST_EXST" codeSystem="1.2.250.1.213.1.1.4.11" \
displayName="Test d'existence de dossier"/><queryByParameter><queryId root="1.2.250.1.999.1" extension="q1"/>\
<statusCode code="new"/><parameterList><dataSource xsi:nil="true"/><patientIdentifier><value root="{oid}" \
extension="{ins}"/><semanticsText>Patient.id</semanticsText></patientIdentifier></parameterList></queryByParameter>\
</controlActProcess></PRPA_IN201307UV02>"""
        return self.plain(caller, "patients", EXISTENCE, body, bends)

    def authorise(self, caller: Caller, action: str = "AJOUT", bends: Bends | None = None) -> Wire:
        """A TD0.3 message."""
        body = f'<setAuthorization xmlns="urn:si-dmp-habilitations"><action>{action}</action></setAuthorization>'
        return self.plain(caller, "habilitations", AUTHORISE, body, bends)

    # --- shortcuts --------------------------------------------------------------------------------------------------

    def published(self, caller: Caller | None = None, **options: object) -> tuple[Wire, str]:
        """Publish a KOS; the message and the entryUUID that the DMP gave it."""
        wire = self.publication(caller, **options)  # type: ignore[arg-type]
        answered = self.send(wire)
        assert answered.outcome == "Success", (answered.broken, etree.tostring(answered.envelope))
        entry = self.dmp.store.entry(unique_id=wire.unique_id)
        assert entry is not None
        return wire, entry.uuid


def multipart(envelope: bytes, attachments: dict[str, bytes]) -> tuple[str, bytes]:
    """Content-Type and body of a MTOM message."""
    boundary = "MIMEBoundary_Bound"
    root = 'application/xop+xml; charset=UTF-8; type="application/soap+xml"'
    octet = "application/octet-stream"
    body = b""
    for content_id, (media, content) in {
        "0.1": (root, envelope),
        **{cid: (octet, content) for cid, content in attachments.items()},
    }.items():
        body += (
            f"--{boundary}\r\nContent-Type: {media}\r\nContent-Transfer-Encoding: binary\r\n"
            f"Content-ID: <{content_id}>\r\n\r\n"
        ).encode()
        body += content + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return (
        f'multipart/related; type="application/xop+xml"; boundary="{boundary}"; start="<0.1>"; '
        f'start-info="application/soap+xml"; action="{PROVIDE}"',
        body,
    )


def structures(authority: TestAuthority) -> dict[str, Pair]:
    """The certificates of the structures that the DMP knows."""
    return {unit: Pair.of(authority, unit) for unit in (STRUCTURE, LEGAL, OTHER, REFUSED_STRUCTURE)}


def open_scene(
    folder: Path,
    authority: TestAuthority,
    pairs: dict[str, Pair],
    *,
    schemas: Path | None = None,
    policy: Policy | None = None,
) -> Scene:
    """A DMP in ``folder``, at the present time of a clock that stands still."""
    clock = FixedClock(dt.datetime.now(dt.UTC))
    dmp = Dmp(
        state=folder,
        trust_roots=[authority.roots],
        revocation_lists=authority.revocation_lists,
        schema_dir=schemas,
        structures=[
            KnownStructure(STRUCTURE, "Centre", legal_identifier=LEGAL),
            KnownStructure(OTHER, "Autre centre"),
            KnownStructure(REFUSED_STRUCTURE, "Centre refusé", allowed=False),
        ],
        patients=[
            KnownPatient(INS, OID, "PAT-TROIS", "DOMINIQUE", "19790328", "F"),
            KnownPatient(
                CLOSED[:15], OID, "PAT-SIX", "ALAIN", "19960112", "M", RecordStatus.CLOSED, "20240301", ("2", "Demande")
            ),
            KnownPatient(NO_RECORD[:15], OID, "PAT-SANS", "DOSSIER", "19800101", "F", RecordStatus.NONE),
        ],
        clock=clock,
        policy=policy or Policy(),
    )
    return Scene(dmp, clock, authority, pairs)


def _bend(bend: Bend | None, element: Element) -> None:
    if bend is not None:
        bend(element)
