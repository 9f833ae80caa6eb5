"""The cache on the disk: which volumes there are, what may stay, what must go."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

from drimbox.cache.limits import Limits
from drimbox.cache.sealing import Damaged, VolumeKey
from drimbox.cache.volume import Card, Draft, Row, Space, Volume, boot_id, decode_card
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Misconfigured
from drimbox.identity.ins import Ins
from drimbox.images.ports import StoredInstance
from drimbox.images.threads import in_thread

_log = logging.getLogger(__name__)

Tell = Callable[[str, str], Awaitable[None]]
_FULL = (
    "cache-disk",
    "Le disque du cache d'images est plein ou en défaut : les images sont servies sans y être gardées. "
    "Libérez de la place, ou réduisez [source.cache] max_gb",
)
_USED_EVERY = 60.0
# What is kept beside an image: its row, its edited beginning, its description.
_NOTES = 16 * 2**10


class Store:
    """Made by ``opened``. For one event loop; whatever blocks runs in threads."""

    def __init__(self, folder: Path, master: bytes, limits: Limits, clock: Clock, *, sealed: bool, tell: Tell) -> None:
        self.limits = limits
        self.folder = folder
        self._master = master
        self._clock = clock
        self._sealed = sealed
        self._tell = tell
        self._volumes: dict[str, Volume] = {}
        self._by_space: dict[Space, list[Volume]] = {}
        self._drafting: dict[str, int] = {}
        self._used = 0
        self._promised = 0
        self._in_trouble = False
        self._making_room = asyncio.Lock()
        self._removals: set[asyncio.Task[None]] = set()

    # --- what there is ---

    @property
    def bytes(self) -> int:
        """What volumes take, those in the making included."""
        return self._used + self._promised + sum(self._drafting.values())

    @property
    def volumes(self) -> tuple[Volume, ...]:
        return tuple(self._volumes.values())

    def held(self, space: Space) -> tuple[Volume, ...]:
        """The volumes of a KOS, newest first."""
        return tuple(reversed(self._by_space.get(space, ())))

    async def rows(self, volume: Volume) -> Mapping[str, Row]:
        """The table of a volume; empty, and the volume goes, where it cannot be read."""
        self._touch(volume)
        if volume.rows is None:
            try:
                await in_thread(volume.load)
            except (OSError, Damaged):
                _log.error("a volume of the image cache is damaged: removed")
                self.drop(volume)
                return {}
            self._forget_tables(volume)
        return volume.rows or {}

    @contextmanager
    def pinned(self, volumes: Iterable[Volume]) -> Iterator[None]:
        """They are being read: none is removed meanwhile."""
        held = tuple(volumes)
        for volume in held:
            volume.pins += 1
        try:
            yield
        finally:
            for volume in held:
                self.unpin(volume)

    def unpin(self, volume: Volume) -> None:
        volume.pins -= 1
        if volume.dead and not volume.pins:
            self._remove(volume)

    # --- what comes ---

    def draft(self) -> Draft:
        """A place for a new volume. Raises ``OSError``."""
        name = uuid.uuid4().hex
        draft = Draft(self.folder / name, VolumeKey(self._master, name, sealed=self._sealed))
        self._drafting[name] = 0
        return draft

    async def make_room(self, size: int) -> bool:
        """Is there room for ``size`` more bytes, once the least used volumes have gone?"""
        if self._fits(size):
            return True
        async with self._making_room:
            while not self._fits(size):
                victim = min((v for v in self._volumes.values() if not v.pins), key=lambda v: v.used, default=None)
                if victim is None or size > self.limits.max_bytes:
                    return False
                self._take_out(victim)
                await in_thread(victim.remove)
        return True

    async def add(
        self, draft: Draft, stored: StoredInstance, space: Space, series_uid: str | None, ins: Ins
    ) -> Row | None:
        """Take an image over (see ``Draft.add``). None where it cannot be kept: it stays where it is."""
        size = stored.size + _NOTES
        if not await self.make_room(size):
            return None
        self._promised += size
        try:
            return await in_thread(draft.add, stored.path, stored.sop_instance_uid, space.study_uid, series_uid, ins)
        except OSError as error:
            await self.trouble(error)
            return None
        finally:
            self._promised -= size
            self._drafting[draft.folder.name] = draft.bytes

    async def commit(self, draft: Draft, card: Card) -> Volume | None:
        """The draft becomes a volume, pinned once. None where it cannot: it is then to be discarded."""
        try:
            await in_thread(draft.commit, card)
        except OSError as error:
            await self.trouble(error)
            return None
        volume = Volume(draft.folder, draft.key, card, used=self._clock.monotonic(), age=0.0)
        volume.rows = dict(draft.rows)
        volume.trust(draft.rows.values())
        volume.pins = 1
        self._drafting.pop(draft.folder.name, None)
        self._put_in(volume)
        self._in_trouble = False
        self._forget_tables(volume)
        return volume

    async def discard(self, draft: Draft) -> None:
        """It will not become a volume."""
        self._drafting.pop(draft.folder.name, None)
        await in_thread(draft.remove)

    async def trouble(self, error: OSError) -> None:
        """Tell the operator that nothing can be kept: once, until something can again."""
        if self._in_trouble:
            return
        self._in_trouble = True
        _log.error("the image cache cannot keep images: %s", errno.errorcode.get(error.errno or 0, "?"))
        await self._tell(*_FULL)

    def resize(self, volume: Volume, size: int) -> None:
        """A volume has grown by its notes, or has let go of something."""
        if volume.name in self._volumes:
            self._used += size - volume.card.bytes
        volume.card = replace(volume.card, bytes=size)

    # --- what goes ---

    def drop(self, volume: Volume) -> None:
        """It is served to nobody any more, and goes once its last reader has left."""
        if volume.dead:
            return
        self._take_out(volume)
        volume.dead = True
        if not volume.pins:
            self._remove(volume)

    def forget(self, *, study_uid: str, kos_uid: str | None = None) -> int:
        """Drop what is kept of a study, or of one KOS of it; returns how many volumes that were."""
        found = [
            v
            for v in self._volumes.values()
            if v.card.space.study_uid == study_uid and kos_uid in (None, v.card.space.kos_uid)
        ]
        for volume in found:
            self.drop(volume)
        return len(found)

    def expire(self) -> int:
        """Drop what is older than the limit; returns how many."""
        now = self._clock.monotonic()
        old = [v for v in self._volumes.values() if now - v.born > self.limits.max_age]
        for volume in old:
            self.drop(volume)
        return len(old)

    async def settle(self) -> None:
        """Wait until what was to be removed is."""
        while self._removals:
            await asyncio.gather(*self._removals)

    # --- inside ---

    def _fits(self, size: int) -> bool:
        if self.bytes + size > self.limits.max_bytes:
            return False
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize - size >= self.limits.min_free

    def _put_in(self, volume: Volume) -> None:
        self._volumes[volume.name] = volume
        self._by_space.setdefault(volume.card.space, []).append(volume)
        self._used += volume.card.bytes

    def _take_out(self, volume: Volume) -> None:
        if self._volumes.pop(volume.name, None) is None:
            return
        self._used -= volume.card.bytes
        siblings = self._by_space[volume.card.space]
        siblings.remove(volume)
        if not siblings:
            del self._by_space[volume.card.space]

    def _remove(self, volume: Volume) -> None:
        task = asyncio.get_running_loop().create_task(in_thread(volume.remove))
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    def _touch(self, volume: Volume) -> None:
        now = self._clock.monotonic()
        if now - volume.used > _USED_EVERY:
            # What was used last is known after a restart too.
            try:
                os.utime(volume.folder / "index")
            except OSError:
                _log.debug("a volume could not be touched")
        volume.used = now

    def _forget_tables(self, kept: Volume) -> None:
        loaded = sorted((v for v in self._volumes.values() if v.rows is not None), key=lambda v: v.used)
        total = sum(v.weight for v in loaded)
        for volume in loaded:
            if total <= self.limits.tables_bytes:
                return
            if not volume.pins and volume is not kept:
                total -= volume.weight
                volume.unload()

    def load(self) -> None:
        """Find the volumes of an earlier process; what is not whole, not ours or not safe on the disk is removed."""
        boot = boot_id()
        now, wall = self._clock.monotonic(), self._clock.now().timestamp()
        for folder in sorted(self.folder.iterdir(), key=_last_use):
            if not folder.is_dir():
                continue
            volume = self._found(folder, boot, now, wall)
            if volume is None:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                self._put_in(volume)

    def _found(self, folder: Path, boot: str, now: float, wall: float) -> Volume | None:
        key = VolumeKey(self._master, folder.name, sealed=self._sealed)
        try:
            card = decode_card(key.unseal((folder / "index").read_bytes()))
            used = (folder / "index").stat().st_mtime
        except (OSError, Damaged, UnicodeError):
            return None
        if card.sealed != self._sealed or not (card.synced or (boot and card.boot == boot)):
            return None
        # A clock that was set back makes nothing younger than new.
        age, idle = max(wall - card.created_at, 0.0), max(wall - used, 0.0)
        volume = Volume(folder, key, card, used=now, age=age)
        volume.used = now - idle
        return volume


def _last_use(folder: Path) -> float:
    try:
        return (folder / "index").stat().st_mtime
    except OSError:
        return 0.0


@asynccontextmanager
async def opened(
    folder: Path, master: bytes, limits: Limits, clock: Clock, *, sealed: bool = False, tell: Tell
) -> AsyncIterator[Store]:
    """The store in a folder that nothing else uses. Raises ``Misconfigured`` (``cache-locked``), ``OSError``."""
    with _alone(folder):
        store = Store(folder, master, limits, clock, sealed=sealed, tell=tell)
        await in_thread(store.load)
        store.expire()
        await store.make_room(0)
        try:
            yield store
        finally:
            await store.settle()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            reason = f"Le dossier {folder} sert déjà de cache à un autre processus : donnez à chacun le sien"
            raise Misconfigured(reason, code="cache-locked") from error
        yield


def chosen(rows: Iterable[Row], expected: Collection[str], series_uid: str | None) -> Sequence[Row]:
    """Those rows that are asked for."""
    return [r for r in rows if r.sop_instance_uid in expected and series_uid in (None, r.series_uid)]
