"""Introspections remembered for as long as they may be, so that a busy source does not overload PSC (decision 17)."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from drimbox.foundation.clock import Clock
from drimbox.national.psc.introspection import INACTIVE, Introspection, is_token
from drimbox.national.psc.sharing import Shared

LONGEST = 60.0


class Introspector(Protocol):
    """Who really asks PSC: ``PscClient``."""

    async def introspect(self, token: str) -> Introspection: ...


@dataclass(frozen=True, slots=True)
class _Kept:
    introspection: Introspection
    until: float


class IntrospectionCache:
    """Asks PSC once for the requests that come together, and remembers a yes for ``max_seconds``, 60 at most.

    Never past the token's own end; a no is never remembered, nor a yes without an end. Only hashes of tokens are kept,
    ``capacity`` of them at most.
    """

    def __init__(self, client: Introspector, clock: Clock, max_seconds: float, *, capacity: int = 4096) -> None:
        self._client = client
        self._clock = clock
        self._max_seconds = min(max_seconds, LONGEST)
        self._capacity = capacity
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._asking = Shared[Introspection]()

    async def introspect(self, token: str) -> Introspection:
        """What PSC says of the token, or said less than ``max_seconds`` ago. Raises what the client raises."""
        if not is_token(token):
            return INACTIVE
        key = hashlib.sha256(token.encode()).digest()
        kept = self._kept.get(key)
        if kept is not None and self._holds(kept):
            return kept.introspection
        return await self._asking.join(key, lambda: self._ask(key, token))

    async def _ask(self, key: bytes, token: str) -> Introspection:
        until = self._clock.monotonic() + self._max_seconds
        self._kept.pop(key, None)
        kept = _Kept(await self._client.introspect(token), until)
        if kept.introspection.active and self._holds(kept):
            self._kept[key] = kept
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return kept.introspection

    def _holds(self, kept: _Kept) -> bool:
        end = kept.introspection.expires_at
        return self._clock.monotonic() < kept.until and end is not None and self._clock.now() < end
