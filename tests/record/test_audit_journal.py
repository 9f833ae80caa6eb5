"""The journal: what is written is found again by patient, professional and document, and holds no identity."""

import json
from pathlib import Path

import psycopg
import pytest

from drimbox.foundation.errors import Misconfigured, Rejected, Unavailable
from drimbox.identity.ins import Ins
from drimbox.record import logs, words
from drimbox.record.audit import Actor, Event, Journal, Kind, Object, Outcome, Search, Thing, failed
from drimbox.record.pseudonym import PatientKey, load_patient_key
from drimbox.store.database import Pool

PATIENT = Ins.of("279035121518989", "1.2.250.1.213.1.4.10")
OTHER = Ins.of("279035121518989", "1.2.250.1.213.1.4.11")
DOCTOR = Actor(person="899700218896", name="PAUL DOC0021889", profession="10", address="192.0.2.7")
READER = Actor(person="899700000001", name="AUDITEUR", system="console")
STUDY = "1.2.250.1.213.4.5.2.1.199"


@pytest.fixture
def key(tmp_path: Path) -> PatientKey:
    return load_patient_key(tmp_path / "keys" / "audit.key")


def served(patient: Ins | None = PATIENT, study: str = STUDY, **more: str) -> Event:
    return Event(Kind.IMAGES_SERVED, DOCTOR, (Object(Thing.STUDY, study, "3 images"),), patient=patient, **more)


@pytest.mark.requirement("DB.CS.10", "DB.SO.46")
async def test_rows_are_found_by_patient_by_professional_and_by_document(pool: Pool, key: PatientKey) -> None:
    journal = Journal(pool, key)
    await journal.write(None, served())
    await journal.write(None, served(patient=OTHER, study="1.2.3"))
    await journal.write(None, Event(Kind.STARTED, Actor(system="drimbox")))

    by_patient = await journal.search(Search(patient=PATIENT), READER)
    assert [[o.identifier for o in r.event.objects if o.thing is Thing.STUDY] for r in by_patient] == [[STUDY]]
    assert by_patient[0].event.actor == DOCTOR
    by_document = await journal.search(Search(identifier="1.2.3"), READER)
    assert [r.event.kind for r in by_document] == [Kind.IMAGES_SERVED]
    by_person = await journal.search(Search(person="899700218896"), READER)
    assert len(by_person) == 2
    assert [r.event.kind for r in await journal.search(Search(kind=Kind.STARTED), READER)] == [Kind.STARTED]


@pytest.mark.requirement("DB.CS.08")
async def test_the_journal_names_no_patient(pool: Pool, dsn: str, key: PatientKey) -> None:
    leak = failed(served(), Rejected("Patient 279035121518989 inconnu", code="xds", peer_code="XDSUnknownPatientId"))
    await Journal(pool, key).write(None, leak)
    with psycopg.connect(dsn) as connection:
        [row] = connection.execute("SELECT row_to_json(audit)::text FROM audit").fetchall()
    assert PATIENT.matricule not in row[0]
    assert "XDSUnknownPatientId" in row[0]
    assert key.secret.hex() not in row[0]


@pytest.mark.requirement("DB.SO.45", "DB.SO.47")
async def test_a_failure_keeps_its_reason(pool: Pool, key: PatientKey) -> None:
    journal = Journal(pool, key)
    await journal.write(None, failed(served(), Unavailable("PACS injoignable", code="pacs-unreachable")))
    await journal.write(None, failed(served(), Rejected("Jeton refusé", code="psc-token", peer_code="invalid_token")))
    serious, minor = await journal.search(Search(identifier=STUDY), READER)
    assert (minor.event.outcome, minor.event.outcome_text) == (
        Outcome.MINOR_FAILURE,
        "pacs-unreachable: PACS injoignable",
    )
    assert serious.event.outcome is Outcome.SERIOUS_FAILURE
    assert serious.event.outcome_text == "psc-token: Jeton refusé [invalid_token]"


async def test_reading_the_journal_is_itself_written(pool: Pool, key: PatientKey) -> None:
    journal = Journal(pool, key)
    assert await journal.search(Search(patient=PATIENT, person="899700218896"), READER) == ()
    [trace] = await journal.search(Search(kind=Kind.AUDIT_READ), READER)
    assert trace.event.actor == READER
    assert Object(Thing.QUERY, "person", "899700218896") in trace.event.objects
    assert [o.thing for o in trace.event.objects].count(Thing.PATIENT) == 1


async def test_an_event_lives_and_dies_with_the_callers_transaction(pool: Pool, key: PatientKey) -> None:
    journal = Journal(pool, key)

    async def write_then_fail() -> None:
        async with pool.connection() as connection:
            await journal.write(connection, served())
            raise LookupError

    with pytest.raises(LookupError):
        await write_then_fail()
    assert await journal.search(Search(), READER) == ()


@pytest.mark.requirement("DB.CS.09")
async def test_rows_cannot_be_changed_or_deleted(pool: Pool, key: PatientKey) -> None:
    journal = Journal(pool, key)
    await journal.write(None, served())
    async with pool.connection() as connection:
        await connection.execute("UPDATE audit SET outcome = 12")
        await connection.execute("DELETE FROM audit")
    [row] = await journal.search(Search(identifier=STUDY), READER)
    assert row.event.outcome is Outcome.SUCCESS


async def test_a_patient_is_never_dropped_in_silence_when_the_key_is_missing(pool: Pool, dsn: str) -> None:
    journal = Journal(pool)
    await journal.write(None, Event(Kind.STARTED, Actor(system="drimbox")))
    with pytest.raises(Misconfigured, match="clé"):
        await journal.write(None, served())


async def test_a_search_under_another_key_does_not_answer_nothing(pool: Pool, key: PatientKey, tmp_path: Path) -> None:
    await Journal(pool, key).write(None, served())
    stranger = Journal(pool, load_patient_key(tmp_path / "other.key"))
    with pytest.raises(Misconfigured, match="autre clé"):
        await stranger.search(Search(patient=PATIENT), READER)


async def test_events_of_one_work_share_its_correlation(pool: Pool, key: PatientKey) -> None:
    journal = Journal(pool, key)
    with logs.correlated() as identifier:
        await journal.write(None, served())
        await journal.write(None, served(patient=None))
    await journal.write(None, served(correlation="own"))
    await journal.write(None, served())
    assert len(await journal.search(Search(correlation=identifier), READER)) == 2
    assert len(await journal.search(Search(correlation="own"), READER)) == 1
    assert all(r.event.correlation for r in await journal.search(Search(), READER))


async def test_pages_go_on_from_the_last_row(pool: Pool, key: PatientKey) -> None:
    journal = Journal(pool, key)
    for number in range(5):
        await journal.write(None, served(correlation=str(number)))
    first = await journal.search(Search(kind=Kind.IMAGES_SERVED, limit=2), READER)
    second = await journal.search(Search(kind=Kind.IMAGES_SERVED, limit=3, before=first[-1].id), READER)
    assert [r.event.correlation for r in first + second] == ["4", "3", "2", "1", "0"]


def test_every_kind_reads_back_as_itself() -> None:
    assert len({(kind.code, kind.action) for kind in Kind}) == len(list(Kind))


def test_the_key_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "audit.key"
    first = load_patient_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_patient_key(path) == first
    assert [p.name for p in path.parent.iterdir()] == ["audit.key"]
    assert first.secret.hex() not in repr(first)
    assert json.dumps(first.reference(PATIENT)) == json.dumps(load_patient_key(path).reference(PATIENT))
    assert first.reference(PATIENT) != first.reference(OTHER)


@pytest.mark.parametrize("content", ["", "zz" * 32, "ab" * 31, "é"])
def test_a_damaged_key_is_said_and_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "audit.key"
    path.write_text(content)
    with pytest.raises(Misconfigured, match="sauvegarde"):
        load_patient_key(path)
    assert path.read_text() == content


def test_every_kind_thing_and_outcome_has_a_name() -> None:
    assert set(words.KINDS) == set(Kind)
    assert set(words.THINGS) == set(Thing)
    assert set(words.OUTCOMES) == set(Outcome)


async def test_an_export_gives_everything_whatever_its_length(pool: Pool, key: PatientKey) -> None:
    journal = Journal(pool, key)
    async with pool.connection() as connection:
        for number in range(2050):
            await journal.write(connection, Event(Kind.STARTED, Actor(system="drimbox"), correlation=str(number)))
    found = [r.event.correlation async for r in await journal.export(Search(kind=Kind.STARTED, limit=3), READER)]
    assert found == [str(number) for number in reversed(range(2050))]
    assert len(await journal.search(Search(kind=Kind.AUDIT_EXPORTED), READER)) == 1


def test_no_cell_of_a_table_is_a_formula() -> None:
    assert (
        words.row(("=1+1", "+33", "-1", "@x", "\tx", "a;b", 'c"d')) == b'\'=1+1;\'+33;\'-1;\'@x;\'\tx;"a;b";"c""d"\r\n'
    )
