"""The packaging of a request: HTTP content type, plain SOAP or MTOM (standards.md D.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.mime import MediaType, Part, parse_media_type, split_parts
from drimbox.sandbox.dmp.rules import Rule, judge, rule, stated

MULTIPART = "multipart/related"
SOAP_XML = "application/soap+xml"
XOP_XML = "application/xop+xml"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A POST to one service. Header names in lower case; ``certificate`` is the TLS client's, DER."""

    service: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    certificate: bytes | None


@dataclass(frozen=True, slots=True)
class Package:
    """A multipart body cut in parts."""

    media: MediaType
    parts: tuple[Part, ...]

    def root(self) -> Part | None:
        start = self.media.get("start").removeprefix("<").removesuffix(">")
        found = [p for p in self.parts if p.content_id == start]
        return found[0] if start and len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The octets of the envelope, and the attachments by Content-ID."""

    media: MediaType
    envelope: bytes
    attachments: Mapping[str, Part]


HTTP_SIZE = stated("HTTP.SIZE", v.TOO_LARGE, "A request has a bounded size (standards.md D.5, volumetry of the DMP).")
HTTP_TYPE = stated("HTTP.TYPE", v.MALFORMED, "Content-Type follows RFC 2045 and names no parameter twice.")
MTOM_FORM = stated("MTOM.FORM", v.MALFORMED, "A multipart body is whole: delimiters, CRLF, final delimiter (RFC 2046).")


@rule("HTTP.MEDIA", v.UNSUPPORTED_MEDIA)
def http_media(call: tuple[HttpRequest, MediaType]) -> str | None:
    """SOAP 1.2 is application/soap+xml; only the repository takes MTOM (standards.md D.2)."""
    request, media = call
    allowed = {SOAP_XML, MULTIPART} if request.service == "repository" else {SOAP_XML}
    return None if media.name in allowed else "type de contenu refusé : SOAP 1.2 attendu"


@rule("HTTP.CHARSET", v.UNSUPPORTED_MEDIA)
def http_charset(call: tuple[HttpRequest, MediaType]) -> str | None:
    """The charset of application/soap+xml is UTF-8 (standards.md D.2)."""
    _, media = call
    if media.name == SOAP_XML and media.get("charset").upper() != "UTF-8":
        return "charset=UTF-8 attendu dans Content-Type"
    return None


@rule("MTOM.TYPE", v.MALFORMED)
def mtom_type(package: Package) -> str | None:
    """The type of the multipart is application/xop+xml (standards.md D.2; XOP 1.0 4.1)."""
    return None if package.media.get("type") == XOP_XML else 'type="application/xop+xml" attendu dans Content-Type'


@rule("MTOM.START_INFO", v.MALFORMED)
def mtom_start_info(package: Package) -> str | None:
    """start-info names the type that is packaged: application/soap+xml (standards.md D.2)."""
    return None if package.media.get("start-info") == SOAP_XML else 'start-info="application/soap+xml" attendu'


@rule("MTOM.CONTENT_ID", v.MALFORMED)
def mtom_content_id(package: Package) -> str | None:
    """Each part has a Content-ID in angle brackets, of its own (RFC 2387, XOP 4.1)."""
    ids = [p.content_id for p in package.parts]
    return "Content-ID absent ou répété" if not all(ids) or len(set(ids)) < len(ids) else None


@rule("MTOM.START", v.MALFORMED)
def mtom_start(package: Package) -> str | None:
    """start names the root part (standards.md D.2)."""
    return None if package.root() is not None else "start absent, ou partie racine introuvable"


@rule("MTOM.ROOT", v.MALFORMED)
def mtom_root(package: Package) -> str | None:
    """The root part is application/xop+xml; charset=UTF-8; type="application/soap+xml" (standards.md D.2)."""
    root = package.root()
    assert root is not None
    media = root.media
    right = media.name == XOP_XML and media.get("type").partition(";")[0] == SOAP_XML
    return None if right and media.get("charset").upper() == "UTF-8" else "type de la partie racine faux"


@rule("MTOM.BINARY", v.MALFORMED)
def mtom_binary(package: Package) -> str | None:
    """Parts are binary octets; base64 is not for MTOM (standards.md D.2)."""
    return None if all(p.encoding == "binary" for p in package.parts) else "Content-Transfer-Encoding: binary attendu"


PACKAGE_RULES: tuple[Rule[Package], ...] = (
    mtom_type,
    mtom_start_info,
    mtom_content_id,
    mtom_start,
    mtom_root,
    mtom_binary,
)


def unpack(request: HttpRequest) -> Unpacked:
    """Take the envelope out of its packaging. Raises ``Breach``."""
    try:
        media = parse_media_type(request.headers.get("content-type", ""))
    except ValueError as error:
        raise HTTP_TYPE.broken(str(error)) from error
    judge((http_media, http_charset), (request, media))
    if media.name != MULTIPART:
        return Unpacked(media, request.body, {})
    try:
        package = Package(media, split_parts(request.body, media.get("boundary")))
    except ValueError as error:
        raise MTOM_FORM.broken(str(error)) from error
    judge(PACKAGE_RULES, package)
    root = package.root()
    assert root is not None
    return Unpacked(media, root.content, {p.content_id: p for p in package.parts if p is not root})
