"""The administrator has site A walk through its archive while it runs: ``drimbox reconcile`` beside a real box."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import pytest
from mesh_world import World, eventually

from drimbox.sandbox.pacs import orthanc
from drimbox.sandbox.ris.exams import exam

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]


async def reconcile(world: World, *arguments: str) -> str:
    """Type it; what it says."""
    command = [sys.executable, "-m", "drimbox", "reconcile", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--config",
        str(world.mesh.state / "site-a.toml"),
        env=os.environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, failed = await process.communicate()
    assert process.returncode == 0, failed.decode()
    return said.decode()


async def walked(world: World, mode: str) -> dict[str, int]:
    """A whole walk; what it found."""
    assert "commencée" in await reconcile(world, "start", "--mode", mode, "--rate", "6000")

    async def over() -> bool:
        rows = await world.sql("SELECT 1 FROM walk WHERE state IN ('running', 'paused')")
        return not rows

    await eventually(over, "the walk goes on")
    [walk] = await world.sql("SELECT * FROM walk ORDER BY id DESC LIMIT 1")
    assert (walk["state"], walk["mode"]) == ("done", mode)
    return dict(walk["findings"])


@pytest.mark.requirement("DB.SO.28", "DB.SO.88", "D7")
async def test_an_exam_that_left_the_pacs_leaves_the_dmp(world: World) -> None:
    [study] = await world.publish("Q")
    pacs = world.mesh.pacs_a
    before = await walked(world, "repair")
    query = json.dumps({"Level": "Study", "Query": {"StudyInstanceUID": study}}).encode()
    [held] = json.loads(await asyncio.to_thread(orthanc.rest, pacs, "POST", "/tools/find", query))
    files = [
        await asyncio.to_thread(orthanc.rest, pacs, "GET", f"/instances/{instance['ID']}/file")
        for instance in json.loads(await asyncio.to_thread(orthanc.rest, pacs, "GET", f"/studies/{held}/instances"))
    ]
    await asyncio.to_thread(orthanc.rest, pacs, "DELETE", f"/studies/{held}")
    try:
        assert (await walked(world, "report"))["gone"] == 1
        assert len(await world.kos(study)) == 1
        assert [i["code"] for i in await world.incidents(study)] == ["resync-difference"]
        assert f"ambroise;{study};gone;" in await reconcile(world, "list")
        assert (await walked(world, "repair"))["depublished"] == 1
        assert await world.kos(study) == []
        assert [i["code"] for i in await world.incidents(study)] == ["resync-study-gone"]
    finally:
        for file in files:
            await asyncio.to_thread(orthanc.rest, pacs, "POST", "/instances", file)
    assert (await walked(world, "repair"))["published"] == 1
    await world.published(study)
    assert await world.incidents(study) == []
    assert set(await walked(world, "repair")) <= set(before)
    told = await reconcile(world, "status")
    assert "Réconciliation" in told
    assert "terminée" in told
    assert exam("Q").studies == (study,)
