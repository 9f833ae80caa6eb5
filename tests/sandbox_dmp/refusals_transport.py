"""Requests that break the rules of connection, packaging, envelope and addressing."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from drimbox.sandbox.pki import Profile, TestAuthority
from sandbox_dmp.bending import Case, added, also, edit, feed, twice, without
from sandbox_dmp.scene import REFUSED_STRUCTURE, STRUCTURE, Bends, Scene, Wire
from sandbox_dmp.signing import Signer

OCTETS = (
    b"--MIMEBoundary_Bound\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n"
    b"Content-ID: <"
)
MALFORMED, MEDIA = "dmp:MalformedRequest", "dmp:UnsupportedMediaType"
DOOR = "wsse:FailedAuthentication"
ADDRESSING, NEEDED = "wsa:InvalidAddressingHeader", "wsa:MessageAddressingHeaderRequired"


def with_certificate(scene: Scene, der: bytes | None) -> Wire:
    return replace(scene.publication(), certificate=der)


def issued(scene: Scene, name: str, profile: Profile = Profile.ORG_AUTH_CLI, unit: str = STRUCTURE) -> Signer:
    return Signer.of(scene.authority.issue(profile, name, common_name="DRIMbox", unit=unit, organisation="STRUCTURE"))


def stranger(scene: Scene) -> bytes:
    """A certificate of an authority of the same name with other keys."""
    other = TestAuthority(scene.authority.folder / "stranger")
    pair = other.issue(Profile.ORG_AUTH_CLI, "auth", common_name="DRIMbox", unit=STRUCTURE, organisation="STRUCTURE")
    return Signer.of(pair).der


def expired(scene: Scene) -> bytes:
    start = dt.datetime.now(dt.UTC) - dt.timedelta(days=30)
    pair = scene.authority.issue(
        Profile.ORG_AUTH_CLI, "expired", common_name="DRIMbox", unit=STRUCTURE, organisation="STRUCTURE",
        not_before=start, not_after=start + dt.timedelta(days=1),
    )  # fmt: skip
    return Signer.of(pair).der


def revoked(scene: Scene) -> bytes:
    signer = issued(scene, "revoked")
    scene.authority.revoke(signer.pair)
    return signer.der


def replayed_message(scene: Scene) -> Wire:
    wire = scene.existence(scene.caller())
    scene.send(wire)
    return wire


def reused_assertion(scene: Scene) -> Wire:
    """The signed assertion of a first message, in a second one with a MessageID of its own."""
    message_id = edit("//wsa:MessageID", text="urn:uuid:00000000-0000-4000-8000-000000000001")
    first = scene.existence(scene.caller(), Bends(envelope=message_id))
    scene.send(first)
    return first.bent(b"urn:uuid:00000000-0000-4000", b"urn:uuid:10000000-0000-4000")


def other_action(scene: Scene, action: str, service: str = "registry") -> Wire:
    """A TD0.2 body at a service, under an action."""
    wire = scene.existence(scene.caller(), Bends(envelope=also(
        edit("//wsa:Action", text=action), edit("//wsa:To", text=f"https://d/si-dmp-server/v2/services/{service}")
    )))  # fmt: skip
    path = f"/si-dmp-server/v2/services/{service}"
    return replace(wire, service=service, path=path).bent("urn:hl7-org:v3:PRPA_IN201307UV02", action)


def enveloped(rule: str, code: str, bend: object, note: str = "") -> Case:
    return Case(rule, code, lambda s: s.existence(s.caller(), Bends(envelope=bend)), note)  # type: ignore[arg-type]


def typed(rule: str, code: str, before: str, after: str, note: str = "") -> Case:
    return Case(rule, code, lambda s: s.publication().bent(before, after), note)


def packed(rule: str, code: str, before: bytes, after: bytes, note: str = "") -> Case:
    return Case(rule, code, lambda s: s.publication().bent(before, after), note)


def soap_11(scene: Scene) -> Wire:
    return scene.existence(scene.caller()).bent(
        b"http://www.w3.org/2003/05/soap-envelope", b"http://schemas.xmlsoap.org/soap/envelope/"
    )


def missing_document(scene: Scene) -> Wire:
    wire = scene.publication(bends=Bends(body=without("//xds:Document[@id='DocumentKOS']")))
    head = OCTETS + b"0.2>\r\n\r\n"
    start = wire.body.index(head)
    return replace(wire, body=wire.body[:start] + wire.body[wire.body.index(OCTETS + b"0.3>") :])


def extra_document(scene: Scene) -> Wire:
    extra = '<xds:Document id="DocumentX"><xop:Include href="cid:0.4"/></xds:Document>'
    wire = scene.publication(bends=Bends(body=added("/*", extra)))
    end = b"--MIMEBoundary_Bound--"
    return wire.bent(end, OCTETS + b"0.4>\r\n\r\nextra\r\n" + end)


CASES = [
    Case("TLS.CERTIFICATE", DOOR, lambda s: with_certificate(s, None)),
    Case("TLS.CERTIFICATE", DOOR, lambda s: with_certificate(s, b"not a certificate"), "unreadable"),
    Case("TLS.CHAIN", DOOR, lambda s: with_certificate(s, stranger(s)), "stranger"),
    Case("TLS.CHAIN", DOOR, lambda s: with_certificate(s, expired(s)), "expired"),
    Case("TLS.CHAIN", DOOR, lambda s: with_certificate(s, revoked(s)), "revoked"),
    Case("TLS.PROFILE", DOOR, lambda s: with_certificate(s, s.pairs[STRUCTURE].sign.der), "sign"),
    Case("TLS.PROFILE", DOOR, lambda s: with_certificate(s, issued(s, "server", Profile.SSL_SERV).der), "server"),
    Case("TLS.PROFILE", DOOR, lambda s: with_certificate(s, issued(s, "person", unit="DUPONT").der), "no structure"),
    Case("TLS.STRUCTURE", DOOR, lambda s: with_certificate(s, issued(s, "unknown", unit="1999999999").der)),
    Case("TLS.STRUCTURE", DOOR, lambda s: with_certificate(s, s.pairs[REFUSED_STRUCTURE].auth.der), "not allowed"),
    typed("HTTP.TYPE", MALFORMED, "multipart/related;", "multipart related;"),
    typed("HTTP.TYPE", MALFORMED, 'start="<0.1>"', 'start="<0.1>"; start="<0.2>"', "repeated parameter"),
    Case("HTTP.MEDIA", MEDIA, lambda s: s.existence(s.caller()).bent("application/soap+xml", "text/xml")),
    Case("HTTP.MEDIA", MEDIA, lambda s: replace(s.publication(), service="registry"), "multipart at the registry"),
    Case("HTTP.CHARSET", MEDIA, lambda s: s.existence(s.caller()).bent(" charset=UTF-8;", "")),
    Case("HTTP.CHARSET", MEDIA, lambda s: s.existence(s.caller()).bent("UTF-8", "ISO-8859-1"), "latin"),
    packed("MTOM.FORM", MALFORMED, b"--MIMEBoundary_Bound--\r\n", b"", "cut"),
    packed("MTOM.FORM", MALFORMED, b"\r\nContent-ID: <0.2>\r\n\r\n", b"\nContent-ID: <0.2>\n\n", "bare LF"),
    typed("MTOM.FORM", MALFORMED, "MIMEBoundary_Bound", "another", "boundary"),
    typed("MTOM.TYPE", MALFORMED, 'type="application/xop+xml"', 'type="text/xml"'),
    typed("MTOM.START_INFO", MALFORMED, 'start-info="application/soap+xml"', 'start-info="text/xml"'),
    packed("MTOM.CONTENT_ID", MALFORMED, b"Content-ID: <0.3>", b"Content-ID: <0.2>", "repeated"),
    packed("MTOM.CONTENT_ID", MALFORMED, b"Content-ID: <0.3>", b"Content-ID: 0.3", "no brackets"),
    typed("MTOM.START", MALFORMED, 'start="<0.1>"', 'start="<0.9>"'),
    typed("MTOM.START", MALFORMED, 'start="<0.1>"; ', "", "absent"),
    packed(
        "MTOM.ROOT",
        MALFORMED,
        b'Type: application/xop+xml; charset=UTF-8; type="application/soap+xml"',
        b"Type: text/xml; charset=UTF-8",
    ),
    packed("MTOM.BINARY", MALFORMED, b"binary\r\nContent-ID: <0.2>", b"BASE64\r\nContent-ID: <0.2>"),
    Case("SOAP.XML", MALFORMED, lambda s: s.existence(s.caller()).bent(b"</soap:Envelope>", b"")),
    Case(
        "SOAP.XML",
        MALFORMED,
        lambda s: s.existence(s.caller()).bent(b"<soap:Envelope", b'<!DOCTYPE x [<!ENTITY e "e">]><soap:Envelope'),
        "dtd",
    ),
    Case("SOAP.XML", MALFORMED, lambda s: s.existence(s.caller()).bent(b"drimbox", b"drimb\xe9x"), "latin-1"),
    Case("SOAP.VERSION", "VersionMismatch", soap_11),
    enveloped("SOAP.FORM", MALFORMED, added("//soap:Body", "<rim:x/>"), "two bodies"),
    enveloped("SOAP.FORM", MALFORMED, added("/soap:Envelope", "<soap:Body/>"), "body twice"),
    Case("SOAP.FORM", MALFORMED, lambda s: s.existence(s.caller()).bent(b"<soap:Body>", b"<?x y?><soap:Body>"), "pi"),
    enveloped("SOAP.PREFIX", MALFORMED, edit("//wsa:MessageID", mustUnderstand="true")),
    enveloped("SOAP.UNDERSTAND", "MustUnderstand", added("//soap:Header", '<hl7:x soap:mustUnderstand="1"/>')),
    enveloped("WSA.ACTION", NEEDED, without("//wsa:Action"), "absent"),
    enveloped("WSA.ACTION", NEEDED, twice("//wsa:Action"), "twice"),
    enveloped(
        "WSA.ACTION",
        NEEDED,
        without("//wsa:Action", "{http://www.w3.org/2003/05/soap-envelope}mustUnderstand"),
        "not to be understood",
    ),
    Case(
        "WSA.HTTP_ACTION", ADDRESSING, lambda s: s.existence(s.caller()).bent("PRPA_IN201307UV02", "PRPA_IN201305UV02")
    ),
    Case(
        "WSA.HTTP_ACTION",
        ADDRESSING,
        lambda s: s.existence(s.caller()).bent('; action="urn:hl7-org:v3:PRPA_IN201307UV02"', ""),
        "absent",
    ),
    enveloped("WSA.MESSAGE_ID", NEEDED, without("//wsa:MessageID"), "absent"),
    enveloped("WSA.MESSAGE_ID", NEEDED, edit("//wsa:MessageID", text="42"), "no uuid"),
    enveloped("WSA.TO", ADDRESSING, edit("//wsa:To", text="https://d/si-dmp-server/v2/services/repository"), "other"),
    enveloped("WSA.TO", ADDRESSING, edit("//wsa:To", text="http://d/si-dmp-server/v2/services/patients"), "http"),
    enveloped(
        "WSA.REPLY_TO",
        ADDRESSING,
        added("//soap:Header", "<wsa:ReplyTo><wsa:Address>https://elsewhere</wsa:Address></wsa:ReplyTo>"),
    ),
    enveloped("WSSE.SECURITY", "wsse:InvalidSecurity", twice("//saml:Assertion"), "two assertions"),
    enveloped("WSSE.SECURITY", "wsse:InvalidSecurity", without("//saml:Assertion"), "no assertion"),
    Case(
        "WSA.SERVICE",
        "wsa:ActionNotSupported",
        lambda s: other_action(s, "urn:ihe:iti:2010:DeleteDocumentSet"),
        "ITI-62",
    ),
    Case(
        "WSA.SERVICE",
        "wsa:ActionNotSupported",
        lambda s: other_action(s, "urn:ihe:iti:2007:RegistryStoredQuery"),
        "body of another action",
    ),
    Case("WSA.REPLAY", ADDRESSING, replayed_message),
    Case("VIHF.REPLAY", "wsse:InvalidSecurityToken", reused_assertion),
    Case(
        "DOC.MTOM",
        MALFORMED,
        lambda s: s.plain(
            s.caller(),
            "repository",
            "urn:ihe:iti:2007:ProvideAndRegisterDocumentSet-b",
            '<x:ProvideAndRegisterDocumentSetRequest xmlns:x="urn:ihe:iti:xds-b:2007"/>',
        ),
        "plain SOAP",
    ),
    feed(
        "DOC.MTOM",
        MALFORMED,
        "base64 in line",
        body=also(without("//xds:Document/xop:Include"), edit("//xds:Document[1]", text="AAAA")),
    ),
    feed("DOC.CID", MALFORMED, body=edit("//xop:Include", href="cid:0.9")),
    feed("DOC.CID", MALFORMED, "not a cid", body=edit("//xop:Include", href="https://elsewhere/0.2")),
    feed("DOC.UNUSED", MALFORMED, "included twice", body=edit("//xop:Include[@href='cid:0.3']", href="cid:0.2")),
    feed("DOC.UNUSED", MALFORMED, "not included", body=without("//xds:Document[@id='DocumentKOS']")),
    Case("DOC.MISSING", "XDSMissingDocument", missing_document),
    Case("DOC.EXTRA", "XDSMissingDocumentMetadata", extra_document),
    feed(
        "DOC.EXTRA",
        "XDSMissingDocumentMetadata",
        "same id twice",
        body=also(edit("//xds:Document[@id='Signature01']", id="DocumentKOS")),
    ),
]
