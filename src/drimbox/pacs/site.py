"""A PACS of the site, and the associations that we open to it: never more at once than it can bear."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from drimbox.foundation.errors import Busy
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.client import ClientAssociation, Interrupt, Peer

T = TypeVar("T")
_CANCEL_TIMEOUT = 3.0


@dataclass(frozen=True, slots=True)
class Pacs:
    """How a PACS is reached and what it may be asked; times are in seconds."""

    id: str
    """Short name: what logs and reasons call it."""
    host: str
    port: int
    ae_title: str
    calling_ae_title: str = "DRIMBOX"
    connect_timeout: float = 5.0
    answer_timeout: float = 30.0
    """Without any sign of life."""
    query_timeout: float = 120.0
    """Longest query, however many answers still come."""
    retrieve_timeout: float = 3600.0
    """Longest retrieve, whatever the PACS promises."""
    queue_timeout: float = 60.0
    """Longest wait for one of our own associations to be free."""
    max_associations: int = 4
    """Retrieves at once."""
    max_queries: int = 2
    """Queries at once, besides: a question must not wait behind the images of slow clients."""
    max_answers: int = 100_000
    """A query with more answers is given up: it is not one study."""
    patient_issuer: str = ""
    """OID of the issuer of its patient numbers, when its answers name none."""
    accession_issuer: str = ""
    storing_ae_titles: frozenset[str] = frozenset()
    """AE titles under which it stores to us; none: any that the receiver lets in."""
    checks_originator: bool = True
    """The move originator that it puts in its C-STORE requests must be our retrieve (PS3.7 9.1.1.1)."""
    checks_counts: bool = True
    """A list of series or images shorter than the number that the PACS itself announces is not a whole answer."""


class PacsLink:
    """The associations to one PACS. Made and closed within one event loop; work runs in threads of its own."""

    def __init__(self, pacs: Pacs, *, tls: ssl.SSLContext | None = None) -> None:
        self.pacs = pacs
        self._peer = Peer(
            name=f"Le PACS {pacs.id}",
            host=pacs.host,
            port=pacs.port,
            called_ae=pacs.ae_title,
            calling_ae=pacs.calling_ae_title,
            connect_timeout=pacs.connect_timeout,
            answer_timeout=pacs.answer_timeout,
            tls=tls,
        )
        self._queries = asyncio.Semaphore(pacs.max_queries)
        self._moves = asyncio.Semaphore(pacs.max_associations)
        # One thread more than associations each: the one that ended may not be quite back.
        self._threads = ThreadPoolExecutor(pacs.max_queries + pacs.max_associations + 2, f"pacs-{pacs.id}")

    def close(self) -> None:
        """Let go of the threads; what still runs ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def echo(self) -> None:
        """C-ECHO. Raises ``Unavailable`` or ``Rejected``."""
        await self.query(uids.VERIFICATION, ClientAssociation.echo)

    async def query(self, sop_class: str, work: Callable[[ClientAssociation], T]) -> T:
        """Does the work with an association of its own, in a thread. Raises ``Busy`` when none gets free in time.

        Cancelled, it breaks the association and comes back once the work has ended.
        """
        async with self._turn(self._queries):
            interrupt = Interrupt()

            def run() -> T:
                with self.associate(sop_class, interrupt) as association:
                    return work(association)

            return await self.in_thread(run, interrupt)

    @asynccontextmanager
    async def moving(self) -> AsyncIterator[None]:
        """A turn to retrieve. Raises ``Busy`` when none comes in time."""
        async with self._turn(self._moves):
            yield

    def associate(self, sop_class: str, interrupt: Interrupt) -> ClientAssociation:
        """Opens an association (blocking). Raises ``Unavailable``, ``Busy`` or ``Rejected``."""
        return ClientAssociation(self._peer, (sop_class,), interrupt)

    async def in_thread(
        self, work: Callable[[], T], interrupt: Interrupt, cancel: Callable[[], None] | None = None
    ) -> T:
        """Runs the work in a thread of this PACS.

        Cancelled, it asks the work to ``cancel`` where it knows how, interrupts it where that takes too long, and comes
        back once the work has ended.
        """
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if cancel is not None:
                cancel()
                await asyncio.wait([future], timeout=_CANCEL_TIMEOUT)
            interrupt.set()
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()
            raise

    @asynccontextmanager
    async def _turn(self, semaphore: asyncio.Semaphore) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.pacs.queue_timeout):
                await semaphore.acquire()
        except TimeoutError as error:
            reason = f"Le PACS {self.pacs.id} est occupé par d'autres demandes de la passerelle."
            raise Busy(reason, code="pacs-busy", retry_after=self.pacs.queue_timeout) from error
        try:
            yield
        finally:
            semaphore.release()
