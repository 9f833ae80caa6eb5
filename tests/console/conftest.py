"""A console on an empty database, its browsers, and people with every right."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from console_world import Site, open_site

from drimbox.store.database import Pool


@pytest.fixture
async def site(pool: Pool) -> AsyncIterator[Site]:
    async with open_site(pool) as opened:
        yield opened
