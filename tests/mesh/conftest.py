"""One real mesh for all end-to-end tests: national services, two boxes, two PACSs."""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from mesh_world import World

from drimbox.demo.mesh import running
from drimbox.demo.places import ports
from drimbox.sandbox.pacs import orthanc
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.sandbox.sites import SITE_B

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def state() -> Iterator[Path]:
    """The state folder of the mesh.

    Not one of pytest's own: a second run of pytest on the machine shuts those to the account that runs PostgreSQL.
    """
    with tempfile.TemporaryDirectory(prefix="drimbox-mesh-") as folder:
        # Two runs that start at the same moment must not find the same ports free.
        ports(Path(folder), first=18000 + random.randrange(600) * 20)
        yield Path(folder)


@pytest.fixture(scope="session")
def revoked(state: Path) -> PemPair:
    """A certificate of site B's DRIMbox that its authority revoked before the mesh started."""
    authority = TestAuthority(state / "national" / "pki")
    place = SITE_B.place
    pair = authority.issue(
        Profile.ORG_AUTH_CLI, "revoked", common_name="DRIMbox", unit=place.identifier, organisation=place.name
    )
    authority.revoke(pair)
    return pair


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(state: Path, revoked: PemPair) -> AsyncIterator[World]:
    """The mesh, running."""
    if not orthanc.installed():
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    said: list[str] = []
    async with running(state, home=ROOT, say=said.append) as mesh:
        yield World(mesh, said)
