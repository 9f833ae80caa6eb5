"""Telling services that a session has ended (OpenID Connect Back-Channel Logout 2.5)."""

from __future__ import annotations

import logging
import ssl
from urllib.parse import urlencode

from drimbox.foundation.errors import DrimboxError
from drimbox.foundation.http_client import HttpClient
from drimbox.sandbox.psc.provider import LogoutNotifier

logger = logging.getLogger(__name__)


def backchannel(http: HttpClient, tls: ssl.SSLContext, *, timeout: float = 5.0) -> LogoutNotifier:
    """Posts the logout token; a service that does not answer within ``timeout`` seconds does not hold the others up."""

    async def notify(address: str, logout_token: str) -> None:
        try:
            reply = await http.send(
                "POST",
                address,
                tls=tls,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                body=urlencode({"logout_token": logout_token}).encode(),
                timeout=timeout,
                max_bytes=64 * 1024,
            )
        except DrimboxError as error:
            logger.warning("back-channel logout not delivered to %s: %s", address, error.code)
            return
        if reply.status not in (200, 204):
            logger.warning("back-channel logout refused by %s: %d", address, reply.status)

    return notify
