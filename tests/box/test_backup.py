"""Backup and restore: whole or nothing, out of a box that goes on, into an empty one that goes on in its turn."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import stat
import sys
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from backup_examples import box_file, settings_of
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drimbox.box.run import database_of
from drimbox.box.services import patient_key
from drimbox.box.settings import Settings
from drimbox.cli import main
from drimbox.foundation.errors import DrimboxError, Misconfigured, Refused
from drimbox.identity.ins import Ins
from drimbox.publication.version import Outcome
from drimbox.record.audit import Actor, Event, Journal, Kind, Object, Search, Thing
from drimbox.record.seals import Sealer
from drimbox.record.verification import Verification, verify
from drimbox.sandbox.pki import TestAuthority
from drimbox.store import backup_file, database, dumping, jobs
from drimbox.store.backup_file import DATABASE, writing
from publication.publication_examples import letter_of, study_of, world_on

PATIENT = Ins.of("279035121518989", "1.2.250.1.213.1.4.10")
READER = Actor(person="os:test")


@pytest.fixture
def empty_dsn(_server: str) -> Iterator[str]:
    """A database in which nobody made anything."""
    name = f"e_{uuid.uuid4().hex}"
    with psycopg.connect(_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    yield _server.replace("/postgres?", f"/{name}?", 1)
    with psycopg.connect(_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def drimbox(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


async def lived_in(box: Settings, dsn: str) -> None:
    """A box that published a study, has another to publish, and whose journal is sealed."""
    key = patient_key(box)
    async with database.opened(dsn, size=3) as pool:
        world = world_on(pool)
        world.pacs.hold(study_of())
        await world.run(letter_of())
        async with pool.connection() as connection:
            await jobs.defer(
                connection, "publish_study", args={"report_id": 1, "study_uid": "1.2.3"}, lock="study-1.2.3"
            )
        journal = Journal(pool, key)
        await journal.write(
            None,
            Event(Kind.IMAGES_SERVED, Actor(person="899700218896"), (Object(Thing.STUDY, "1.2.3"),), patient=PATIENT),
        )
        await Sealer(pool, key).seal()
    (box.box.state_dir / "keys" / "vault.key").write_bytes(os.urandom(32))
    (box.box.state_dir / "keys" / "cache.key").write_bytes(os.urandom(32))


def rows_of(dsn: str) -> dict[str, str]:
    """A digest of every table, but of what each command tells in the journal afterwards."""
    found = {}
    with psycopg.connect(dsn) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type LIKE 'BASE%'"
        ).fetchall()
        for (table,) in tables:
            text = connection.execute(
                f"SELECT coalesce(string_agg(one::text, '|' ORDER BY one::text), '') FROM {table} AS one "
                f"WHERE one::text NOT LIKE '%/backup%'"
            ).fetchone()
            assert text is not None
            found[table] = hashlib.sha256(str(text[0]).encode()).hexdigest()
    return found


@pytest.mark.requirement("DB.SO.24")
def test_a_box_comes_back_whole_and_goes_on(tmp_path: Path, dsn: str, empty_dsn: str, authority: TestAuthority) -> None:
    first = box_file(tmp_path / "first", authority, dsn)
    box = settings_of(first)
    asyncio.run(lived_in(box, dsn))
    before = rows_of(dsn)
    target = tmp_path / "saved.drimbox"
    made = drimbox("backup", target, "--config", first)
    assert made.exit_code == 0, made.output
    assert "Sauvegarde faite : saved.drimbox" in made.output
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    digest = made.output.strip().rpartition(" ")[2]
    checked = drimbox("backup", target, "--config", first, "--check")
    assert checked.exit_code == 0
    assert digest in checked.output
    with tarfile.open(target) as archive:
        assert archive.getnames() == [
            "database.dump",
            "keys/audit.key",
            "keys/vault.key",
            "manifest.json",
            "manifest.sha256",
        ]

    second = box_file(tmp_path / "second", authority, empty_dsn)
    done = drimbox("restore", target, "--config", second)
    assert done.exit_code == 0, done.output
    assert rows_of(empty_dsn) == before
    restored = settings_of(second)
    keys = restored.box.state_dir / "keys"
    assert sorted(path.name for path in keys.iterdir()) == ["audit.key", "vault.key"]
    for name in ("audit.key", "vault.key"):
        assert (keys / name).read_bytes() == (box.box.state_dir / "keys" / name).read_bytes()
        assert stat.S_IMODE((keys / name).stat().st_mode) == 0o600

    async def goes_on() -> None:
        key = patient_key(restored)
        async with database.opened(empty_dsn, size=3) as pool:
            await Sealer(pool, key).seal()
            found = await verify(pool, key)
            assert found.whole, found.problems
            journal = Journal(pool, key)
            [served] = await journal.search(Search(kind=Kind.IMAGES_SERVED), READER)
            assert Object(Thing.PATIENT, key.reference(PATIENT)) in served.event.objects
            [told] = await journal.search(Search(kind=Kind.BACKUP_RESTORED), READER)
            assert told.event.objects[0] == Object(Thing.SYSTEM, "saved.drimbox", f"empreinte {digest}")
            # The rules of the journal came along, and so did the work that waited.
            async with pool.connection() as connection:
                assert (await connection.execute("DELETE FROM audit")).rowcount == 0
                waiting = await (
                    await connection.execute("SELECT lock FROM procrastinate_jobs WHERE status = 'todo'")
                ).fetchall()
                assert waiting == [{"lock": "study-1.2.3"}]
            world = world_on(pool)
            world.pacs.hold(study_of())
            world.pacs.hold(study_of(images=4))
            outcome = await world.run(letter_of().corrected("1.2.250.1.213.9.9", "AFTER"))
            assert outcome is Outcome.PUBLISHED
            async with pool.connection() as connection:
                kos = await (await connection.execute("SELECT count(*) AS n FROM publication")).fetchone()
                assert kos is not None
                assert kos["n"] >= 2

    asyncio.run(goes_on())
    with psycopg.connect(dsn) as connection:
        told = connection.execute("SELECT count(*) FROM audit WHERE event = '110106/backup'").fetchone()
    assert told == (1,)


@pytest.mark.requirement("DB.SO.24")
def test_a_restore_replaces_nothing(tmp_path: Path, dsn: str, empty_dsn: str, authority: TestAuthority) -> None:
    first = box_file(tmp_path / "first", authority, dsn)
    box = settings_of(first)
    asyncio.run(lived_in(box, dsn))
    target = tmp_path / "saved.drimbox"
    assert drimbox("backup", target, "--config", first).exit_code == 0
    again = drimbox("backup", target, "--config", first)
    assert (again.exit_code, "existe déjà" in again.output) == (1, True)

    into_itself = drimbox("restore", target, "--config", first)
    assert (into_itself.exit_code, "La base n'est pas vide" in into_itself.output) == (1, True)
    other = box_file(tmp_path / "other", authority, empty_dsn)
    keys = settings_of(other).box.state_dir / "keys"
    keys.mkdir(parents=True)
    (keys / "vault.key").write_bytes(b"another")
    refused = drimbox("restore", target, "--config", other)
    assert (refused.exit_code, "d'autres clés" in refused.output) == (1, True)
    assert [path.name for path in keys.iterdir()] == ["vault.key"]
    assert dumping.is_empty(empty_dsn)
    of_production = TestAuthority(tmp_path / "pki", production=True)
    production = box_file(tmp_path / "production", of_production, empty_dsn, environment="production")
    refused = drimbox("restore", target, "--config", production)
    assert (refused.exit_code, "ne se mélangent pas" in refused.output) == (1, True), refused.output
    assert dumping.is_empty(empty_dsn)


@pytest.mark.requirement("DB.SO.24")
def test_what_cannot_be_carried_through_leaves_nothing(
    tmp_path: Path, dsn: str, empty_dsn: str, authority: TestAuthority
) -> None:
    """A dump that PostgreSQL refuses in its midst: neither rows nor keys stay."""
    octets = b"".join(dumping.dump(dsn, dumping.bundled()))
    second = box_file(tmp_path / "second", authority, empty_dsn)
    told = {"product": "drimbox", "environment": "test", "schema": "0009", "version": "0"}
    for name, broken in (("cut", octets[: len(octets) * 2 // 3]), ("none", b"PGDMP and nothing of it")):
        target = tmp_path / name
        with writing(target, 0) as file:
            file.add(DATABASE, [broken])
            file.add("keys/audit.key", [b"00" * 32])
            file.finish(told)
        refused = drimbox("restore", target, "--config", second)
        assert (refused.exit_code, "pg_restore" in refused.output) == (1, True), refused.output
        assert dumping.is_empty(empty_dsn)
        assert list((tmp_path / "second" / "state" / "keys").iterdir()) == []
    later = tmp_path / "later"
    with writing(later, 0) as file:
        file.add(DATABASE, [octets])
        file.finish({**told, "schema": "9999"})
    refused = drimbox("restore", later, "--config", second)
    assert (refused.exit_code, "autre schéma (9999)" in refused.output) == (1, True)
    assert dumping.is_empty(empty_dsn)


@pytest.mark.requirement("DB.SO.24")
def test_an_embedded_box_is_backed_up_while_it_writes(tmp_path: Path, authority: TestAuthority) -> None:
    """Two embedded databases; the first is written in all the while, and its backup is of one instant."""
    first, second = box_file(tmp_path / "first", authority), box_file(tmp_path / "second", authority)
    box = settings_of(first)
    box.box.state_dir.mkdir(parents=True)
    with database_of(box) as dsn:
        database.migrate(dsn)
        key = patient_key(box)

        async def write_and_back_up() -> tuple[int | None, str]:
            async with database.opened(dsn, size=3) as pool:
                journal = Journal(pool, key)
                over = asyncio.Event()

                async def write() -> None:
                    while not over.is_set():
                        async with pool.connection() as connection, connection.transaction():
                            for _ in range(2):
                                await journal.write(connection, Event(Kind.STARTED, Actor(system="drimbox")))
                        await Sealer(pool, key).seal()
                        await asyncio.sleep(0.05)

                task = asyncio.create_task(write())
                await asyncio.sleep(0.2)
                command = (sys.executable, "-m", "drimbox", "backup", str(tmp_path / "saved"), "--config", str(first))
                process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
                _, said = await process.communicate()
                over.set()
                await task
                return process.returncode, said.decode()

        assert asyncio.run(write_and_back_up()) == (0, "")
    done = drimbox("restore", tmp_path / "saved", "--config", second)
    assert done.exit_code == 0, done.output
    restored = settings_of(second)
    with database_of(restored) as dsn, psycopg.connect(dsn) as connection:

        async def verification() -> Verification:
            async with database.opened(dsn, size=2) as pool:
                return await verify(pool, patient_key(restored))

        assert asyncio.run(verification()).whole
        row = connection.execute("SELECT count(*) FROM audit WHERE event = '110100/110120'").fetchone()
    assert row is not None
    assert row[0] > 0
    assert row[0] % 2 == 0


@pytest.mark.requirement("DB.SO.24")
def test_the_password_of_the_database_is_in_no_command_line(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    seen = tmp_path / "seen"
    script = tools / "pg_dump"
    script.write_text(
        f"#!/bin/sh\ntr '\\0' ' ' < /proc/$$/cmdline > {seen}\necho \"$PGPASSWORD/$PGHOST/$PGDATABASE\" >> {seen}\n"
        'echo dump\necho "pg_dump: error: COPY \\"279035121518989\\"" >&2\nexit 3\n',
        "utf-8",
    )
    script.chmod(0o755)
    monkeypatch.setenv("PGPASSWORD", "another's")
    given_out = dumping.dump("postgresql://box:s3cret@db.example.test/drimbox", tools)
    with pytest.raises(DrimboxError, match="pg_dump"):
        list(given_out)
    command = seen.read_text("utf-8").rpartition(" ")[0]
    assert "s3cret" not in command
    assert "s3cret/db.example.test/drimbox" in seen.read_text("utf-8")
    with pytest.raises(Misconfigured, match="tools_dir"):
        list(dumping.dump(dsn, tmp_path / "nowhere"))


# --- the file ---------------------------------------------------------------------------------------------------------


def small(path: Path, **told: object) -> Path:
    with writing(path, 1_700_000_000) as file:
        file.add(DATABASE, [b"dump " * 300, b"end"])
        file.add("keys/audit.key", [b"k" * 65])
        file.finish({"product": "drimbox", **told})
    return path


@pytest.mark.requirement("DB.SO.24")
def test_a_backup_reads_back(tmp_path: Path) -> None:
    found = backup_file.read(small(tmp_path / "b", box="Site A"))
    assert found.told["box"] == "Site A"
    assert b"".join(found.dump()) == b"dump " * 300 + b"end"
    assert found.keys() == {"keys/audit.key": b"k" * 65}
    # What any tar makes of it.
    with tarfile.open(tmp_path / "b") as archive:
        member = archive.extractfile("manifest.json")
        assert member is not None
        assert json.loads(member.read())["parts"][0]["name"] == "database.dump"


@pytest.mark.requirement("DB.SO.24")
def test_a_backup_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def failing() -> Iterator[bytes]:
        yield b"x"
        raise Refused("non", code="x")

    with pytest.raises(Refused), writing(tmp_path / "b", 0) as file:
        file.add(DATABASE, failing())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.requirement("DB.SO.24")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_octet_may_differ(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "whole"
    octets = (path if path.exists() else small(path)).read_bytes()
    place = data.draw(st.integers(0, len(octets) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "insert", "append"]))
    if how == "flip":
        changed = octets[:place] + bytes([octets[place] ^ (1 << data.draw(st.integers(0, 7)))]) + octets[place + 1 :]
    elif how == "cut":
        changed = octets[:place]
    elif how == "insert":
        changed = octets[:place] + b"\0" + octets[place:]
    else:
        changed = octets + b"\0" * data.draw(st.integers(1, 1024))
    other = tmp_path / "changed"
    other.write_bytes(changed)
    try:
        found = backup_file.read(other)
    except Refused:
        return
    # Octets that mean nothing (of a tar header, of padding): what is taken is what was put in.
    assert b"".join(found.dump()) == b"dump " * 300 + b"end"
    assert found.keys() == {"keys/audit.key": b"k" * 65}


@pytest.mark.requirement("DB.SO.24")
def test_a_hostile_archive_is_not_believed(tmp_path: Path) -> None:
    def archive(names: list[str], kind: bytes = tarfile.REGTYPE) -> Path:
        path = tmp_path / "hostile"
        manifest = json.dumps(
            {"format": 1, "parts": [{"name": n, "size": 1, "sha256": hashlib.sha256(b"x").hexdigest()} for n in names]}
        ).encode()
        with tarfile.open(path, "w") as made:
            for name, content in [
                *((name, b"x") for name in names),
                ("manifest.json", manifest),
                ("manifest.sha256", hashlib.sha256(manifest).hexdigest().encode()),
            ]:
                info = tarfile.TarInfo(name)
                info.size, info.type = len(content), kind
                made.addfile(info, io.BytesIO(content))
        octets = path.read_bytes()
        # Python's tar fills up to its own record size; ours ends after two empty blocks.
        end = len(octets.rstrip(b"\0")) + 511 & ~511
        path.write_bytes(octets[:end] + bytes(1024))
        return path

    assert backup_file.read(archive(["database.dump", "keys/a.key"])).database.size == 1
    for names in (
        ["keys/a.key", "database.dump"],
        ["database.dump", "../keys/a.key"],
        ["database.dump", "keys/../../a.key"],
        ["database.dump", "/etc/cron.d/a.key"],
        ["database.dump", "keys/a.key", "keys/a.key"],
        ["database.dump", "box.toml"],
    ):
        with pytest.raises(Refused):
            backup_file.read(archive(names))
    with pytest.raises(Refused):
        backup_file.read(archive(["database.dump"], tarfile.SYMTYPE))
    with pytest.raises(Misconfigured):
        backup_file.read(tmp_path / "absent")


@pytest.mark.requirement("DB.SO.24")
def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "later"
    octets = small(path).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(octets)) as archive:
        member = archive.getmember("manifest.json")
    start = member.offset_data
    manifest = octets[start : start + member.size].replace(b'"format": 1', b'"format": 2')
    head = octets[:start] + manifest + octets[start + member.size :]
    kept = hashlib.sha256(octets[start : start + member.size]).hexdigest().encode()
    path.write_bytes(head.replace(kept, hashlib.sha256(manifest).hexdigest().encode()))
    with pytest.raises(Refused, match="autre format"):
        backup_file.read(path)
