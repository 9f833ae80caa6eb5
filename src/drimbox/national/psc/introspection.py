"""Is a bearer token, presented by another DRIMbox, still good, and whose is it (RFC 7662, standards.md F.3)?"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import re
from dataclasses import dataclass

from drimbox.national.psc.answers import Document, seconds, text
from drimbox.national.psc.userinfo import role_code

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{8,16384}=*")


@dataclass(frozen=True, slots=True)
class Introspection:
    """What PSC says of a token. Only ``active`` counts when it is False.

    ``confirmation`` is the certificate hash the token is bound to (``cnf``, RFC 8705 3.1): None when it is bound to
    none, empty when it is bound in a way that we do not know, and then no certificate will do.
    """

    active: bool
    expires_at: dt.datetime | None = None
    national_id: str = ""
    subject: str = ""
    profession: str | None = None
    confirmation: str | None = None

    def allows(self, certificate_der: bytes | None) -> bool:
        """May the peer that proved this TLS certificate present the token? Always, when it is bound to none."""
        if self.confirmation is None:
            return True
        return certificate_der is not None and _is_confirmed(self.confirmation, certificate_der)


INACTIVE = Introspection(active=False)


def is_token(token: str) -> bool:
    """Could this be a bearer token (RFC 6750 2.1)? What could not is refused without asking PSC."""
    return _TOKEN.fullmatch(token) is not None


def read_introspection(content: Document) -> Introspection:
    """Read PSC's answer. Anything but ``active: true`` of an access token is inactive."""
    if content.get("active") is not True or text(content, "typ").lower() not in ("", "bearer"):
        # PSC also says "active" of a refresh token, which opens nothing here.
        return INACTIVE
    expires = seconds(content, "exp")
    return Introspection(
        active=True,
        expires_at=None if expires is None else dt.datetime.fromtimestamp(expires, dt.UTC),
        national_id=text(content, "SubjectNameID"),
        subject=text(content, "sub"),
        profession=role_code(content.get("SubjectRole")) or None,
        confirmation=_confirmation(content),
    )


def _confirmation(content: Document) -> str | None:
    bound = content.get("cnf")
    if bound is None:
        return None
    return text(bound, "x5t#S256") if isinstance(bound, dict) else ""


def _is_confirmed(confirmation: str, certificate_der: bytes) -> bool:
    """The hash as RFC 8705 writes it, or as PSC's example does: the base64 of its hexadecimal text (F.3)."""
    digest = hashlib.sha256(certificate_der).digest()
    given = confirmation.replace("+", "-").replace("/", "_").rstrip("=").encode("utf-8", "surrogatepass")
    forms = (digest, digest.hex().encode(), digest.hex().upper().encode())
    return any(hmac.compare_digest(given, base64.urlsafe_b64encode(form).rstrip(b"=")) for form in forms)
