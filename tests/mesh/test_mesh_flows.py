"""The table of flows beside what two running boxes really have open."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
import sys
from typing import Any

import psutil
import pytest
from mesh_world import World

from drimbox.box.config import load
from drimbox.box.flows import flows
from drimbox.flows import Direction, Flow, State
from drimbox.trust.probe import probed


def table(world: World, key: str) -> tuple[Flow, ...]:
    return flows(load(world.mesh.state / f"site-{key}.toml", {}))


def family(world: World, key: str) -> list[psutil.Process]:
    """By its configuration: a test may have killed the one that the mesh began with, and started another."""
    file = str(world.mesh.state / f"site-{key}.toml")
    [first] = [one for one in psutil.process_iter(["cmdline"]) if file in (one.info["cmdline"] or ()) and _began(one)]
    return [first, *first.children(recursive=True)]


def _began(process: psutil.Process) -> bool:
    """Not one of its own children, which may have its command line for a moment."""
    parent = process.parent()
    return parent is None or parent.cmdline() != process.cmdline()


def sockets(world: World, key: str) -> list[Any]:
    found = []
    for process in family(world, key):
        found += process.net_connections(kind="inet")
    return found


@pytest.mark.requirement("C17", "SSI/GEN.12")
@pytest.mark.parametrize("key", ["a", "b"])
def test_the_ports_that_are_open_are_those_of_the_table(world: World, key: str) -> None:
    said = {(flow.host, flow.port) for flow in table(world, key) if flow.direction is Direction.IN and flow.port}
    opened = {(c.laddr.ip, c.laddr.port) for c in sockets(world, key) if c.status == psutil.CONN_LISTEN}
    assert opened == said


@pytest.mark.requirement("C17")
@pytest.mark.parametrize("key", ["a", "b"])
def test_the_connections_that_a_box_made_are_in_the_table(world: World, key: str) -> None:
    own = table(world, key)
    taken = {flow.port for flow in own if flow.direction is Direction.IN}
    called = {flow.port for flow in own if flow.direction is Direction.OUT}
    # Those of the discovery document, and of the boxes of the whitelist, are on ports of this machine.
    called |= {world.mesh.ports.psc, world.mesh.ports.wado_a}
    made = {
        connection.raddr.port
        for connection in sockets(world, key)
        if connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port not in taken
    }
    assert made <= called


@pytest.mark.requirement("C17", "SSI/GEN.13")
@pytest.mark.parametrize("key", ["a", "b"])
def test_what_is_said_to_be_encrypted_speaks_tls_as_anssi_asks_and_nothing_else(world: World, key: str) -> None:
    strong = {"ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305"}
    doors = [flow for flow in table(world, key) if flow.direction is Direction.IN and flow.state is State.ENCRYPTED]
    assert doors
    for flow in doors:
        found = probed(flow.host, flow.port)
        assert found.versions == ("TLS 1.2", "TLS 1.3"), flow.name
        assert set(found.suites) == strong
        assert found.suite13 in ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256")


async def test_the_commands_answer_beside_a_running_box(world: World) -> None:
    """``drimbox whitelist`` and ``psc``: the list that the box believes, what PSC must know of it."""
    config = str(world.mesh.state / "site-b.toml")

    async def run(*arguments: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "drimbox", *arguments, "--config", config, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        return process.returncode, output.decode()

    status, text = await run("whitelist", "show", "--json")
    assert status == 0
    assert len(json.loads(text)["domains"]) == 2
    status, text = await run("whitelist", "fetch")
    assert status == 0
    assert "Liste valable, 2 DRIMbox." in text
    status, text = await run("psc", "registration", "--json")
    declared = json.loads(text)
    assert declared["client_id"] == "drimbox-site-b"
    assert declared["authentication"].startswith("tls_client_auth")
    assert status == (2 if declared["problems"] else 0)


def test_groups_and_signatures_are_those_of_the_guide(world: World) -> None:
    """What Python cannot be told is told to the library: `drimbox/trust/openssl.cnf`."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")

    def shakes(*options: str) -> bool:
        where = f"127.0.0.1:{world.mesh.ports.console_a}"
        done = subprocess.run(
            [openssl, "s_client", "-connect", where, *options], input=b"", capture_output=True, timeout=10, check=False
        )
        return b"Cipher is TLS_" in done.stdout or b"Cipher is ECDHE" in done.stdout

    for group in ("X25519", "P-256", "P-384", "P-521", "X448"):
        assert shakes("-groups", group), group
    for group in ("ffdhe2048", "ffdhe3072", "brainpoolP256r1"):
        assert not shakes("-groups", group), group
    assert not shakes("-sigalgs", "RSA+SHA1", "-tls1_2", "-cipher", "ALL:@SECLEVEL=0")
    assert not shakes("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    assert ssl.HAS_TLSv1_3
