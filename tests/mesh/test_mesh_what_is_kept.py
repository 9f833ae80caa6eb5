"""After all that the other tests did: what the boxes wrote, and what they left on the disk."""

from __future__ import annotations

import json

import pytest
from mesh_world import World, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

# Who the patient is, in each form that messages, images and pages give it.
HEALTH = (
    b"PAT-TROIS",
    b"PAT TROIS",
    b"DOMINIQUE",
    b"279035121518989",
    b"IPP101",
    b"IPP-B-4711",
    b"19790328",
    b"1979-03-28",
)
# The beginning of a JWT, in clear and as a header.
SECRETS = (b"eyJ", b"Bearer ", b"PRIVATE KEY", b"access_token=")


@pytest.mark.requirement("DB.SO.46", "DB.CO.82")
async def test_logs_say_neither_who_the_patient_is_nor_any_secret(world: World) -> None:
    for letter in "BE":
        await world.publish(letter)
        await world.seen((await world.publish(letter))[0])
    for key in ("a", "b"):
        log = (world.mesh.state / "logs" / f"site-{key}.log").read_bytes()
        for word in HEALTH + SECRETS:
            line = next((line for line in log.splitlines() if word in line), None)
            assert line is None, (key, word, line)
        for line in log.splitlines():
            record = json.loads(line)
            assert {"time", "level", "logger", "message"} <= record.keys()


@pytest.mark.requirement("DB.SO.40")
async def test_no_image_outlives_its_answer(world: World) -> None:
    await eventually(world.swept, "images lie in the spool of site A", 20)


async def test_what_lies_around_the_databases_says_nothing(world: World) -> None:
    """Sessions hold the images of open exams, for as long as they are open; nothing else holds anything."""
    for key in ("a", "b"):
        folder = world.mesh.state / key
        for path in folder.rglob("*"):
            if not path.is_file() or {"postgres", "sessions"} & set(path.relative_to(folder).parts):
                continue
            content = path.read_bytes()
            assert not [word for word in HEALTH if word in content], path
        for secret in (folder / "keys").iterdir():
            assert secret.stat().st_mode & 0o077 == 0, secret


@pytest.mark.requirement("DB.SO.44", "DB.SO.45")
async def test_the_journal_knows_the_patient_by_a_pseudonym_alone(world: World) -> None:
    rows = await world.sql("SELECT event, outcome_text, actor::text AS actor, objects::text AS objects FROM audit")
    assert len(rows) > 5
    written = json.dumps(rows).encode()
    for word in (*HEALTH, *SECRETS):
        assert word not in written, word
