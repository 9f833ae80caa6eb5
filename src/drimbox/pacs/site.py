"""A PACS of the site, and the associations that we open to it: never more at once than it can bear."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from drimbox.foundation.errors import Busy, Unavailable
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.association import Interrupt, Peer
from drimbox.pacs.dimse.client import ClientAssociation
from drimbox.pacs.dimse.limits import Limits
from drimbox.pacs.dimse.negotiation import Offer
from drimbox.pacs.nodes import Node, Nodes
from drimbox.pacs.pace import Pace

T = TypeVar("T")
_CANCEL_TIMEOUT = 3.0
# Orthanc lists every instance that failed in its last C-GET response: a large series takes 100 kB.
_LIMITS = Limits(command_length=2**20)


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
    alternates: tuple[Node, ...] = ()
    """Where else the same PACS answers; tried in order when the first address cannot be reached."""
    retrieve_nodes: tuple[Node, ...] = ()
    """Where C-MOVE and C-GET are asked; none: where queries are."""
    store_nodes: tuple[Node, ...] = ()
    """Where images are stored to; none: where queries are asked."""
    operations_per_minute: int = 0
    """Questions, retrieves and exports begun in a minute at the most; 0: no limit."""
    tls_name: str = ""
    """The name in its certificate; none: ``host``."""

    @property
    def query_nodes(self) -> tuple[Node, ...]:
        return (Node(self.host, self.port, self.ae_title), *self.alternates)


class PacsLink:
    """The associations to one PACS. Made and closed within one event loop; work runs in threads of its own."""

    def __init__(self, pacs: Pacs, *, tls: ssl.SSLContext | None = None) -> None:
        self.pacs = pacs
        self._tls = tls
        self._query_nodes = Nodes(pacs.query_nodes)
        self._retrieve_nodes = Nodes(pacs.retrieve_nodes) if pacs.retrieve_nodes else self._query_nodes
        self._store_nodes = Nodes(pacs.store_nodes) if pacs.store_nodes else self._query_nodes
        self._pace = Pace(pacs.operations_per_minute)
        self._queries = asyncio.Semaphore(pacs.max_queries)
        self._moves = asyncio.Semaphore(pacs.max_associations)
        # One thread more than associations each: the one that ended may not be quite back.
        self._threads = ThreadPoolExecutor(pacs.max_queries + pacs.max_associations + 2, f"pacs-{pacs.id}")

    def close(self) -> None:
        """Let go of the threads; what still runs ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def echo(self) -> None:
        """C-ECHO. Raises ``Unavailable`` or ``Rejected``."""
        async with self._turn(self._queries):
            await self._associated((uids.VERIFICATION,), ClientAssociation.echo)

    async def query(self, sop_class: str, work: Callable[[ClientAssociation], T]) -> T:
        """Does the work with an association of its own, in a thread. Raises ``Busy`` when none gets free in time.

        Cancelled, it breaks the association and comes back once the work has ended.
        """
        async with self.asking():
            return await self._associated((sop_class,), work)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """A turn to ask a question, however it is asked. Raises ``Busy`` when none comes in time."""
        async with self._turn(self._queries):
            await self._paced()
            yield

    async def offered(self, sop_classes: Sequence[str], *, retrieving: bool = False) -> frozenset[str]:
        """Which of these services the PACS agrees to in an association. Raises ``Unavailable`` or ``Rejected``."""

        def work(association: ClientAssociation) -> frozenset[str]:
            return frozenset(uid for uid in sop_classes if association.offers(uid))

        async with self._turn(self._queries):
            return await self._associated(sop_classes, work, retrieving=retrieving)

    @asynccontextmanager
    async def moving(self, *, paced: bool = True) -> AsyncIterator[None]:
        """A turn to retrieve, or to store. Raises ``Busy`` when none comes in time.

        Not ``paced``: it is part of an operation that has been counted.
        """
        async with self._turn(self._moves):
            if paced:
                await self._paced()
            yield

    def associate(
        self, offers: Sequence[str | Offer], interrupt: Interrupt, *, retrieving: bool = False
    ) -> ClientAssociation:
        """Opens an association (blocking). Raises ``Unavailable``, ``Busy`` or ``Rejected``."""
        return self._first(self._retrieve_nodes if retrieving else self._query_nodes, offers, interrupt, 1)

    def associate_to_store(
        self, offers: Sequence[Offer], interrupt: Interrupt, *, window: int = 1
    ) -> ClientAssociation:
        """The same to where images are stored to, with ``window`` operations open at once where it allows that."""
        return self._first(self._store_nodes, offers, interrupt, window)

    def _first(
        self, nodes: Nodes, offers: Sequence[str | Offer], interrupt: Interrupt, window: int
    ) -> ClientAssociation:
        """An association with the first node that opens one; what the first of them said where none does."""
        first: Unavailable | None = None
        for node in nodes.in_order():
            try:
                association = ClientAssociation(self._peer(node), offers, interrupt, window=window)
            except Unavailable as error:
                nodes.failed(node)
                first = first or error
                if interrupt.raised:
                    break
                continue
            nodes.worked(node)
            return association
        assert first is not None
        raise first

    def _peer(self, node: Node) -> Peer:
        pacs = self.pacs
        return Peer(
            name=f"Le PACS {pacs.id}",
            host=node.host,
            port=node.port,
            called_ae=node.ae_title,
            calling_ae=pacs.calling_ae_title,
            connect_timeout=pacs.connect_timeout,
            answer_timeout=pacs.answer_timeout,
            tls=self._tls,
            tls_name=pacs.tls_name,
            limits=_LIMITS,
        )

    async def _associated(
        self, offers: Sequence[str | Offer], work: Callable[[ClientAssociation], T], *, retrieving: bool = False
    ) -> T:
        interrupt = Interrupt()

        def run() -> T:
            with self.associate(offers, interrupt, retrieving=retrieving) as association:
                return work(association)

        return await self.in_thread(run, interrupt)

    async def _paced(self) -> None:
        wait = self._pace.reserve(time.monotonic(), self.pacs.queue_timeout)
        if wait is None:
            raise self._busy()
        if wait:
            await asyncio.sleep(wait)

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
            raise self._busy() from error
        try:
            yield
        finally:
            semaphore.release()

    def _busy(self) -> Busy:
        reason = f"Le PACS {self.pacs.id} est occupé par d'autres demandes de la passerelle."
        return Busy(reason, code="pacs-busy", retry_after=self.pacs.queue_timeout)
