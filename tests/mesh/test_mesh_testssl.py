"""testssl.sh on each TLS listener of two running boxes; the reports stay in var/testssl."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from mesh_world import World

from drimbox.box.config import load
from drimbox.box.flows import flows
from drimbox.flows import Direction, State

ROOT = Path(__file__).parents[2]
# What says something of the listener, and not of the test certificate, of OCSP or of DNS.
_CHECKS = ("--protocols", "--std", "--fs", "--server-preference", "--vulnerable", "--headers")
# LUCKY13 is of CBC suites, which there are none of; BREACH is of compressed pages, which there are none of.
_BAD = ("LOW", "MEDIUM", "HIGH", "CRITICAL")
# The log-in pages of a test host are not on the lists that browsers preload.
_OF_NO_MATTER = {"HSTS", "HSTS_time", "HSTS_preload", "security_headers", "scanTime", "engine_problem"}


@pytest.mark.slow
@pytest.mark.requirement("SSI/GEN.13", "C17")
@pytest.mark.parametrize("key", ["a", "b"])
async def test_testssl_finds_nothing(world: World, key: str) -> None:
    testssl = shutil.which("testssl") or shutil.which("testssl.sh")
    if testssl is None:
        pytest.skip("testssl.sh is not installed: apt-get install testssl.sh")
    kept = ROOT / "var" / "testssl"
    kept.mkdir(parents=True, exist_ok=True)
    table = flows(load(world.mesh.state / f"site-{key}.toml", {}))
    doors = [flow for flow in table if flow.direction is Direction.IN and flow.state is State.ENCRYPTED]
    for flow in doors:
        name = flow.setting.replace(".", "-")
        report, page = kept / f"{key}-{name}.json", kept / f"{key}-{name}.txt"
        for old in (report, page):
            old.unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            testssl,
            *("--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "--ip", "127.0.0.1"),
            *_CHECKS,
            *("--jsonfile", str(report), "--logfile", str(page)),
            f"https://localhost:{flow.port}/",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            stdin=asyncio.subprocess.DEVNULL,
        )
        await asyncio.wait_for(process.wait(), 900)
        found = json.loads(report.read_text())
        bad = [one for one in found if one["severity"] in _BAD and one["id"] not in _OF_NO_MATTER]
        assert bad == [], f"{flow.name}: see {page}"
        offered = {one["id"]: one["finding"] for one in found}
        assert offered["TLS1"] == "not offered"
        assert offered["TLS1_1"] == "not offered"
        assert offered["TLS1_2"].startswith("offered")
        assert offered["TLS1_3"].startswith("offered")
