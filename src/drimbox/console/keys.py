"""What the page of the inventory of certificates stands on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from drimbox.keyring.acts import KeyActs
from drimbox.keyring.inventory import Line


@dataclass(frozen=True, slots=True)
class KeyRoom:
    """``others`` are lines of certificates that are kept by other means (the market certificate)."""

    acts: KeyActs
    others: Callable[[], Awaitable[tuple[Line, ...]]]

    async def inventory(self) -> tuple[Line, ...]:
        return (*await self.acts.inventory(), *await self.others())
