"""A box whose archive is to leave, or to come in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

# The site to publish from is that of the publication's own tests, the one that serves images that of theirs.
sys.path.extend(str(Path(__file__).parent.parent / room) for room in ("publication", "images"))

from portability_examples import Maker

from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.store.database import Pool
from drimbox.trust.keystore import load_credential


@pytest.fixture(scope="session")
def maker(authority: TestAuthority) -> Maker:
    pair = authority.issue(
        Profile.ORG_SIGN,
        "portability-sign",
        common_name="DRIMbox",
        unit="1750803447",
        organisation="CENTRE DE RADIOLOGIE AMBROISE",
    )
    return Maker(load_credential(pair.certificate, pair.key))


@pytest.fixture
def other_dsn(dsn: str) -> Iterator[str]:
    """The database of a second box, empty."""
    name = dsn.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}_b TEMPLATE drimbox_template STRATEGY file_copy")
    yield dsn.replace(f"/{name}?", f"/{name}_b?", 1)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name}_b WITH (FORCE)")


@pytest.fixture
async def other_pool(other_dsn: str):  # type: ignore[no-untyped-def]
    from drimbox.store import database

    async with database.opened(other_dsn, size=4) as opened:
        yield opened


@pytest.fixture
def box(pool: Pool, maker: Maker):  # type: ignore[no-untyped-def]
    """A box that has published."""
    from portability_examples import Box

    return Box(pool, maker)
