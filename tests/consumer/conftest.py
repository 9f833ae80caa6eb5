"""A running consumer on loopback TLS, its neighbours played by the tests, and browsers."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from consumer_world import (
    OTHER_STRUCTURE,
    STRUCTURE,
    FakeArchive,
    FakeDmp,
    FakeHosts,
    FakeJournal,
    FakePacs,
    FakePsc,
    FakeSources,
    Site,
    free_port,
    structure,
)

from drimbox.box.settings.consumer import ConsumerSection
from drimbox.consumer.app import consumer_app
from drimbox.consumer.ports import Structures
from drimbox.consumer.sessions import Limits
from drimbox.consumer.viewer_files import install_viewer
from drimbox.foundation.clock import FixedClock
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.sandbox.pki import Profile, TestAuthority

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def viewer_dir() -> Path:
    """The files of OHIF, fetched once by npm."""
    folder = ROOT / "var" / "viewer"
    install_viewer(folder)
    return folder


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
def ways() -> dict[str, Any]:
    """What a test module wants otherwise: more arguments of ``consumer_app``."""
    return {}


@pytest.fixture
async def site(
    authority: TestAuthority, viewer_dir: Path, tmp_path: Path, limits: Limits, ways: dict[str, Any]
) -> AsyncIterator[Site]:
    pair = authority.issue(
        Profile.SSL_SERV, "consommateur", common_name="localhost", unit="0", organisation="TEST", hosts=["localhost"]
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.certificate, pair.key)
    trust = ssl.create_default_context(cafile=str(authority.roots))
    port = free_port()
    origin = f"https://localhost:{port}"
    clock = FixedClock(dt.datetime(2024, 3, 1, 9, tzinfo=dt.UTC))
    psc, dmp, sources = FakePsc(lambda: origin, clock), FakeDmp(), FakeSources()
    journal, hosts, pacs, archive = FakeJournal(), FakeHosts(), FakePacs(), FakeArchive()
    folder = tmp_path / "sessions"
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(
            consumer_app(
                box_name="Site B",
                version="0.1.0",
                public_url=origin,
                call_paths=("/drim", "/autre/drim"),
                environment="test",
                consent_values=ConsumerSection.model_fields["consent_values"].default,
                syntaxes=ConsumerSection.model_fields["syntaxes_view"].default,
                psc=psc,
                dmp=dmp,
                structures=Structures(
                    [
                        structure(STRUCTURE, "CENTRE DE RADIOLOGIE", pacs, archives=(archive,)),
                        structure(OTHER_STRUCTURE, "CABINET"),
                    ]
                ),
                whitelist=hosts,
                wado=sources,
                journal=journal,
                clock=clock,
                viewer_dir=viewer_dir,
                folder=folder,
                limits=limits,
                **ways,
            )
        )
        await stack.enter_async_context(serving(app, host="localhost", port=port, tls=server))
        http = await stack.enter_async_context(HttpClient())
        yield Site(origin, app, clock, psc, dmp, sources, journal, hosts, folder, trust, http, pacs, archive)
