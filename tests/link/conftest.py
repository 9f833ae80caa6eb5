"""A door on an empty database where one exam is published."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from link_world import Place, open_place

from drimbox.store.database import Pool


@pytest.fixture
async def place(pool: Pool) -> AsyncIterator[Place]:
    async with open_place(pool) as opened:
        yield opened
