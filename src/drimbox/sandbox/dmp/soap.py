"""The SOAP message: envelope and addressing (standards.md D.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from lxml import etree

from drimbox.foundation.errors import Refused
from drimbox.foundation.xml import Element, local_name, parse, text_of
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.mime import MediaType, Part
from drimbox.sandbox.dmp.packaging import MULTIPART, HttpRequest, unpack
from drimbox.sandbox.dmp.rules import Rule, judge, rule, stated

_UNDERSTOOD = {f"{{{v.WSA}}}{n}" for n in ("Action", "MessageID", "To", "ReplyTo", "FaultTo", "From")} | {
    f"{{{v.WSSE}}}Security"
}


@dataclass(frozen=True, slots=True)
class Message:
    """A SOAP message: header blocks, the one element of the body, attachments by Content-ID."""

    path: str
    media: MediaType
    envelope: Element
    attachments: Mapping[str, Part]

    def blocks(self, tag: str) -> list[Element]:
        header = self.envelope.find(f"{{{v.SOAP}}}Header")
        return list(header.iterchildren(tag)) if header is not None else []

    def block(self, name: str) -> str:
        found = self.blocks(f"{{{v.WSA}}}{name}")
        return text_of(found[0]) if found else ""

    @property
    def action(self) -> str:
        return self.block("Action")

    @property
    def message_id(self) -> str:
        return self.block("MessageID")

    @property
    def multipart(self) -> bool:
        return self.media.name == MULTIPART

    @property
    def body(self) -> Element:
        body = self.envelope.find(f"{{{v.SOAP}}}Body")
        assert body is not None
        return next(body.iterchildren(etree.Element))

    @property
    def assertion(self) -> Element:
        return next(self.blocks(f"{{{v.WSSE}}}Security")[0].iterchildren(etree.Element))


SOAP_XML_FORM = stated(
    "SOAP.XML", v.MALFORMED, "The envelope is well-formed XML in UTF-8 without DTD, bounded in depth."
)


@rule("SOAP.VERSION", v.VERSION_MISMATCH)
def soap_version(message: Message) -> str | None:
    """The envelope is SOAP 1.2 (standards.md D.2)."""
    return None if message.envelope.tag == f"{{{v.SOAP}}}Envelope" else "enveloppe SOAP 1.2 attendue"


@rule("SOAP.FORM", v.MALFORMED)
def soap_form(message: Message) -> str | None:
    """One Header, then one Body with one element; nothing else, no processing instruction (SOAP 1.2 part 1, 5)."""
    children = [c.tag for c in message.envelope.iterchildren(etree.Element)]
    if children != [f"{{{v.SOAP}}}Header", f"{{{v.SOAP}}}Body"]:
        return "un Header puis un Body attendus"
    body = message.envelope.find(f"{{{v.SOAP}}}Body")
    if body is None or len(list(body.iterchildren(etree.Element))) != 1:
        return "un seul élément attendu dans le Body"
    if any(True for _ in message.envelope.getroottree().iter(etree.ProcessingInstruction)):
        return "instruction de traitement interdite"
    return None


@rule("SOAP.PREFIX", v.MALFORMED)
def soap_prefix(message: Message) -> str | None:
    """mustUnderstand stands in the SOAP namespace, not bare as in the samples (standards.md D.2)."""
    header = message.envelope.find(f"{{{v.SOAP}}}Header")
    assert header is not None
    bare = any("mustUnderstand" in block.attrib for block in header.iterchildren(etree.Element))
    return "mustUnderstand sans espace de noms" if bare else None


@rule("SOAP.UNDERSTAND", v.MUST_UNDERSTAND)
def soap_understand(message: Message) -> str | None:
    """A block that must be understood and is not stops the message (SOAP 1.2 part 1, 2.4)."""
    header = message.envelope.find(f"{{{v.SOAP}}}Header")
    assert header is not None
    for block in header.iterchildren(etree.Element):
        if block.get(f"{{{v.SOAP}}}mustUnderstand", "") in ("true", "1") and block.tag not in _UNDERSTOOD:
            return f"bloc d'en-tête non compris : {local_name(block)}"
    return None


@rule("WSA.ACTION", v.ADDRESSING_REQUIRED)
def wsa_action(message: Message) -> str | None:
    """One Action, with mustUnderstand true (standards.md D.2; ITI TF-2 Annex V)."""
    found = message.blocks(f"{{{v.WSA}}}Action")
    if len(found) != 1 or not text_of(found[0]):
        return "un en-tête wsa:Action attendu"
    marked = found[0].get(f"{{{v.SOAP}}}mustUnderstand", "") in ("true", "1")
    return None if marked else "wsa:Action sans mustUnderstand"


@rule("WSA.HTTP_ACTION", v.INVALID_ADDRESSING)
def wsa_http_action(message: Message) -> str | None:
    """The action parameter of Content-Type is given and equals wsa:Action (standards.md D.2; RFC 3902)."""
    return None if message.media.get("action") == message.action else "action de Content-Type absente ou différente"


@rule("WSA.MESSAGE_ID", v.ADDRESSING_REQUIRED)
def wsa_message_id(message: Message) -> str | None:
    """One MessageID, a urn:uuid (standards.md D.2)."""
    found = message.blocks(f"{{{v.WSA}}}MessageID")
    uuid = r"urn:uuid:[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    right = len(found) == 1 and re.fullmatch(uuid, text_of(found[0])) is not None
    return None if right else "un en-tête wsa:MessageID de la forme urn:uuid attendu"


@rule("WSA.TO", v.INVALID_ADDRESSING)
def wsa_to(message: Message) -> str | None:
    """One To, the https address of the service that is called (standards.md D.2)."""
    found = message.blocks(f"{{{v.WSA}}}To")
    if len(found) != 1:
        return "un en-tête wsa:To attendu"
    address = urlsplit(text_of(found[0]))
    right = address.scheme == "https" and bool(address.hostname) and address.path == message.path
    return None if right and not address.query and not address.fragment else "wsa:To n'est pas l'adresse de ce service"


@rule("WSA.REPLY_TO", v.INVALID_ADDRESSING)
def wsa_reply_to(message: Message) -> str | None:
    """ReplyTo, when given, is anonymous: the answer goes back on the connection (standards.md D.2)."""
    found = message.blocks(f"{{{v.WSA}}}ReplyTo")
    wrong = [b for b in found if text_of(b.find(f"{{{v.WSA}}}Address")) != v.ANONYMOUS]
    return "wsa:ReplyTo anonyme attendu" if wrong or len(found) > 1 else None


@rule("WSSE.SECURITY", v.INVALID_SECURITY)
def wsse_security(message: Message) -> str | None:
    """One Security header with exactly one SAML 2.0 assertion, the VIHF (standards.md D.2)."""
    found = message.blocks(f"{{{v.WSSE}}}Security")
    if len(found) != 1:
        return "un en-tête wsse:Security attendu"
    inside = [c.tag for c in found[0].iterchildren(etree.Element)]
    return None if inside == [f"{{{v.SAML}}}Assertion"] else "une seule assertion SAML attendue dans wsse:Security"


ENVELOPE_RULES: tuple[Rule[Message], ...] = (
    soap_version,
    soap_form,
    soap_prefix,
    soap_understand,
    wsa_action,
    wsa_http_action,
    wsa_message_id,
    wsa_to,
    wsa_reply_to,
    wsse_security,
)


def read_message(request: HttpRequest) -> Message:
    """Unpack and parse. Raises ``Breach`` at the first rule of form that is broken."""
    unpacked = unpack(request)
    try:
        unpacked.envelope.decode("utf-8")
        message = Message(request.path, unpacked.media, parse(unpacked.envelope), unpacked.attachments)
    except UnicodeDecodeError as error:
        raise SOAP_XML_FORM.broken("enveloppe qui n'est pas en UTF-8") from error
    except Refused as error:
        raise SOAP_XML_FORM.broken(error.reason) from error
    judge(ENVELOPE_RULES, message)
    return message
