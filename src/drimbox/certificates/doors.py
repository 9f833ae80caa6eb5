"""How validations are answered: HTTP-01 on a listener of its own, TLS-ALPN-01 with a context of its own.

The HTTP-01 listener is in the clear, as RFC 8555 8.3 asks: it gives nothing but the answer to a validation that is
under way, and sends everything else to the same place over https. Control point C17 allows it for this reason.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from drimbox.certificates.acme.jose import digest_of
from drimbox.trust.keystore import Credential

WELL_KNOWN = "/.well-known/acme-challenge/"
# id-pe-acmeIdentifier (RFC 8737 6.1).
_ACME_IDENTIFIER = ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,512}")
_SAFE = "/~:@!$&'()*+,;="

Lookup = Callable[[str], Awaitable[str | None]]
"""The answer to an HTTP-01 token, None where there is none; raises when the database cannot say."""


def http_door(host: str, lookup: Lookup, unknown: tuple[type[Exception], ...], *, port: int = 443) -> ASGIApp:
    """The application of the HTTP-01 listener of ``host``. ``unknown`` are the errors of a database that is away."""
    origin = f"https://{host}" if port == 443 else f"https://{host}:{port}"

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        await (await _answer(request, origin, lookup, unknown))(scope, receive, send)

    return door


def validation_credential(host: str, proof: str, now: dt.datetime) -> Credential:
    """What a TLS-ALPN-01 validation of ``host`` must be shown (RFC 8737 3): self-signed, of no use to anyone else."""
    key = ec.generate_private_key(ec.SECP256R1())
    # A DER octet string of 32 octets.
    told = x509.UnrecognizedExtension(_ACME_IDENTIFIER, b"\x04\x20" + digest_of(proof))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "acme validation")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(told, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Credential(certificate, (), key)


async def _answer(request: Request, origin: str, lookup: Lookup, unknown: tuple[type[Exception], ...]) -> Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if request.method not in ("GET", "HEAD"):
        return Response(status_code=405, headers={**headers, "Allow": "GET, HEAD", "Connection": "close"})
    path = request.scope["path"]
    if not path.startswith(WELL_KNOWN):
        return Response(status_code=308, headers={**headers, "Location": origin + _target(request.scope)})
    token = path.removeprefix(WELL_KNOWN)
    if _TOKEN.fullmatch(token) is None:
        return Response(status_code=404, headers=headers)
    try:
        proof = await lookup(token)
    except unknown:
        return Response(status_code=503, headers={**headers, "Retry-After": "5"})
    if proof is None:
        return Response(status_code=404, headers=headers)
    return Response(proof, media_type="application/octet-stream", headers=headers)


def _target(scope: Scope) -> str:
    """Path and query as they were asked for, with nothing in them that could end a header line or leave the host."""
    path = "/" + quote(scope["path"].lstrip("/\\"), safe=_SAFE)
    query = quote(scope["query_string"].decode("latin-1"), safe=_SAFE + "?%")
    return f"{path}?{query}" if query else path
