"""What a reverse proxy that ended TLS says of the client: believed of that proxy alone, and of nobody else.

The proxy sets two fields on every request, in the place of whatever the client sent under these names: the address of
the client, and the certificate that it proved (percent-encoded PEM, nginx's ``$ssl_client_escaped_cert``). A listener
that has no proxy never looks at them; one that has a proxy is wrapped in ``BehindProxy`` and serves that proxy only.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from drimbox.foundation.errors import Refused
from drimbox.foundation.http_server import CLIENT_CERTIFICATE

ADDRESS_FIELD = "X-Drimbox-Client-Address"
CERTIFICATE_FIELD = "X-Drimbox-Client-Certificate"
_ADDRESS, _CERTIFICATE = ADDRESS_FIELD.lower().encode(), CERTIFICATE_FIELD.lower().encode()
MAX_CERTIFICATE = 64 * 2**10

_log = logging.getLogger(__name__)


class BehindProxy:
    """Wraps an application.

    ``is_proxy`` tells, by the scope of a request as it came, whether the proxy sent it. ``judge`` decides on the
    client's certificate (its DER) and raises ``Refused``; without it, certificates are not passed on: the listener asks
    for none.
    """

    def __init__(
        self, app: ASGIApp, *, is_proxy: Callable[[Scope], bool], judge: Callable[[bytes], None] | None = None
    ) -> None:
        self._app = app
        self._is_proxy = is_proxy
        self._judge = judge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            inner = self._seen_by(scope)
        except Refused as error:
            _log.warning("request refused before the application: %s", error.code)
            status = 400 if error.code == "proxy-fields" else 403
            refusal = PlainTextResponse(f"{error.reason}.\n", status, {"Connection": "close"})
            await refusal(scope, receive, send)
            return
        await self._app(inner, receive, send)

    def _seen_by(self, scope: Scope) -> Scope:
        """The request as if the client had made it here. Raises ``Refused``."""
        if not self._is_proxy(scope):
            raise Refused("Cette adresse n'est ouverte qu'au mandataire de la DRIMbox", code="not-the-proxy")
        address = _address(_only(scope, _ADDRESS))
        given = _only(scope, _CERTIFICATE)
        certificate = None
        if given and self._judge is not None:
            certificate = _der(given)
            self._judge(certificate)
        return {
            **scope,
            "scheme": "https",
            "client": (address, 0),
            "headers": [(n, v) for n, v in scope["headers"] if n.lower() not in (_ADDRESS, _CERTIFICATE)],
            "extensions": {**scope.get("extensions", {}), CLIENT_CERTIFICATE: {"der": certificate}},
        }


def _only(scope: Scope, name: bytes) -> bytes:
    """The value of a field; empty when it is absent. Twice is a forgery, or a proxy that is not set up as it must."""
    values = [value for field, value in scope["headers"] if field.lower() == name]
    if len(values) > 1:
        raise _bad("deux fois le même champ")
    return bytes(values[0]) if values else b""


def _address(value: bytes) -> str:
    try:
        return str(ipaddress.ip_address(value.decode("ascii")))
    except ValueError as error:
        raise _bad("adresse du client absente ou illisible") from error


def _der(value: bytes) -> bytes:
    if len(value) > MAX_CERTIFICATE:
        raise _bad("certificat démesuré")
    try:
        return x509.load_pem_x509_certificate(unquote_to_bytes(value)).public_bytes(Encoding.DER)
    except ValueError as error:
        raise _bad("certificat illisible") from error


def _bad(why: str) -> Refused:
    return Refused(f"Champs du mandataire refusés : {why}", code="proxy-fields")
