"""The one HTTP client. Each call names its TLS context, so that no certificate is ever used for another destination."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy

from drimbox.foundation.errors import OutcomeUnknown, Rejected, Unavailable

_CUT = (aiohttp.ClientError, TimeoutError, ssl.SSLError)


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: status, headers, body."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


#: Bytes of a streamed answer that are read ahead: fewer pauses of the connection than with aiohttp's own 64 kB.
_STREAM_BUFFER = 2**19


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer whose body is still arriving. ``chunks`` ends only when the body is whole; a cut raises."""

    status: int
    headers: CIMultiDictProxy[str]
    chunks: AsyncIterator[bytes]


class HttpClient:
    """Sends requests over verified TLS. Use as an async context manager; one per process is enough."""

    def __init__(self, *, connections: int = 64) -> None:
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> HttpClient:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, limit_per_host=0),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "drimbox"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(
        self,
        method: str,
        url: str,
        *,
        tls: ssl.SSLContext,
        headers: Mapping[str, str] | CIMultiDict[str] | None = None,
        body: bytes | AsyncIterable[bytes] | None = None,
        timeout: float = 30.0,
        max_bytes: int = 64 * 2**20,
    ) -> Reply:
        """Send and read the whole answer, ``timeout`` seconds at most in all.

        Raises ``Unavailable`` when nothing was sent (no connection, TLS refused), ``OutcomeUnknown`` when the request
        may have been received, ``Rejected`` (``answer-size``) when the answer is over ``max_bytes``.
        """
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 10))
        try:
            async with self._open.request(
                method, url, headers=headers, data=body, ssl=tls, timeout=limits, allow_redirects=False
            ) as answer:
                received = bytearray()
                async for chunk in answer.content.iter_any():
                    received += chunk
                    if len(received) > max_bytes:
                        raise Rejected("Réponse trop volumineuse", code="answer-size")
                return Reply(answer.status, answer.headers, bytes(received))
        except aiohttp.ClientConnectorError as error:
            raise _unreachable(error) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise Unavailable("Délai de connexion dépassé", code="connect-timeout") from error
        except (aiohttp.ClientError, TimeoutError, ssl.SSLError, OSError) as error:
            raise OutcomeUnknown(
                "Connexion interrompue avant la fin de la réponse", code="answer-cut", peer_code=type(error).__name__
            ) from error

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        tls: ssl.SSLContext,
        headers: Mapping[str, str] | CIMultiDict[str] | None = None,
        silence: float = 60.0,
    ) -> AsyncIterator[Stream]:
        """Send and hand over the body as it arrives; ``silence`` seconds without a byte end it.

        Raises ``Unavailable`` when no connection can be had; iterating raises ``Unavailable`` (``answer-cut``) when
        the body ends before its end: a truncated answer is never taken for a whole one.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silence)
        try:
            async with self._open.request(
                method,
                url,
                headers=headers,
                ssl=tls,
                timeout=limits,
                allow_redirects=False,
                read_bufsize=_STREAM_BUFFER,
            ) as answer:
                yield Stream(answer.status, answer.headers, _whole(answer))
        except aiohttp.ClientConnectorError as error:
            raise _unreachable(error) from error
        except _CUT as error:
            raise _cut(error) from error

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("HttpClient is used outside of its context")
        return self._session


async def _whole(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except _CUT as error:
        raise _cut(error) from error


def _cut(error: Exception) -> Unavailable:
    return Unavailable(
        "Connexion interrompue avant la fin de la réponse", code="answer-cut", peer_code=type(error).__name__
    )


def _unreachable(error: aiohttp.ClientConnectorError) -> Unavailable:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return Unavailable("Connexion TLS refusée", code="tls", peer_code=str(error.args[-1])[:200])
    return Unavailable("Serveur injoignable", code="unreachable", peer_code=type(error.os_error).__name__)
