"""SOAP 1.2 with WS-Addressing and WS-Security: envelopes written, answers and faults read (standards.md D.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drimbox.foundation.errors import Refused
from drimbox.foundation.xml import Builder, Element, local_name, parse, text_of
from drimbox.national.dmp import mtom
from drimbox.national.dmp.codes import SOAP, WSA, WSA_ANONYMOUS, WSSE

_MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Fault:
    """A SOAP 1.2 fault. ``code`` is ``Sender``, ``Receiver``…; ``reason`` the peer's free text, never to be logged."""

    code: str
    subcodes: tuple[str, ...]
    reason: str

    def __repr__(self) -> str:
        return f"Fault({self.code}, {self.subcodes})"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the first element of the body or the fault, and the documents that came beside it."""

    action: str
    relates_to: str
    body: Element | None
    fault: Fault | None
    parts: Mapping[str, bytes]


def envelope(action: str, to: str, message_id: str, assertion: Element, body: Element) -> Element:
    """One request. ``assertion`` is signed afterwards, in its place, so that nothing can change under its signature.

    The envelope declares no namespace that an assertion uses: its own declarations stay as they were written.
    """
    soap = Builder({"soap": SOAP}, "soap")
    wsa = Builder({"wsa": WSA}, "wsa")
    wsse = Builder({"wsse": WSSE}, "wsse")
    action_header = wsa("Action", action)
    action_header.set(f"{{{SOAP}}}mustUnderstand", "true")
    header = soap(
        "Header",
        wsa("MessageID", message_id),
        wsa("To", to),
        action_header,
        wsa("ReplyTo", wsa("Address", WSA_ANONYMOUS)),
        wsse("Security", assertion),
    )
    return soap("Envelope", header, soap("Body", body))


def content_type(action: str) -> str:
    """The Content-Type of a message without attachments."""
    return f'application/soap+xml; charset=UTF-8; action="{action}"'


def read(header: str, body: bytes) -> Answer:
    """Read an answer, plain or MTOM, from its Content-Type and its bytes.

    Raises ``Refused``: what ``mtom.read`` and ``foundation.xml.parse`` raise, and ``soap-envelope`` for a well-formed
    document that is no SOAP 1.2 message (an HTML page, an empty body element).
    """
    package = mtom.read(header, body) if mtom.is_multipart(header) else mtom.Package(body, {})
    root = parse(package.root.strip())
    if root.tag != f"{{{SOAP}}}Envelope":
        raise Refused("La réponse n'est pas un message SOAP", code="soap-envelope")
    content = root.find(f"{{{SOAP}}}Body")
    first = next((c for c in content if isinstance(c.tag, str)), None) if content is not None else None
    if first is None:
        raise Refused("Message SOAP sans contenu", code="soap-envelope")
    fault = _fault(first) if first.tag == f"{{{SOAP}}}Fault" else None
    return Answer(
        action=_addressing(root, "Action"),
        relates_to=_addressing(root, "RelatesTo"),
        body=None if fault else first,
        fault=fault,
        parts=package.parts,
    )


def _addressing(root: Element, name: str) -> str:
    return text_of(root.find(f"{{{SOAP}}}Header/{{{WSA}}}{name}"))


def _fault(element: Element) -> Fault:
    codes: list[str] = []
    level = element.find(f"{{{SOAP}}}Code")
    while level is not None and len(codes) < 10:
        codes.append(text_of(level.find(f"{{{SOAP}}}Value")).rpartition(":")[2])
        level = level.find(f"{{{SOAP}}}Subcode")
    reason = text_of(element.find(f"{{{SOAP}}}Reason/{{{SOAP}}}Text"))
    return Fault(codes[0] if codes else "", tuple(codes[1:]), reason[:_MAX_REASON])


def expect(answer: Answer, namespace: str, name: str) -> Element:
    """The body element that the transaction defines. Raises ``Refused`` (``soap-unexpected``) for any other."""
    body = answer.body
    if body is None or body.tag != f"{{{namespace}}}{name}":
        found = local_name(body)[:80] if body is not None else "rien"
        raise Refused(f"Réponse inattendue du DMP : {found}", code="soap-unexpected")
    return body
