"""Fixtures of the images room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from world import Box, Keys, listening, make_box, make_keys

from drimbox.foundation.http_client import HttpClient
from drimbox.images.workers import WorkerPool, worker_pool
from drimbox.sandbox.pki import TestAuthority


@pytest.fixture(scope="session")
def keys(authority: TestAuthority) -> Keys:
    return make_keys(authority)


@pytest.fixture
async def pool_of_workers() -> AsyncIterator[WorkerPool]:
    async with worker_pool(size=2) as pool:
        yield pool


@pytest.fixture
def quiet_box(keys: Keys, pool_of_workers: WorkerPool, tmp_path: Path) -> Box:
    """A source box that does not listen yet."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return make_box(keys, pool_of_workers, scratch)


@pytest.fixture
async def box(quiet_box: Box) -> AsyncIterator[Box]:
    """A source box that listens."""
    async with listening(quiet_box):
        yield quiet_box


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    async with HttpClient() as client:
        yield client
