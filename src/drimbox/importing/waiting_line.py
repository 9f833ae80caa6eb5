"""Images that may be stored, between who fetches them and who stores them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from drimbox.foundation.errors import Refused
from drimbox.images.threads import in_thread
from drimbox.pacs.dimse.storing import Outgoing

_GATHER_SECONDS, _FIRST_SECONDS = 0.25, 0.02
_FEW, _MANY = 64, 256
#: Bytes of new beginnings of files that wait in memory; over it they are made once more when their turn comes.
_HEADS_BYTES = 32 * 2**20

_Waiting = tuple[str, Outgoing | None]


@dataclass(slots=True)
class WaitingLine:
    """What may be sent, in the order in which it became ready, for ``lanes`` that store side by side.

    ``again`` makes what is to be sent of an image (its name at the source); it blocks. ``lost`` is told of one of which
    that cannot be made.
    """

    again: Callable[[str], Outgoing]
    lost: Callable[[str], None]
    lanes: int = 1
    _queue: asyncio.Queue[_Waiting | None] = field(default_factory=asyncio.Queue)
    _gathering: asyncio.Lock = field(default_factory=asyncio.Lock)
    _void: set[str] = field(default_factory=set)
    _heads: int = 0
    _pause: float = _FIRST_SECONDS

    @property
    def empty(self) -> bool:
        return self._queue.empty()

    def put(self, uid: str, image: Outgoing | None = None) -> None:
        """One more; without ``image`` it is made when its turn comes."""
        if image is not None and image.head:
            if self._heads + len(image.head) > _HEADS_BYTES:
                image = None
            else:
                self._heads += len(image.head)
        self._queue.put_nowait((uid, image))

    def end(self) -> None:
        """Nothing more will come."""
        self._queue.put_nowait(None)

    def void(self, uids: set[str]) -> None:
        """These must not be sent any more."""
        self._void |= uids

    async def batch(self) -> list[Outgoing]:
        """What is ready, at least one; empty at the end.

        A moment is waited for more, longer from one batch to the next: an association for each image would cost more
        than the image.
        """
        async with self._gathering:
            while (gathered := await self._gathered()) is not None:
                wanted = [one for one in gathered if one[0] not in self._void]
                if batch := [image for one in wanted if (image := await self._made(*one)) is not None]:
                    return batch
        return []

    async def _made(self, uid: str, image: Outgoing | None) -> Outgoing | None:
        if image is not None:
            return image
        try:
            return await in_thread(self.again, uid)
        except (Refused, OSError):
            self.lost(uid)
            return None

    async def _gathered(self) -> list[_Waiting] | None:
        first = await self._next()
        if first is None:
            return None
        batch = [first]
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause):
                while len(batch) < self._share(len(batch)):
                    one = await self._next()
                    if one is None:
                        break
                    batch.append(one)
        self._pause = min(2 * self._pause, _GATHER_SECONDS)
        return batch

    def _share(self, taken: int) -> int:
        """How many a lane takes at once: what lies there is for all of them."""
        return max(_FEW, min(_MANY, (taken + self._queue.qsize()) // self.lanes))

    async def _next(self) -> _Waiting | None:
        one = await self._queue.get()
        if one is None:
            # For the others, who wait for the end too.
            self._queue.put_nowait(None)
        elif one[1] is not None:
            self._heads -= len(one[1].head)
        return one
