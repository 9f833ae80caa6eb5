"""Visits on loopback TLS, and browsers."""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from visit_world import ROOT, Open, Site, running

from drimbox.consumer.viewer_files import install_viewer
from drimbox.images.workers import WorkerPool, worker_pool
from drimbox.sandbox.pki import Profile, TestAuthority

sys.path.append(str(ROOT / "tests" / "mesh"))


@pytest.fixture(scope="session")
def viewer_dir() -> Path:
    """The files of OHIF, fetched once by npm."""
    folder = ROOT / "var" / "viewer"
    install_viewer(folder)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workers() -> AsyncIterator[WorkerPool]:
    async with worker_pool(size=2) as pool:
        await pool.warm()
        yield pool


@pytest.fixture(scope="session")
def tls(authority: TestAuthority) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The listener's, and a visitor's."""
    pair = authority.issue(
        Profile.SSL_SERV, "visites", common_name="localhost", unit="0", organisation="TEST", hosts=["localhost"]
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.certificate, pair.key)
    return server, ssl.create_default_context(cafile=str(authority.roots))


@pytest.fixture
def unmanned(tmp_path: Path, viewer_dir: Path, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> Open:
    """``running``, without processes that decode: for tests on a loop of their own."""
    return partial(running, tmp_path, viewer_dir=viewer_dir, server=tls[0], trust=tls[1])


@pytest.fixture
def opening(unmanned: Open, workers: WorkerPool) -> Open:
    """``running`` with all that is the same for every test."""
    return partial(unmanned, workers=workers)


@pytest_asyncio.fixture(loop_scope="module")
async def site(opening: Open) -> AsyncIterator[Site]:
    async with opening() as opened:
        yield opened
