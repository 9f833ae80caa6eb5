"""MTOM/XOP packaging of SOAP messages with documents (standards.md D.2; W3C XOP 1.0, MTOM 1.0; RFC 2387, 2392).

Written strictly, read tolerantly: quoted or bare parameters, CRLF or LF, base64 or binary parts. What is truncated or
ambiguous is refused: a message is read whole or not at all.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from drimbox.foundation.errors import Refused
from drimbox.foundation.xml import Element
from drimbox.national.dmp.codes import XOP

MAX_PARTS = 256
MAX_HEADER_BYTES = 16 * 1024
ROOT_ID = "0.1"

_PARAMETER = re.compile(r';\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))')
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? \-]{1,70}")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A document that travels beside the envelope; ``content_id`` without brackets."""

    content_id: str
    content: bytes
    media_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Package:
    """A message as it came: the bytes of its root part, and its other parts by Content-ID without brackets."""

    root: bytes
    parts: Mapping[str, bytes]


# --- writing ----------------------------------------------------------------------------------------------------------


def write(envelope: bytes, attachments: Sequence[Attachment], action: str) -> tuple[str, bytes]:
    """The Content-Type and the body of one MTOM message, its documents as raw octets."""
    boundary = _free_boundary([envelope, *(a.content for a in attachments)])
    body = bytearray()
    root_type = 'application/xop+xml; charset=UTF-8; type="application/soap+xml"'
    for content_id, media_type, content in (
        (ROOT_ID, root_type, envelope),
        *((a.content_id, a.media_type, a.content) for a in attachments),
    ):
        body += (
            f"--{boundary}\r\nContent-Type: {media_type}\r\nContent-Transfer-Encoding: binary\r\n"
            f"Content-ID: <{content_id}>\r\n\r\n"
        ).encode("ascii")
        body += content
        body += b"\r\n"
    body += f"--{boundary}--\r\n".encode("ascii")
    content_type = (
        f'multipart/related; type="application/xop+xml"; boundary="{boundary}"; start="<{ROOT_ID}>"; '
        f'start-info="application/soap+xml"; action="{action}"'
    )
    return content_type, bytes(body)


def include(content_id: str) -> str:
    """The ``href`` of the ``xop:Include`` of an attachment."""
    return f"cid:{content_id}"


def _free_boundary(contents: Sequence[bytes]) -> str:
    while True:
        boundary = f"drimbox-{secrets.token_hex(16)}"
        if not any(boundary.encode("ascii") in c for c in contents):
            return boundary


# --- reading ----------------------------------------------------------------------------------------------------------


def read(content_type: str, body: bytes) -> Package:
    """The parts of a multipart/related message.

    Raises ``Refused``: ``mtom-boundary`` (no usable boundary), ``mtom-truncated`` (the closing delimiter is missing),
    ``mtom-header``, ``mtom-encoding``, ``mtom-limits`` (more than 256 parts), ``mtom-duplicate`` (two parts share a
    Content-ID), ``mtom-root`` (no root part).
    """
    parameters = parameters_of(content_type)
    boundary = parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary) or boundary != boundary.rstrip():
        raise Refused("Message multipart sans délimiteur valable", code="mtom-boundary")
    parts = [_part(raw) for raw in _split(body, boundary.encode("ascii"))]
    start = _bare_id(parameters.get("start", ""))
    ids = [content_id for content_id, _ in parts if content_id]
    if len(set(ids)) != len(ids):
        raise Refused("Deux parties du message portent le même identifiant", code="mtom-duplicate")
    if not parts:
        raise Refused("Message multipart sans contenu", code="mtom-root")
    root = 0
    if start:
        root = next((i for i, (content_id, _) in enumerate(parts) if content_id == start), -1)
        if root < 0:
            raise Refused("La partie principale du message manque", code="mtom-root")
    others = {content_id: content for i, (content_id, content) in enumerate(parts) if i != root and content_id}
    return Package(parts[root][1], others)


def is_multipart(content_type: str) -> bool:
    """Does this Content-Type announce a multipart message?"""
    return content_type.strip().lower().startswith("multipart/")


def parameters_of(content_type: str) -> dict[str, str]:
    """The parameters of a Content-Type, names in lower case, quotes taken off; the first of two equal names counts."""
    found: dict[str, str] = {}
    if len(content_type) > MAX_HEADER_BYTES:
        return found
    for name, quoted, bare in _PARAMETER.findall(content_type):
        found.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted else bare)
    return found


def document_bytes(element: Element, parts: Mapping[str, bytes]) -> bytes:
    """The octets of a document element: the part that its ``xop:Include`` names, or its own base64 text.

    Raises ``Refused`` (``xop-missing``, ``xop-href``, ``document-base64``).
    """
    included = element.find(f"{{{XOP}}}Include")
    if len(element) > (included is not None):
        raise Refused("Contenu de document illisible", code="document-base64")
    if included is None:
        return _base64((element.text or "").encode("utf-8"), "document-base64")
    href = included.get("href", "")
    if not href.lower().startswith("cid:"):
        raise Refused("Référence de document non reconnue", code="xop-href")
    # RFC 2392: the cid of a URL is %-escaped; some stacks forget to escape, so the bare form is tried as well.
    for content_id in (unquote(href[4:]), href[4:]):
        if content_id in parts:
            return parts[content_id]
    raise Refused("Un document référencé par le message manque", code="xop-missing")


def _split(body: bytes, boundary: bytes) -> list[bytes]:
    """The raw parts between delimiter lines; the closing delimiter must be there (RFC 2046 5.1.1)."""
    delimiter = re.compile(rb"(?:^|\r?\n)--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\r?\n|$)")
    parts: list[bytes] = []
    opened: int | None = None
    for match in delimiter.finditer(body):
        if opened is not None:
            parts.append(body[opened : match.start()])
            if len(parts) > MAX_PARTS:
                raise Refused("Message multipart de trop de parties", code="mtom-limits")
        if match.group(1):
            return parts
        opened = match.end()
    raise Refused("Message multipart tronqué", code="mtom-truncated")


def _part(raw: bytes) -> tuple[str, bytes]:
    """Content-ID and decoded content of one raw part, which begins with the line end of its delimiter."""
    end = re.search(rb"\r?\n\r?\n", raw[: MAX_HEADER_BYTES + 4])
    if end is None:
        raise Refused("En-têtes d'une partie du message illisibles", code="mtom-header")
    headers = _headers(raw[: end.start()])
    content = raw[end.end() :]
    encoding = headers.get("content-transfer-encoding", "binary").strip().lower()
    if encoding == "base64":
        content = _base64(content, "mtom-encoding")
    elif encoding not in ("binary", "8bit", "7bit", ""):
        raise Refused("Codage de transfert non reconnu", code="mtom-encoding")
    return _bare_id(headers.get("content-id", "")), content


def _headers(block: bytes) -> dict[str, str]:
    unfolded = re.sub(rb"\r?\n[ \t]+", b" ", block).decode("latin-1")
    found: dict[str, str] = {}
    for line in unfolded.splitlines():
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise Refused("En-têtes d'une partie du message illisibles", code="mtom-header")
        found.setdefault(name.strip().lower(), value.strip())
    return found


def _bare_id(value: str) -> str:
    cleaned = value.strip()
    return cleaned[1:-1].strip() if cleaned.startswith("<") and cleaned.endswith(">") else cleaned


def _base64(text: bytes, code: str) -> bytes:
    try:
        return base64.b64decode(re.sub(rb"\s+", b"", text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused("Contenu base64 illisible", code=code) from error
