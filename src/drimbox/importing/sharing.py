"""Images fetched once for the radiologists of a site: two of them, or a view and then an import (DB.CO.69, DB.CO.70).

The disk cache of the source (``drimbox.cache``) does the work, with another rule of who is served: each access brings a
token that is good now, the KOS that its session had from the DMP in its own name, and the INS of its own call; what was
fetched for one KOS, one patient and one structure is served for these alone. What was made with loss for a viewer is
never given to an import.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import hmac
import logging
import os
import shutil
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from drimbox.cache.limits import Limits
from drimbox.cache.source import Cache, CachedSource
from drimbox.cache.source import sharing as cache_sharing
from drimbox.cache.store import Store
from drimbox.cache.store import opened as opened_store
from drimbox.cache.volume import Space, Volume
from drimbox.dicom.files import mapped
from drimbox.foundation.clock import PARIS, Clock
from drimbox.foundation.errors import IdentityMismatch, Refused, Unavailable
from drimbox.foundation.uids import new_secret
from drimbox.identity.ins import Ins
from drimbox.images.client import FetchedInstance, SourceState, WadoClient, disk_in_words
from drimbox.images.header import Header, check_ins, read_header
from drimbox.images.ports import KeptInstance, StoredInstance
from drimbox.images.threads import in_thread
from drimbox.importing.ports import Token
from drimbox.pacs.study import Study

_log = logging.getLogger(__name__)
_SWEEP_SECONDS = 60.0
# Larger images are deciphered piece by piece.
_IN_MEMORY_BYTES = 2**25


@dataclass(frozen=True, slots=True)
class Retention:
    """How long images stay: ``hours`` each, or all of them to the end of the working day (``day_ends``, Paris time)."""

    hours: float = 0.0
    day_ends: dt.time = dt.time(20)

    def limit(self, now: dt.datetime) -> dt.datetime:
        """What was kept before this moment goes."""
        if self.hours:
            return now - dt.timedelta(hours=self.hours)
        here = now.astimezone(PARIS)
        end = here.replace(hour=self.day_ends.hour, minute=self.day_ends.minute, second=0, microsecond=0)
        return end if end <= here else end - dt.timedelta(days=1)


class _Source:
    """``images.ports.SeriesSource`` over one request to another DRIMbox, with one user's token."""

    def __init__(
        self,
        wado: WadoClient,
        spool: Path,
        retrieve_url: str,
        tls: ssl.SSLContext,
        token: Token,
        kos_uid: str,
        accept: Sequence[str],
        listed: Collection[str],
        ins: Ins,
    ) -> None:
        self._ask = (wado, spool, retrieve_url, tls, token, kos_uid, accept, listed, ins)

    @asynccontextmanager
    async def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str]
    ) -> AsyncIterator[AsyncIterator[StoredInstance]]:
        wado, spool, url, tls, token, kos_uid, accept, listed, ins = self._ask
        folder = spool / new_secret()
        with disk_in_words():
            await in_thread(folder.mkdir, mode=0o700, parents=True)
        try:
            # The source sends the whole series whatever is missing here.
            async with wado.fetch_series(
                url, tls=tls, token=token, kos_uid=kos_uid, accept=accept, expected=listed, ins=ins, folder=folder
            ) as images:
                yield images
        finally:
            await in_thread(shutil.rmtree, folder, ignore_errors=True)


class _Nobody:
    """There is no PACS to ask: what was fetched for a KOS is as old as the KOS."""

    async def find(self, study_uid: str) -> Study | None:
        raise Unavailable("Aucun PACS à interroger", code="no-pacs")


class _Shared(CachedSource):
    """A cached source whose volumes are not described: viewers read the files themselves."""

    async def finish(self, volume: Volume) -> None:
        try:
            async with self._cache.syncing:
                await in_thread(volume.sync)
        except OSError as error:
            if not volume.dead:
                await self._cache.store.trouble(error)


class SharedFetcher:
    """``WadoClient`` with a memory: the same calls, and the same errors."""

    def __init__(
        self, wado: WadoClient, cache: Cache, spool: Path, key: bytes, site_of: Callable[[ssl.SSLContext], str]
    ) -> None:
        """``site_of`` names the structure whose certificate is presented; images are shared within it alone.

        ``key`` makes patients unreadable in what is written on the disk.
        """
        self._wado = wado
        self._cache = cache
        self._spool = spool
        self._key = hmac.digest(key, b"drimbox consumer cache patient", "sha256")
        self._site_of = site_of

    async def probe(self, retrieve_url: str, *, tls: ssl.SSLContext) -> SourceState:
        return await self._wado.probe(retrieve_url, tls=tls)

    @asynccontextmanager
    async def fetch_series(
        self,
        retrieve_url: str,
        *,
        tls: ssl.SSLContext,
        token: Token,
        kos_uid: str,
        accept: Sequence[str],
        expected: Collection[str],
        ins: Ins,
        folder: Path,
    ) -> AsyncIterator[AsyncIterator[FetchedInstance]]:
        """As ``WadoClient.fetch_series``; what is here already does not travel again."""
        study_uid, series_uid = _named(retrieve_url)
        site = self._site_of(tls)
        if not site:
            async with self._wado.fetch_series(
                retrieve_url, tls=tls, token=token, kos_uid=kos_uid, accept=accept, expected=expected, ins=ins,
                folder=folder,
            ) as direct:  # fmt: skip
                yield direct
            return
        # Whoever is served from here could have asked the source: their session is alive at Pro Sante Connect.
        await token()
        syntaxes = frozenset(syntax for rank in accept for syntax in rank.split())
        group = _Group(self._owner(site, ins), study_uid, kos_uid)
        space = await self._space(group, series_uid, accept, syntaxes, frozenset(expected))
        source = _Source(self._wado, self._spool, retrieve_url, tls, token, kos_uid, accept, expected, ins)
        shared = _Shared(self._cache, space, ins, source, _Nobody())
        order = _Order(study_uid, series_uid, syntaxes, ins, folder)
        async with (
            shared.retrieve(study_uid, series_uid or None, expected) as images,
            aclosing(self._given(images, order)) as given,
        ):
            yield given

    async def _given(
        self, images: AsyncIterator[StoredInstance], order: _Order
    ) -> AsyncGenerator[FetchedInstance, None]:
        """Each image as a file of the caller's own, looked at once more: whose it is, and that it was asked for."""
        done: list[Path] = []
        try:
            async for image in images:
                fetched = await in_thread(_taken, image, order)
                done.append(fetched.path)
                yield fetched
        except IdentityMismatch:
            await in_thread(_delete, done)
            raise

    def _owner(self, site: str, ins: Ins) -> str:
        """Whose images these are, in the words of the cache: a structure, and a patient that nobody can read."""
        patient = hmac.new(self._key, ins.cx().encode("ascii"), "sha256").hexdigest()[:32]
        return f"{site}/{patient}"

    async def _space(
        self,
        group: _Group,
        series_uid: str,
        accept: Sequence[str],
        syntaxes: frozenset[str],
        expected: frozenset[str],
    ) -> Space:
        """Where these images are kept, or are to be: what was fetched for another purpose serves where it would do."""
        purpose = hashlib.sha256("\n".join(accept).encode("ascii")).hexdigest()[:16]
        own = Space(group.owner, purpose, group.study_uid, group.kos_uid)
        store = self._cache.store
        for space in dict.fromkeys((own, *(v.card.space for v in store.volumes if group.has(v.card.space)))):
            left = set(expected)
            for volume in store.held(space):
                rows = await store.rows(volume)
                left -= {uid for uid, row in rows.items() if row.transfer_syntax in syntaxes}
            if not left:
                return space
        for flight in self._cache.flights.under_way(group.owner, group.study_uid, group.kos_uid):
            covers = expected <= flight.errand.instances and flight.covers(series_uid or None)
            if covers and flight.syntaxes and flight.syntaxes <= syntaxes:
                return flight.errand.space
        return own


@dataclass(frozen=True, slots=True)
class _Group:
    """What was fetched for one KOS and one patient within one structure, whatever the purpose."""

    owner: str
    study_uid: str
    kos_uid: str

    def has(self, space: Space) -> bool:
        return (space.structure, space.study_uid, space.kos_uid) == (self.owner, self.study_uid, self.kos_uid)


@dataclass(frozen=True, slots=True)
class _Order:
    """What an image must be to be handed over, and where to."""

    study_uid: str
    series_uid: str
    syntaxes: frozenset[str]
    ins: Ins
    folder: Path


def _taken(image: StoredInstance, order: _Order) -> FetchedInstance:
    """The image in the caller's folder. Raises ``IdentityMismatch``, ``Refused``, ``Unavailable``, ``OSError``."""
    if isinstance(image, KeptInstance) and not image.in_clear and image.size <= _IN_MEMORY_BYTES:
        # Deciphered once, straight into the file that it is handed over as.
        content = bytearray(image.size)
        image.read_into(0, memoryview(content), wait=True)
        return _written(content, image.sop_instance_uid, order)
    if isinstance(image, KeptInstance):
        source = image.acquire()
        try:
            return _handed(source, image.sop_instance_uid, order)
        finally:
            image.release()
    return _handed(image.path, image.sop_instance_uid, order)


def _handed(source: Path, uid: str, order: _Order) -> FetchedInstance:
    with mapped(source) as buffer:
        header = read_header(buffer)
    _check(header, uid, order)
    target = order.folder / f"{uid}.dcm"
    target.unlink(missing_ok=True)
    try:
        # The same file under another name: it stays when the cache lets go of its own.
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copyfile(source, target)
    return FetchedInstance(uid, header.sop_class_uid, header.transfer_syntax, target, target.stat().st_size)


def _written(content: bytearray, uid: str, order: _Order) -> FetchedInstance:
    header = read_header(content)
    _check(header, uid, order)
    target = order.folder / f"{uid}.dcm"
    target.unlink(missing_ok=True)
    with target.open("wb", buffering=0) as file:
        view = memoryview(content)
        while view:
            view = view[file.write(view) or 0 :]
    return FetchedInstance(uid, header.sop_class_uid, header.transfer_syntax, target, len(content))


def _check(header: Header, uid: str, order: _Order) -> None:
    check_ins(header, order.ins)
    if header.study_uid != order.study_uid or order.series_uid not in ("", header.series_uid):
        raise IdentityMismatch("La source a envoyé une image d'un autre examen", code="image-identity")
    if header.sop_instance_uid != uid:
        raise IdentityMismatch("La source a envoyé une image d'un autre examen", code="image-identity")
    if header.transfer_syntax not in order.syntaxes:
        raise Refused(
            "La source a choisi une syntaxe de transfert qui n'était pas demandée",
            code="syntax-not-asked",
            peer_code=header.transfer_syntax,
        )


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _named(retrieve_url: str) -> tuple[str, str]:
    """Study and series of an address, empty where it names none."""
    after = retrieve_url.partition("/studies/")[2]
    study, _, rest = after.partition("/series/")
    return study.strip("/"), rest.strip("/")


@asynccontextmanager
async def sharing(
    wado: WadoClient,
    folder: Path,
    master: bytes,
    limits: Limits,
    retention: Retention,
    clock: Clock,
    site_of: Callable[[ssl.SSLContext], str],
    *,
    sealed: bool = False,
) -> AsyncIterator[SharedFetcher]:
    """The fetcher of a box as long as the block lasts. Raises ``Misconfigured`` (``cache-locked``), ``OSError``."""

    async def tell(code: str, reason: str) -> None:
        _log.error("the consumer's image cache keeps nothing: %s", code)

    async def none_rejected(study_uid: str) -> Collection[str]:
        return ()

    spool = folder.with_name(folder.name + "-spool")
    await in_thread(shutil.rmtree, spool, ignore_errors=True)
    async with (
        opened_store(folder, master, limits, clock, sealed=sealed, tell=tell) as store,
        cache_sharing(store, limits, clock, none_rejected) as cache,
    ):
        expire(store, retention, clock)
        sweeper = asyncio.create_task(_sweep(store, retention, clock))
        try:
            yield SharedFetcher(wado, cache, spool, master, site_of)
        finally:
            sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await sweeper


def expire(store: Store, retention: Retention, clock: Clock) -> int:
    """Let go of what has stayed long enough; returns how many volumes."""
    limit = retention.limit(clock.now()).timestamp()
    old = [v for v in store.volumes if v.card.created_at < limit]
    for volume in old:
        store.drop(volume)
    return len(old)


async def _sweep(store: Store, retention: Retention, clock: Clock) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        expire(store, retention, clock)
