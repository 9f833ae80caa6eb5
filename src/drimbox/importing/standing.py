"""How an import stands within one turn: what became of each image, what goes to the database, what leaves our disk."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError
from drimbox.images.threads import in_thread
from drimbox.importing.coercion import Coercion
from drimbox.importing.ledger import Ledger
from drimbox.importing.orders import Fate, Import, Instance, Verdict
from drimbox.importing.staging import Staging

_FLUSH_EVERY = 0.5
_FLUSH_MOST = 100
# Files that are deleted one by one make the next ones dear: some file systems go past every one deleted lately.
_LEAVING_MOST = 2000
_LEAVING_BYTES = 2**29


class Standing:
    """What one turn knows of the images of its import. The fetching side and the storing side write here."""

    def __init__(self, order: Import, ledger: Ledger, staging: Staging, coercion: Coercion, clock: Clock) -> None:
        self.order = order
        self.staging = staging
        self.coercion = coercion
        self.staged: set[str] = set()
        """Instances that lie on our disk, fetched and checked."""
        self.progress = False
        """Was anything achieved in this turn?"""
        self._ledger = ledger
        self._clock = clock
        self._instances: dict[str, Instance] = {}
        self._source_uid: dict[str, str] = {}
        self._verdicts: list[Verdict] = []
        self._drops: list[str] = []
        self._leaving: list[str] = []
        self._leaving_bytes = 0
        self._sizes: dict[str, int] = {}
        self._flushed_at = 0.0
        self._writing = asyncio.Lock()

    @property
    def instances(self) -> Mapping[str, Instance]:
        """By their SOP Instance UID at the source."""
        return self._instances

    async def opened(self) -> None:
        """Read how far the import has come, in the database and on the disk."""
        self._instances = {i.sop_instance_uid: i for i in await self._ledger.instances(self.order.id)}
        self._source_uid = {self.coercion.uid(uid): uid for uid in self._instances}
        found = await in_thread(self.staging.open)
        self.staged = set(found & self.waiting())
        await in_thread(self.staging.drop, found - self.staged)

    def source_uid(self, uid: str) -> str:
        """The name at the source of what is stored as ``uid``."""
        return self._source_uid[uid]

    def waiting(self) -> set[str]:
        """What the target neither has nor refused."""
        return {uid for uid, one in self._instances.items() if one.fate is Fate.WAITING}

    def stages(self, uid: str, size: int) -> None:
        """An image is on our disk, whole and checked."""
        self.staged.add(uid)
        self._sizes[uid] = size
        self.progress = True

    def judge(self, verdict: Verdict) -> None:
        """What became of an instance; one that waits again has been tried once more."""
        former = self._instances[verdict.sop_instance_uid]
        tries = former.tries + (verdict.fate is Fate.WAITING)
        self._instances[verdict.sop_instance_uid] = replace(
            former, fate=verdict.fate, status=verdict.status, code=verdict.code, detail=verdict.detail, tries=tries
        )
        self._verdicts.append(verdict)

    def give_up(self, uids: Collection[str], error: DrimboxError) -> None:
        """Of these nothing more will come."""
        for uid in uids:
            self.judge(Verdict(uid, Fate.REFUSED, None, error.code, error.reason))

    def unreadable(self, uid: str) -> None:
        """What lies on our disk of an image is no use: it is fetched again."""
        self.staged.discard(uid)
        self.drop(uid)
        self.judge(Verdict(uid, Fate.WAITING, None, "file-unreadable", "Image illisible sur le disque de la DRIMbox"))

    def drop(self, uid: str) -> None:
        """An image is not needed on our disk, once what became of it is written down."""
        self._drops.append(uid)

    async def drop_now(self, uids: Collection[str]) -> None:
        """Images that must not stay."""
        await in_thread(self.staging.drop, uids)
        self.staged.difference_update(uids)

    async def flush(self, *, if_due: bool = False) -> None:
        """To the database, and only then off our disk: what is lost between is stored once more, to no effect."""
        now = self._clock.monotonic()
        if if_due and len(self._verdicts) < _FLUSH_MOST and now - self._flushed_at < _FLUSH_EVERY:
            return
        if if_due and self._writing.locked():
            return
        async with self._writing:
            self._flushed_at = now
            verdicts, self._verdicts = self._verdicts, []
            drops, self._drops = self._drops, []
            waiting = self.waiting()
            fetched = len(self._instances) - len(waiting) + len(self.staged & waiting)
            try:
                await self._ledger.note(self.order.id, verdicts, fetched=fetched)
            except BaseException:
                self._verdicts = verdicts + self._verdicts
                self._drops = drops + self._drops
                raise
            self._leaving += drops
            self._leaving_bytes += sum(self._sizes.pop(uid, 0) for uid in drops)
            if len(self._leaving) > _LEAVING_MOST or self._leaving_bytes > _LEAVING_BYTES:
                await self.cleared()

    async def cleared(self) -> None:
        """What was dropped and written down goes from our disk."""
        leaving, self._leaving, self._leaving_bytes = self._leaving, [], 0
        await in_thread(self.staging.drop, leaving)
