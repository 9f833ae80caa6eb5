"""The DICOMweb service of a PACS: its address, how we are let in, and what its refusals mean (PS3.18).

What it says with an error status is never taken for an answer: only a clean empty list means that nothing is there.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from drimbox.foundation.errors import Busy, DrimboxError, OutcomeUnknown, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient, Reply, Stream
from drimbox.foundation.media_types import parse_media_type

_MAX_JSON_BYTES = 128 * 2**20
_JSON = frozenset({"application/dicom+json", "application/json"})


@dataclass(frozen=True, slots=True)
class DicomWeb:
    """Where it is: ``url`` is the base before ``/studies``; ``tls`` checks its certificate and may show ours."""

    url: str
    tls: ssl.SSLContext
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What goes with every request."""
        headers = {"Accept-Encoding": "identity"}
        if self.user:
            token = b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")
            headers["Authorization"] = f"Basic {token}"
        return headers


@dataclass(frozen=True, slots=True)
class Listed:
    """One answer of a query; ``more``: the server says that it holds back others (PS3.18 8.3.4.4)."""

    rows: list[dict[str, Any]]
    more: bool


class WebService:
    """Requests to the DICOMweb of one PACS. The reasons of errors name the PACS and its status."""

    def __init__(self, http: HttpClient, address: DicomWeb, pacs_id: str) -> None:
        self._http = http
        self._address = address
        self._pacs_id = pacs_id

    async def query(self, path: str, timeout: float) -> Listed:
        """QIDO-RS: what matches, perhaps nothing. Raises ``Unavailable``, ``Busy`` or ``Rejected``."""
        headers = self._address.headers | {"Accept": "application/dicom+json"}
        try:
            reply = await self._http.send(
                "GET",
                self._address.url + path,
                tls=self._address.tls,
                headers=headers,
                timeout=timeout,
                max_bytes=_MAX_JSON_BYTES,
            )
        except (Unavailable, OutcomeUnknown, Rejected) as error:
            raise self.unreachable(error) from error
        if reply.status == 204:
            return Listed([], more=False)
        if reply.status != 200:
            raise self.refused(reply.status, reply.headers)
        media = parse_media_type(reply.headers.get("Content-Type", ""))
        if media is None or media.name not in _JSON:
            raise self._unreadable()
        rows = await asyncio.to_thread(self._rows, reply.body)
        return Listed(rows, more=any(w.lstrip().startswith("299") for w in reply.headers.getall("Warning", [])))

    def stream(self, path: str, accept: str, silence: float) -> AbstractAsyncContextManager[Stream]:
        """WADO-RS: the answer as it arrives; its status is still to be looked at."""
        headers = self._address.headers | {"Accept": accept}
        return self._http.stream(
            "GET", self._address.url + path, tls=self._address.tls, headers=headers, silence=silence
        )

    async def post(
        self, path: str, body: AsyncIterable[bytes], *, length: int, content_type: str, timeout: float
    ) -> Reply:
        """STOW-RS: the answer, whatever its status. Raises as ``HttpClient.send``."""
        headers = self._address.headers | {
            "Accept": "application/dicom+json",
            "Content-Type": content_type,
            "Content-Length": str(length),
        }
        return await self._http.send(
            "POST",
            self._address.url + path,
            tls=self._address.tls,
            headers=headers,
            body=body,
            timeout=timeout,
            max_bytes=_MAX_JSON_BYTES,
        )

    def refused(self, status: int, headers: Mapping[str, str]) -> DrimboxError:
        """What an error status means."""
        code = str(status)
        if status in (429, 503):
            return Busy(
                self._reason("répond en DICOMweb qu'il est occupé"), code="pacs-busy", peer_code=code,
                retry_after=_seconds(headers.get("Retry-After", "")),
            )  # fmt: skip
        if status >= 500 and status != 501:
            return Unavailable(self._reason(f"répond {status} en DICOMweb"), code="pacs-web-failed", peer_code=code)
        if status in (401, 403):
            reason = self._reason(f"refuse nos droits en DICOMweb ({status})")
            return Rejected(reason, code="pacs-web-forbidden", peer_code=code)
        return Rejected(self._reason(f"répond {status} en DICOMweb"), code="pacs-web-rejected", peer_code=code)

    def unreachable(self, error: DrimboxError) -> DrimboxError:
        """A failure of the connection, told as one of this PACS."""
        if error.code in ("unreachable", "connect-timeout"):
            return Unavailable(self._reason("est injoignable en DICOMweb"), code="pacs-unreachable")
        if error.code == "tls":
            reason = self._reason("ne peut pas être joint : la connexion TLS de DICOMweb échoue")
            return Unavailable(reason, code="pacs-tls", peer_code=error.peer_code)
        if error.code == "answer-size":
            return Unavailable(self._reason("donne une réponse trop longue"), code="pacs-too-many-answers")
        if error.code == "answer-cut" and "Timeout" in (error.peer_code or ""):
            return Unavailable(self._reason("ne répond plus"), code="pacs-silent")
        if error.code == "answer-cut":
            return Unavailable(self._reason("a coupé sa réponse"), code="pacs-aborted", peer_code=error.peer_code)
        return error

    def _rows(self, body: bytes) -> list[dict[str, Any]]:
        try:
            rows = json.loads(body) if body.strip() else []
        except (ValueError, RecursionError) as error:
            raise self._unreadable() from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._unreadable()
        return rows

    def _unreadable(self) -> Unavailable:
        return Unavailable(self._reason("donne une réponse illisible"), code="pacs-protocol")

    def _reason(self, what: str) -> str:
        return f"Le PACS {self._pacs_id} {what}."


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None
