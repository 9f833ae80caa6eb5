"""What every test may ask for: the official samples, a test PKI, a fresh database."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

import requirements
from drimbox.sandbox.pki import TestAuthority
from drimbox.store import database, embedded

ROOT = Path(__file__).parent.parent


# The temporary folder that this run made for itself: a run started by one of its tests borrows it.
OWN_FOLDER = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    # The programs that tests start find the sources as the tests do, however pytest itself was started.
    os.environ["PYTHONPATH"] = str(ROOT / "src")
    # Every start of pytest shuts the temporary folder that runs share, to the account that runs PostgreSQL too.
    if "PYTEST_DEBUG_TEMPROOT" not in os.environ:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = config.stash[OWN_FOLDER] = tempfile.mkdtemp(prefix="drimbox-tests-")
    # Nor must it matter which signals the one who started pytest had blocked: PACSs and browsers would inherit that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    made = session.config.stash.get(OWN_FOLDER, None)
    if made is not None and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        shutil.rmtree(made, ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-seed", metavar="N", help="the seed of a chaos run (random by default)")
    parser.addoption("--chaos-messages", metavar="N", default="2000", help="messages of the long chaos run")
    parser.addoption("--requirements", metavar="FILE", help="write docs/requirements.md to FILE from the tests' marks")


def pytest_collection_finish(session: pytest.Session) -> None:
    target = session.config.getoption("--requirements")
    if target:
        proofs = requirements.marks(session.items)
        Path(target).write_text(requirements.page(proofs, ROOT / "docs" / "requirements.tsv"), "utf-8")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of the official samples (DRIMBOX_SHARED, else ../shared beside the project)."""
    folder = Path(os.environ.get("DRIMBOX_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"the official samples are not in {folder}: set DRIMBOX_SHARED to their folder")
    return folder


@pytest.fixture(scope="session")
def samples(shared: Path) -> Path:
    """The official sample files (shared/data)."""
    return shared / "data"


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    """A test PKI that lives as long as the test run."""
    return TestAuthority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded.running(tmp_path_factory.mktemp("postgres") / "data") as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            # A database for each test: the machine's own crash is not what any of them is about.
            for setting in ("fsync", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE DATABASE drimbox_template")
        database.migrate(_named(dsn, "drimbox_template"))
        yield dsn


@pytest.fixture
def dsn(_server: str) -> Iterator[str]:
    """A database of the newest schema, empty, for this test alone."""
    name = f"t_{uuid.uuid4().hex}"
    with psycopg.connect(_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE drimbox_template STRATEGY file_copy")
    yield _named(_server, name)
    with psycopg.connect(_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[database.Pool]:
    """A pool on this test's own database."""
    async with database.opened(dsn, size=4) as opened:
        yield opened


def _named(dsn: str, name: str) -> str:
    return dsn.replace("/postgres?", f"/{name}?", 1)
