"""Fixtures of the images room. One server and one pool of workers serve all tests of a module, on one event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from starlette.types import ASGIApp, Receive, Scope, Send
from world import Box, Keys, make_box, make_keys

from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.images.workers import WorkerPool, worker_pool
from drimbox.sandbox.pki import TestAuthority


class Switch:
    """A listener whose application is that of the present test."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        self.port = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)


@pytest.fixture(scope="session")
def keys(authority: TestAuthority) -> Keys:
    return make_keys(authority)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool_of_workers() -> AsyncIterator[WorkerPool]:
    async with worker_pool(size=2) as pool:
        await pool.warm()
        yield pool


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def listener(keys: Keys) -> AsyncIterator[Switch]:
    switch = Switch()
    async with serving(switch, host="127.0.0.1", port=0, tls=keys.listener()) as switch.port:
        yield switch


@pytest.fixture
def quiet_box(keys: Keys, pool_of_workers: WorkerPool, tmp_path: Path) -> Box:
    """A source box that does not listen yet."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return make_box(keys, pool_of_workers, scratch)


@pytest.fixture
def box(quiet_box: Box, listener: Switch) -> Iterator[Box]:
    """A source box that listens."""
    listener.app, quiet_box.port = quiet_box.app(), listener.port
    yield quiet_box
    listener.app = None


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[HttpClient]:
    async with HttpClient() as client:
        yield client
