"""Images fetched from another DRIMbox (rem-consumer.md 8: DB.CO.122 to 125, 68, 84, 112; VI-CO.15, VI-CO.27).

Nothing that the source sends is believed: each file is whole, expected, of the right series, in a syntax that was asked
for, and carries the INS of the patient, before anyone hears of it.
"""

from __future__ import annotations

import logging
import re
import shutil
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from drimbox.dicom.files import mapped
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import (
    IdentityMismatch,
    OutcomeUnknown,
    Refused,
    Rejected,
    Unavailable,
)
from drimbox.foundation.http_client import HttpClient, Stream
from drimbox.foundation.uids import is_uid
from drimbox.identity.ins import Ins
from drimbox.images.answers import refusal
from drimbox.images.header import Header, check_ins, read_header
from drimbox.images.media import KOS_HEADER, parse_media_type
from drimbox.images.multipart import PartData, PartEnd, PartStart, Reader
from drimbox.images.threads import in_thread

_log = logging.getLogger(__name__)

_WRITE_BYTES = 2**20
_PROBE_SECONDS = 10.0
_RETRIEVE_URL = re.compile(r"(?P<base>.*)/studies/(?P<study>[0-9.]+)(?:/series/(?P<series>[0-9.]+))?/?")


@dataclass(frozen=True, slots=True)
class FetchedInstance:
    """One image on the disk, whole and checked."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class _Order:
    """What was asked for: what is received is held against it."""

    study_uid: str
    series_uid: str
    expected: frozenset[str]
    syntaxes: frozenset[str]
    classes: frozenset[str]
    ins: Ins


class SourceState(Enum):
    """What a probe tells of a source after a fetch failed (DB.CO.112)."""

    ALIVE = "DRIMbox source joignable, mais son PACS ne semble pas l'être"
    DEAD = "DRIMbox source injoignable : elle est peut-être arrêtée, ou la liaison Internet coupée"


class WadoClient:
    """Fetches series.

    ``silence``: seconds without a byte after which a source is held for gone; ``longest``: seconds that one answer may
    take in all; ``max_bytes``: what it may hold; ``min_free``: bytes that stay free on the disk whatever is sent.
    """

    def __init__(
        self,
        http: HttpClient,
        clock: Clock,
        *,
        silence: float = 60.0,
        longest: float = 3600.0,
        max_bytes: int = 8 * 2**30,
        min_free: int = 0,
        listed: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        """``listed`` is asked before each connection whether its host may be called (decision 15).

        It may raise ``Unavailable``, when no list can be believed.
        """
        self._listed = listed
        self._http = http
        self._clock = clock
        self._silence = silence
        self._longest = longest
        self._max_bytes = max_bytes
        self._min_free = min_free

    def fetch_series(
        self,
        retrieve_url: str,
        *,
        tls: ssl.SSLContext,
        token: Callable[[], Awaitable[str]],
        kos_uid: str,
        accept: Sequence[str],
        expected: Collection[str],
        ins: Ins,
        folder: Path,
        classes: Collection[str] = (),
    ) -> AbstractAsyncContextManager[AsyncIterator[FetchedInstance]]:
        """The images of ``retrieve_url`` (a study or a series) as they arrive, written into ``folder``.

        ``accept`` ranks the transfer syntaxes, best first (``accept_header``); ``expected`` are the SOP Instance UIDs
        that the KOS lists; ``classes`` the SOP classes that can be used, any when empty. The host must be in the
        whitelist, now and not only when the KOS was read.
        Files that were handed over stay; leaving the block early ends the transfer and deletes what was not handed
        over. The iteration ends only when all that was expected has come.

        Raises, besides what ``token`` raises (code, kind):

        ======================== ======================= ==================================================
        ``source-unreachable``   Unavailable             no connection, TLS refused
        ``source-error``         Unavailable             cut, incomplete, 5xx, an answer that is no images
        ``source-busy``          Busy                    503 with Retry-After
        ``host-not-listed``      Refused                 the whitelist does not name the host
        ``whitelist-…``          Unavailable             no whitelist can be believed
        ``sop-class``            Refused                 an image of a class that is not in ``classes``
        ``syntax-not-asked``     Refused                 a syntax that is not in ``accept``
        ``syntax-unavailable``   Rejected                406
        ``token-refused``        Rejected                401
        ``profession-refused``   Rejected                403
        ``box-refused``          Rejected                403, of the certificate or the box
        ``images-unknown``       Rejected                404
        ``images-gone``          Rejected                410
        ``request-refused``      Rejected                400 and other 4xx
        ``ins-…``, ``image-…``   IdentityMismatch        another patient's, another exam's: all files are deleted
        ``image-unexpected``     Refused                 twice, or not in the KOS
        ``answer-size``          Refused                 more than ``max_bytes``
        ``disk``                 Unavailable             less than ``min_free`` would be left on the disk, or it fails
        ``multipart-``, ``dicom-`` Refused               what cannot be read
        ======================== ======================= ==================================================
        """
        found = _RETRIEVE_URL.fullmatch(retrieve_url)
        uids = [u for u in (found["study"], found["series"]) if u] if found else []
        if found is None or not all(map(is_uid, uids)) or urlsplit(retrieve_url).scheme != "https":
            raise Refused("Adresse des images mal formée dans le KOS", code="retrieve-url")
        order = _Order(
            study_uid=found["study"],
            series_uid=found["series"] or "",
            expected=frozenset(expected),
            syntaxes=frozenset(syntax for rank in accept for syntax in rank.split()),
            classes=frozenset(classes),
            ins=ins,
        )
        return self._fetch(retrieve_url.rstrip("/"), order, tls, token, kos_uid, accept_header(accept), folder)

    async def probe(self, retrieve_url: str, *, tls: ssl.SSLContext) -> SourceState:
        """After a failure: is it the source that is down, or its PACS (DB.CO.112)? By Retrieve Capabilities."""
        base = retrieve_url.partition("/studies/")[0]
        try:
            await self._check_listed(base)
            answer = await self._http.send(
                "OPTIONS", base, tls=tls, timeout=_PROBE_SECONDS, headers=_PLAIN, max_bytes=2**20
            )
        except (Unavailable, OutcomeUnknown, Rejected, Refused):
            return SourceState.DEAD
        return SourceState.ALIVE if answer.status < 500 else SourceState.DEAD

    async def _check_listed(self, url: str) -> None:
        """No token leaves for a host that the list of this moment does not name. Raises as ``fetch_series``."""
        if self._listed is not None and not await self._listed(urlsplit(url).hostname or ""):
            raise Refused("La source des images n'est pas dans la liste blanche des DRIMbox", code="host-not-listed")

    @asynccontextmanager
    async def _fetch(
        self,
        url: str,
        order: _Order,
        tls: ssl.SSLContext,
        token: Callable[[], Awaitable[str]],
        kos_uid: str,
        accept: str,
        folder: Path,
    ) -> AsyncIterator[AsyncIterator[FetchedInstance]]:
        await self._check_listed(url)
        headers = _PLAIN | {"Accept": accept, "Authorization": f"Bearer {await token()}", KOS_HEADER: kos_uid}
        delivery = _Delivery(order, folder, self._max_bytes, self._min_free)
        try:
            async with (
                self._http.stream("GET", url, tls=tls, headers=headers, silence=self._silence) as answer,
                aclosing(self._received(answer, delivery)) as images,
            ):
                yield images
        except IdentityMismatch:
            await in_thread(delivery.delete_all)
            raise
        except Unavailable as error:
            told = _source_failed(error)
            if told is None:
                raise
            raise told from error
        finally:
            await in_thread(delivery.close)

    async def _received(self, answer: Stream, delivery: _Delivery) -> AsyncGenerator[FetchedInstance, None]:
        if answer.status != 200:
            raise await refusal(answer)
        reader = Reader(_boundary(answer))
        if _announced(answer) > self._max_bytes:
            # Refused before it fills the disk up to that size for nothing.
            raise Refused("La source annonce plus que la taille permise", code="answer-size")
        deadline = self._clock.monotonic() + self._longest
        async for chunk in answer.chunks:
            if self._clock.monotonic() > deadline:
                raise Unavailable("La source envoie les images trop lentement", code="source-error")
            for event in reader.feed(chunk):
                match event:
                    case PartStart():
                        delivery.begin()
                    case PartData(data):
                        await delivery.write(data)
                    case PartEnd():
                        yield await in_thread(delivery.end)
        reader.close()
        if delivery.missing:
            raise Unavailable("La source n'a pas envoyé toutes les images annoncées", code="source-error")


def accept_header(syntaxes: Sequence[str]) -> str:
    """Accept in the form of the official requests, q falling from 1 in the order of ``syntaxes`` (DB.CO.84).

    Several of them in one string, with blanks between, are liked alike: the source then sends what costs it least.
    ``boundary=**`` means nothing, but boxes exist that refuse an element without it (ans-faq.md 6.3).
    """
    step = max(len(syntaxes), 10)
    form = 'multipart/related; type="application/dicom";transfer-syntax={};q={};boundary=**'
    return ",".join(
        form.format(syntax, _quality(step - rank, step))
        for rank, alike in enumerate(syntaxes)
        for syntax in alike.split()
    )


@contextmanager
def disk_in_words() -> Iterator[None]:
    """A disk that is full, over its quota or gone is ``Unavailable`` (``disk``), and no defect of ours."""
    try:
        yield
    except OSError as error:
        _log.error("images cannot be kept: %s", error.strerror)
        raise Unavailable("Espace de stockage des images indisponible", code="disk") from error


class _Delivery:
    """The files of one fetch: the one being written, and those that were handed over."""

    def __init__(self, order: _Order, folder: Path, max_bytes: int, min_free: int) -> None:
        self._order = order
        self._folder = folder
        self._min_free = min_free
        self._left = max_bytes
        self._pending = bytearray()
        self._file: BinaryIO | None = None
        self._path = folder / "receiving.part"
        self._done: dict[str, Path] = {}

    @property
    def missing(self) -> int:
        return len(self._order.expected) - len(self._done)

    def begin(self) -> None:
        if not self.missing:
            raise Refused("La source envoie plus d'images que le KOS n'en annonce", code="image-unexpected")
        self._file = None

    async def write(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise Refused("La source envoie plus que la taille permise", code="answer-size")
        self._pending += data
        if len(self._pending) >= _WRITE_BYTES:
            await in_thread(self._flush)

    def end(self) -> FetchedInstance:
        """The part is whole: is it what was asked for?"""
        self._flush()
        self.close_file()
        with mapped(self._path) as buffer:
            header = read_header(buffer)
        self._check(header)
        path = self._folder / f"{header.sop_instance_uid}.dcm"
        with disk_in_words():
            self._path.replace(path)
        self._done[header.sop_instance_uid] = path
        return FetchedInstance(
            header.sop_instance_uid, header.sop_class_uid, header.transfer_syntax, path, path.stat().st_size
        )

    def close(self) -> None:
        self.close_file()
        self._path.unlink(missing_ok=True)

    def close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def delete_all(self) -> None:
        for path in self._done.values():
            path.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._file is None:
            # Here and not where the part begins: this is a thread that may wait for the disk.
            with disk_in_words():
                self._file = self._path.open("wb", buffering=0)
        if self._min_free and shutil.disk_usage(self._folder).free - len(self._pending) < self._min_free:
            # Before the disk is full: the database and the journals live there too.
            raise Unavailable("Espace de stockage des images insuffisant", code="disk")
        pending, self._pending = self._pending, bytearray()
        view = memoryview(pending)
        with disk_in_words():
            while view:
                view = view[self._file.write(view) or 0 :]

    def _check(self, header: Header) -> None:
        order = self._order
        # Whose it is comes first: what is not this patient's must end everything, whatever else is wrong with it.
        check_ins(header, order.ins)
        if header.study_uid != order.study_uid or order.series_uid not in ("", header.series_uid):
            raise IdentityMismatch("La source a envoyé une image d'un autre examen", code="image-identity")
        if header.sop_instance_uid not in order.expected or header.sop_instance_uid in self._done:
            raise Refused("La source a envoyé une image inattendue", code="image-unexpected")
        if header.transfer_syntax not in order.syntaxes:
            raise Refused(
                "La source a choisi une syntaxe de transfert qui n'était pas demandée",
                code="syntax-not-asked",
                peer_code=header.transfer_syntax,
            )
        if order.classes and header.sop_class_uid not in order.classes:
            raise Refused(
                "Type d'image (classe SOP) non pris en charge", code="sop-class", peer_code=header.sop_class_uid
            )


def _boundary(answer: Stream) -> str:
    media = parse_media_type(answer.headers.get("Content-Type", ""))
    if media is None or media.name != "multipart/related" or not media.get("boundary"):
        raise Unavailable("La source a répondu autre chose que des images", code="source-error")
    return media.get("boundary")


def _announced(answer: Stream) -> int:
    """Content-Length, as far as it can be read: the bytes that come are counted in any case."""
    told = answer.headers.get("Content-Length", "")
    return int(told) if told.isascii() and told.isdecimal() and len(told) < 20 else 0


def _source_failed(error: Unavailable) -> Unavailable | None:
    """A failure of the connection in the words of VI-CO.27; None for what is in them already."""
    if error.code in ("unreachable", "connect-timeout", "tls"):
        return Unavailable(
            "DRIMbox source injoignable", code="source-unreachable", peer_code=error.peer_code or error.code
        )
    if error.code == "answer-cut":
        return Unavailable("Récupération des images interrompue", code="source-error", peer_code=error.peer_code)
    return None


def _quality(numerator: int, denominator: int) -> str:
    return f"{numerator / denominator:.3f}".rstrip("0").rstrip(".")


_PLAIN = {"Accept-Encoding": "identity"}
