"""An archive to walk through, on an empty database."""

from __future__ import annotations

import pytest
from walk_world import Site, site_on

from drimbox.store.database import Pool


@pytest.fixture
def site(dsn: str, pool: Pool) -> Site:
    return site_on(dsn, pool)
