"""A POST of JSON to a service of the site: its monitoring, its chat."""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.notification.notices import Notice

SIGNATURE = "X-Drimbox-Signature"
_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class WebhookChannel:
    """Sends notices to ``url``. ``secret`` gives the key of the signature, empty for none."""

    http: HttpClient
    url: str
    tls: ssl.SSLContext
    secret: Callable[[], bytes] = field(default=lambda: b"", repr=False)
    name: str = "webhook"

    async def tell(self, notice: Notice) -> None:
        """Raises ``Unavailable``, ``OutcomeUnknown`` or ``Rejected`` (``webhook``)."""
        await self.post(notice.to_json())

    async def post(self, content: Mapping[str, Any]) -> None:
        """Call the service with this content, signed. Raises as ``tell``."""
        body = json.dumps(content, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json; charset=utf-8"}
        if secret := self.secret():
            headers[SIGNATURE] = f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"
        reply = await self.http.send(
            "POST", self.url, tls=self.tls, headers=headers, body=body, timeout=_TIMEOUT, max_bytes=2**16
        )
        if 200 <= reply.status < 300:
            return
        if reply.status in (408, 425, 429) or reply.status >= 500:
            raise Unavailable("Le service appelé demande de réessayer", code="webhook", peer_code=str(reply.status))
        raise Rejected("Le service appelé refuse la notification", code="webhook", peer_code=str(reply.status))
