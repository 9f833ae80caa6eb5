"""Renewals are called for at 90, 60, 30, 15 and 7 days, once each, whatever restarts; the inventory; the commands."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from keyring_world import PASSWORD, TEMPLATE, World, as_pkcs12, brought, loaded

from drimbox.cli import main
from drimbox.foundation.clock import FixedClock
from drimbox.keyring import reminders
from drimbox.keyring.inventory import Line, as_csv, as_text, lines
from drimbox.notification.notices import Notice
from drimbox.notification.teller import Manner, Teller
from drimbox.publication.incidents import Incident, Incidents
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.store.database import Pool

DELAYS = (90, 60, 30, 15, 7)


async def remind(world: World, pool: Pool, incidents: Incidents, *, nodes: int = 1) -> int:
    now = world.clock.now()
    found = lines(world.ring().standings, now)
    return sum(await asyncio.gather(*(reminders.remind(pool, incidents, found, DELAYS, now) for _ in range(nodes))))


async def open_lines(incidents: Incidents) -> tuple[Incident, ...]:
    return await incidents.list(code=reminders.EXPIRY)


@dataclass
class Kept:
    """A channel that keeps what it is told."""

    told: list[Notice]
    name: str = "kept"

    async def tell(self, notice: Notice) -> None:
        self.told.append(notice)


@pytest.mark.requirement("DB.SO.89", "DB.SO.21")
async def test_each_delay_is_told_once(world: World, pki: TestAuthority, pool: Pool) -> None:
    pair = brought(pki, left=100)
    world.put(pair)
    end = loaded(pair).expires_at
    clock = FixedClock(dt.datetime.now(dt.UTC))
    world.clock = clock
    incidents = Incidents(pool, clock)
    channel = Kept([])

    async def nothing(*_: object) -> None:
        return

    manner = Manner("box", every=0, always=(reminders.EXPIRY,))
    teller = Teller(pool, clock, channel, manner, nothing)
    await teller.begin()
    for left, expected in ((99, 0), (89.9, 1), (75, 0), (59.5, 1), (29.5, 1), (14, 1), (6, 1), (0.5, 0)):
        clock.advance((end - dt.timedelta(days=left) - clock.now()).total_seconds())
        # A restart is another call; several nodes call at once.
        assert await remind(world, pool, incidents, nodes=3) == expected, left
        assert await remind(world, pool, incidents) == 0
        assert len(await open_lines(incidents)) == min(1, sum((left < 90,)))
        clock.advance(1)
        assert await teller.turn() == expected
    [last] = await open_lines(incidents)
    assert last.severity == "warning"
    assert "dans 6 jours" in last.reason
    assert "[structures.ambroise.sign]" in last.reason
    assert [notice.items[0].code for notice in channel.told] == [reminders.EXPIRY] * 5


@pytest.mark.requirement("DB.SO.89")
async def test_a_late_start_tells_the_nearest_delay_alone_and_a_renewal_ends_it(
    world: World, pki: TestAuthority, pool: Pool
) -> None:
    world.put(brought(pki, left=10))
    incidents = Incidents(pool, world.clock)
    assert await remind(world, pool, incidents) == 1
    assert "dans 9 jours" in (await open_lines(incidents))[0].reason
    world.put(brought(pki, issued=1, left=700))
    assert await remind(world, pool, incidents) == 0
    assert await open_lines(incidents) == ()


async def test_a_refused_pair_is_a_line_that_closes_by_itself(world: World, pki: TestAuthority, pool: Pool) -> None:
    incidents = Incidents(pool, world.clock)

    async def codes(look: bool = True) -> list[str]:
        if look:
            ring.look()
            ring.look()
        await reminders.tell(pool, incidents, ring.changes())
        return [one.code for one in await incidents.list()]

    ring = world.ring()
    assert await codes() == [reminders.UNUSABLE]
    world.put(brought(pki))
    assert await codes() == []
    world.put(brought(pki, Profile.ORG_AUTH_CLI))
    assert await codes() == [reminders.REFUSED]
    [one] = await incidents.list()
    assert "celle en service reste" in one.reason
    world.put(brought(pki, issued=1))
    assert await codes() == []


@pytest.mark.requirement("DB.SO.89")
def test_the_inventory_says_site_use_and_end(world: World, pki: TestAuthority) -> None:
    pair = brought(pki, left=41.5)
    world.put(pair)
    [line] = lines(world.ring().standings, world.clock.now())
    assert (line.site, line.use, line.unit, line.days_left) == ("Centre Ambroise", "ORG SIGN", "1750803447", 41)
    assert (line.state, line.range, line.kind) == ("en service", "test", "PEM")
    head, row = csv.reader(io.StringIO(as_csv([line]).removeprefix("\ufeff")), delimiter=";")
    assert head[:5] == ["Site", "Structure (OU)", "Usage", "État", "Fin de validité"]
    assert row[0] == "Centre Ambroise"
    assert "ORG SIGN, en service" in as_text([line])
    # No cell is a formula.
    evil = as_csv([Line("=1+1", "@x", "p", "PEM", "absente")])
    assert "'=1+1" in evil
    assert "'@x" in evil
    world.put(brought(pki, left=-2))
    [line] = lines(world.ring().standings, world.clock.now())
    assert line.state == "refusée"
    assert "expiré" in line.problem


@pytest.mark.requirement("DB.SO.89")
def test_the_commands(pki: TestAuthority, tmp_path: Path, dsn: str) -> None:
    (tmp_path / "dsn").write_text(dsn)
    (tmp_path / "password").write_bytes(PASSWORD)
    (tmp_path / "auth.p12").write_bytes(as_pkcs12(brought(pki, Profile.ORG_AUTH_CLI)))
    host = "db1.111.mesimagesmedicales.fr"
    server = brought(pki, Profile.SSL_SERV, hosts=[host])
    box = tmp_path / "box.toml"

    def written(text: str = TEMPLATE, server: object = server) -> None:
        box.write_text(text.format(roots=pki.roots, sign=brought(pki), server=server))

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, [*arguments])
        return done.exit_code, done.output

    written()
    assert run("config", "check", str(box)) == (0, "box.toml : configuration correcte\n")
    config = ("--config", str(box))
    code, told = run("certificate", "inventory", "--json", *config)
    assert code == 0
    found = json.loads(told)
    assert [(one["place"], one["kind"], one["state"]) for one in found] == [
        ("structures.ambroise.auth", "PKCS#12", "en service"),
        ("structures.ambroise.sign", "PEM", "en service"),
        ("source.wado.tls", "PEM", "en service"),
    ]
    code, told = run("certificate", "inventory", "--csv", *config)
    assert code == 0
    assert told.count("\n") == 4
    renewed, held = brought(pki, Profile.ORG_AUTH_CLI, issued=1), tmp_path / "renewed.p12"
    held.write_bytes(as_pkcs12(renewed))
    password = ("--password-file", str(tmp_path / "password"))
    wrong = run("certificate", "install", *config, "--place", "structures.ambroise.sign", *password, str(held))
    assert wrong[0] == 1
    assert "ORG SIGN" in wrong[1]
    right = run("certificate", "install", *config, "--place", "structures.ambroise.auth", *password, str(held))
    assert right[0] == 0, right[1]
    serial = f"{loaded(renewed).certificate.serial_number:x}"
    assert serial in run("certificate", "inventory", "--json", *config)[1]
    assert run("certificate", "remove", *config, "--place", "structures.ambroise.auth")[0] == 0
    assert serial not in run("certificate", "inventory", "--json", *config)[1]
    # A name of the agency's domain is the one name that the certificate may have.
    written(server=brought(pki, Profile.SSL_SERV, hosts=[host, "localhost"]))
    code, told = run("config", "check", str(box))
    assert code == 1
    assert "source.wado.tls" in told
    assert "plusieurs noms" in told
    written(TEMPLATE.replace('name = "b"', 'name = "b"\nenvironment = "production"'))
    code, told = run("config", "check", str(box))
    assert code == 1
    assert told.count("les deux gammes ne se mêlent jamais") == 3
    assert "trust.roots" in told
    written(TEMPLATE.replace("pkcs12 =", 'certificate = "x.pem", pkcs12 ='))
    assert "retirez certificate" in run("config", "check", str(box))[1]
