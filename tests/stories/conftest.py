"""One box for all stories; each begins on an empty database, with empty PACSs, in front of an empty DMP."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from stage import Keys, Stage, box_on, dmp_for, made_keys, two_pacs

from drimbox.sandbox.pki import TestAuthority
from drimbox.store import database

_TABLES = (
    "procrastinate_jobs",
    "incident",
    "publication",
    "reported_study",
    "rejected_instance",
    "change_note",
    "withdrawn_study",
    "report",
    "message",
)


@pytest.fixture(scope="session")
def keys(authority: TestAuthority) -> Keys:
    return made_keys(authority)


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="drimbox-stories-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def stories_dsn(_server: str) -> str:
    """A database for the box of all stories."""
    with psycopg.connect(_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE stories TEMPLATE drimbox_template")
    return _server.replace("/postgres?", "/stories?", 1)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running(keys: Keys, stories_dsn: str, shared: Path, place: Path) -> AsyncIterator[Stage]:
    with two_pacs(place) as pacs:
        async with (
            database.opened(stories_dsn, size=4) as pool,
            dmp_for(keys, shared / "schemas", place) as dmp,
            box_on(keys, stories_dsn, pool, pacs, dmp, place) as stage,
        ):
            yield stage


@pytest_asyncio.fixture(loop_scope="session")
async def stage(running: Stage, place: Path) -> AsyncIterator[Stage]:
    await _forget(running, place / "dmp" / "dmp.sqlite")
    yield running
    # A step that the DMP refused is a defect of the box, even where it was put right later.
    assert running.refusals() == []


async def _forget(stage: Stage, dmp: Path) -> None:
    for pacs in stage.pacs.values():
        await asyncio.to_thread(pacs.empty)
    async with stage.pool.connection() as connection:
        await connection.execute(f"TRUNCATE {', '.join(_TABLES)} CASCADE")  # type: ignore[arg-type]
    with closing(sqlite3.connect(dmp, timeout=10)) as held, held:
        for table in ("entry", "submission", "association", "log"):
            held.execute(f"DELETE FROM {table}")
