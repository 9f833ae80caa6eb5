"""What goes back on the wire: SOAP answers, plain or MTOM, registry answers, faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from drimbox.foundation.uids import new_uuid_urn
from drimbox.foundation.xml import Builder, Element, to_bytes
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.rules import Breach, Fault

_SOAP = Builder({"soap": v.SOAP, "wsa": v.WSA}, "soap")
_FAULT = Builder({"soap": v.SOAP, "wsa": v.WSA, "wsse": v.WSSE, "dmp": v.SANDBOX}, "soap")
_RS = Builder({"rs": v.RS}, "rs")

ROOT_PART = "root.message@cxf.apache.org"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What the HTTP server sends."""

    status: int
    media_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class RegistryError:
    """One ``rs:RegistryError`` of severity Error."""

    code: str
    context: str
    location: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """The body of a SOAP answer, its action, and how it is packed. ``attachments`` are (Content-ID, octets)."""

    action: str
    body: Element
    mtom: bool = False
    attachments: Sequence[tuple[str, bytes]] = field(default=())


def registry_response(status: str, errors: Sequence[RegistryError] = (), *, wrapped: Element | None = None) -> Element:
    """An ``rs:RegistryResponse``, or ``wrapped`` (an AdhocQueryResponse) with the same attributes and error list."""
    response = wrapped if wrapped is not None else _RS("RegistryResponse")
    response.set("status", status)
    if errors:
        listed = _RS("RegistryErrorList", highestSeverity=v.ERROR)
        for error in errors:
            one = _RS("RegistryError", codeContext=error.context, errorCode=error.code, severity=v.ERROR)
            if error.location:
                one.set("location", error.location)
            listed.append(one)
        response.insert(0, listed)
    return response


def registry_error(breach: Breach) -> RegistryError:
    """The error that tells a breach; the location names the rule."""
    assert isinstance(breach.answer, str)
    where = breach.rule + (f" {breach.location}" if breach.location else "")
    return RegistryError(breach.answer, breach.detail, where)


def answer(reply: Reply, relates_to: str) -> HttpAnswer:
    """Pack a reply as the DMP does: MTOM with its root part ``<root.message@cxf.apache.org>``, or plain."""
    header = _SOAP(
        "Header",
        _SOAP("wsa:Action", reply.action),
        _SOAP("wsa:MessageID", new_uuid_urn()),
        _SOAP("wsa:RelatesTo", relates_to),
    )
    envelope = to_bytes(_SOAP("Envelope", header, _SOAP("Body", reply.body)))
    if not reply.mtom:
        return HttpAnswer(200, f'application/soap+xml; charset=UTF-8; action="{reply.action}"', envelope)
    boundary = new_uuid_urn().removeprefix("urn:")
    root_type = 'application/xop+xml; charset=UTF-8; type="application/soap+xml"'
    body = bytearray(_part(boundary, root_type, ROOT_PART, envelope))
    for content_id, content in reply.attachments:
        body += _part(boundary, "application/octet-stream", content_id, content)
    body += f"--{boundary}--\r\n".encode()
    media_type = (
        f'multipart/related; type="application/xop+xml"; boundary="{boundary}"; start="<{ROOT_PART}>"; '
        'start-info="application/soap+xml"'
    )
    return HttpAnswer(200, media_type, bytes(body))


def fault(breach: Breach, relates_to: str = "") -> HttpAnswer:
    """The SOAP fault that tells a breach; its Detail names the rule."""
    assert isinstance(breach.answer, Fault)
    kind = breach.answer
    code = _FAULT("Code", _FAULT("Value", f"soap:{kind.code}"))
    if kind.subcode:
        code.append(_FAULT("Subcode", _FAULT("Value", kind.subcode)))
    text = _FAULT("Text", breach.detail)
    text.set("{http://www.w3.org/XML/1998/namespace}lang", "fr")
    told = _FAULT("Fault", code, _FAULT("Reason", text), _FAULT("Detail", _FAULT("dmp:Rule", breach.rule)))
    header = _FAULT("Header", _FAULT("wsa:Action", "http://www.w3.org/2005/08/addressing/soap/fault"))
    header.append(_FAULT("wsa:MessageID", new_uuid_urn()))
    if relates_to:
        header.append(_FAULT("wsa:RelatesTo", relates_to))
    envelope = to_bytes(_FAULT("Envelope", header, _FAULT("Body", told)))
    return HttpAnswer(kind.status, "application/soap+xml; charset=UTF-8", envelope)


def with_attachments(reply: Reply, attachments: Sequence[tuple[str, bytes]]) -> Reply:
    """The same reply with binary parts."""
    return replace(reply, mtom=True, attachments=tuple(attachments))


def _part(boundary: str, media_type: str, content_id: str, content: bytes) -> bytes:
    head = (
        f"--{boundary}\r\nContent-Type: {media_type}\r\nContent-Transfer-Encoding: binary\r\n"
        f"Content-ID: <{content_id}>\r\n\r\n"
    )
    return head.encode() + content + b"\r\n"
