"""The journal, the statistics and the notifications from the command line."""

from __future__ import annotations

import asyncio
import datetime as dt
import stat
from pathlib import Path

import psycopg
import pytest
from backup_examples import box_file, settings_of
from click.testing import CliRunner, Result

from drimbox.box.config import ConfigMistakes, load
from drimbox.box.services import patient_key
from drimbox.cli import main
from drimbox.identity.ins import Ins
from drimbox.record.audit import Actor, Event, Journal, Kind, Object, Thing
from drimbox.record.seals import Sealer
from drimbox.sandbox.pki import TestAuthority
from drimbox.store import database

MATRICULE, OID = "279035121518989", "1.2.250.1.213.1.4.10"
STUDY = "1.2.250.1.213.4.5.2.1.105"


def drimbox(*arguments: object, said: str = "") -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=said)


@pytest.fixture
def box(tmp_path: Path, dsn: str, authority: TestAuthority) -> Path:
    """A box with some events, one of them old, all sealed."""
    path = box_file(tmp_path / "box", authority, dsn, more="[journal]\nkeep_days = 365")
    key = patient_key(settings_of(path))

    async def write() -> None:
        async with database.opened(dsn, size=2) as pool:
            journal = Journal(pool, key)
            await journal.write(None, Event(Kind.STARTED, Actor(system="drimbox")))
            async with pool.connection() as connection:
                await connection.execute("ALTER TABLE audit DISABLE RULE audit_no_update")
                await connection.execute("UPDATE audit SET at = at - interval '2 years'")
                await connection.execute("ALTER TABLE audit ENABLE RULE audit_no_update")
            await Sealer(pool, key).seal()
            served = Event(
                Kind.IMAGES_SERVED,
                Actor(person="899700218896", name="PAUL DOC0021889"),
                (Object(Thing.STUDY, STUDY, "3 images, 1500000 octets, 0.1 s"),),
                structure="ambroise",
                patient=Ins.of(MATRICULE, OID),
            )
            await journal.write(None, served)
            await journal.write(None, Event(Kind.CONTEXTUAL_CALL, Actor(system="contextual-call")))
            await Sealer(pool, key).seal()

    asyncio.run(write())
    return path


@pytest.mark.requirement("DB.CS.10")
def test_the_journal_is_searched_and_the_patient_is_in_no_argument(box: Path, dsn: str, tmp_path: Path) -> None:
    found = drimbox("journal", "search", "--config", box, "--patient", said=f"{MATRICULE}\n\n")
    assert found.exit_code == 0, found.output
    [line] = [line for line in found.output.splitlines() if "Images servies" in line]
    assert "PAUL DOC0021889 (899700218896)" in line
    assert STUDY in line
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT actor ->> 'person', objects::text FROM audit WHERE event = '110101'"
        ).fetchall()
    assert len(rows) == 1
    assert rows[0][0].startswith("os:")
    assert MATRICULE not in rows[0][1]
    wrong = drimbox("journal", "search", "--config", box, "--patient", said="279035121518988\n\n")
    assert (wrong.exit_code, "Clé du matricule INS fausse" in wrong.output) == (1, True)
    target = tmp_path / "found.csv"
    done = drimbox("journal", "search", "--config", box, "--person", "899700218896", "--csv", target)
    assert (done.exit_code, done.output) == (0, "1 traces dans found.csv\n")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert STUDY in target.read_text("utf-8-sig")
    assert "IMAGES_SERVED" in drimbox("journal", "kinds").output
    none = drimbox("journal", "search", "--config", box, "--kind", "LOGIN")
    assert none.output == "Aucune trace ne répond à ces critères.\n"


@pytest.mark.requirement("DB.CS.08")
def test_the_journal_is_verified(box: Path, dsn: str) -> None:
    whole = drimbox("journal", "verify", "--config", box)
    assert (whole.exit_code, whole.output.splitlines()[0]) == (0, "Journal intègre.")
    head = whole.output.strip().rpartition(" ")[2]
    assert drimbox("journal", "verify", "--config", box, "--known", head).exit_code == 0
    assert drimbox("journal", "verify", "--config", box, "--known", f"999:{'0' * 16}").exit_code == 2
    with psycopg.connect(dsn) as connection:
        connection.execute("ALTER TABLE audit DISABLE RULE audit_no_update")
        connection.execute("UPDATE audit SET actor = '{}' WHERE id = 2")
        connection.execute("ALTER TABLE audit ENABLE RULE audit_no_update")
    altered = drimbox("journal", "verify", "--config", box)
    assert (altered.exit_code, "Journal ALTÉRÉ" in altered.output) == (2, True)


@pytest.mark.requirement("DB.CS.09")
def test_what_is_past_its_retention_is_removed_when_the_administrator_agrees(box: Path, dsn: str) -> None:
    def left() -> int:
        with psycopg.connect(dsn) as connection:
            row = connection.execute("SELECT count(*) FROM audit WHERE id = 1").fetchone()
        assert row is not None
        return int(row[0])

    no = drimbox("journal", "remove", "--config", box, said="n\n")
    assert "Retirer définitivement 1 traces de plus de 365 jours" in no.output
    assert left() == 1
    yes = drimbox("journal", "remove", "--config", box, "--yes")
    assert (yes.exit_code, "1 traces antérieures au" in yes.output) == (0, True)
    assert left() == 0
    assert "Aucune trace" in drimbox("journal", "remove", "--config", box, "--yes").output
    assert drimbox("journal", "verify", "--config", box).exit_code == 0


@pytest.mark.requirement("DB.SO.87", "D21")
def test_statistics_are_counted_and_written(box: Path, tmp_path: Path) -> None:
    today = dt.datetime.now(dt.UTC).date()
    lines, calls = tmp_path / "lines.csv", tmp_path / "calls.csv"
    done = drimbox(
        *(
            "statistics",
            "--config",
            box,
            "--since",
            today - dt.timedelta(days=1),
            "--until",
            today + dt.timedelta(days=1),
        ),
        *("--by", "month", "--csv", lines, "--calls", calls),
    )
    assert done.exit_code == 0, done.output
    [served] = [line.split() for line in done.output.splitlines() if line.startswith("Demandes d'images")]
    assert served[-4:] == ["1", "0", "3", "1500"]
    assert ";ambroise;images-served;Demandes d'images;1;0;3;1500" in lines.read_text("utf-8-sig")
    assert calls.read_text("utf-8-sig").splitlines()[1].endswith(";1;succes")
    wrong = drimbox("statistics", "--config", box, "--since", "2026-02-02", "--until", "2026-02-01")
    assert (wrong.exit_code, "période" in wrong.output) == (1, True)


@pytest.mark.requirement("DB.SO.21", "DB.CS.09")
@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("[journal]\nkeep_days = 30", "180 jours"),
        ("[notifications]", "demande [notifications.mail]"),
        ("[notifications.mail]\nhost = 'h'\nsender = 'x'\nrecipients = ['a@b']", "adresse électronique"),
        (
            "[notifications.mail]\nhost = 'h'\nsecurity = 'none'\nsender = 'a@b'\nrecipients = ['a@b']\n"
            "username = 'u'\npassword_file = 'box.toml'",
            "sans TLS",
        ),
        ("[notifications.webhook]\nurl = 'http://hook'", "https://"),
    ],
)
def test_settings_that_would_not_hold_are_refused(
    tmp_path: Path, authority: TestAuthority, more: str, told: str
) -> None:
    path = box_file(tmp_path / "box", authority, "postgresql://x", more=more)
    with pytest.raises(ConfigMistakes) as raised:
        load(path, {})
    assert told in " ".join(str(mistake) for mistake in raised.value.mistakes)


@pytest.mark.requirement("DB.SO.21")
def test_a_channel_is_tried(box: Path, tmp_path: Path, authority: TestAuthority) -> None:
    none = drimbox("notify", "test", "--config", box)
    assert (none.exit_code, "[notifications]" in none.output) == (1, True)
    more = "[notifications.mail]\nhost = '127.0.0.1'\nport = 9\nsender = 'a@b.test'\nrecipients = ['a@b.test']"
    path = box_file(tmp_path / "other", authority, "postgresql://x", more=more)
    away = drimbox("notify", "test", "--config", path)
    assert (away.exit_code, "mail : Serveur SMTP injoignable" in away.output) == (1, True)
