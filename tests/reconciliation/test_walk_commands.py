"""``drimbox reconcile``: what an administrator types, whether the box runs or not."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from walk_world import BASE, OLD, Site, led, site_on

from box_settings import DOORS, NATIONAL
from drimbox.box.config import ConfigMistakes, load
from drimbox.box.reconciliation import walk_drivers
from drimbox.box.settings.source import SourceSection
from drimbox.cli import main
from drimbox.publication.incidents import Incidents
from drimbox.reconciliation.walk import Finding, Kind, Mode
from drimbox.record.audit import Journal
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.store import database
from publication.publication_examples import world_on

CONFIG = (
    """[box]
name = "Boîte A"
state_dir = "state"
[database]
dsn_file = "dsn"
[trust]
roots = ["{roots}"]
[[structures]]
id = "ambroise"
name = "Centre de radiologie Ambroise"
identifier = "1750803447"
auth = {{ certificate = "{auth.certificate}", key = "{auth.key}" }}
sign = {{ certificate = "{sign.certificate}", key = "{sign.key}" }}
[[pacs]]
id = "pacs"
host = "127.0.0.1"
port = 4242
ae_title = "PACS"
"""
    + DOORS
    + """public_url = "https://db1.test.mesimagesmedicales.fr"
former_base_paths = ["/ancien"]
tls = {{ certificate = "{server.certificate}", key = "{server.key}" }}
[source.reconciliation]
mode = "report"
rate = 45
suspended = {suspended}
every_days = 30
"""
    + NATIONAL
)


@pytest.fixture
def written(authority: TestAuthority, dsn: str, tmp_path: Path) -> Callable[[str], Path]:
    """A configuration with these hours of rest."""

    def write(suspended: str = '["lun-ven 07:30-19:00"]') -> Path:
        pairs = {
            name: authority.issue(
                profile,
                f"walk-{name}",
                common_name="DRIMbox",
                unit="1750803447",
                organisation="S",
                hosts=("db1.test.mesimagesmedicales.fr",) if profile is Profile.SSL_SERV else (),
            )
            for name, profile in (
                ("auth", Profile.ORG_AUTH_CLI),
                ("sign", Profile.ORG_SIGN),
                ("server", Profile.SSL_SERV),
            )
        }
        (tmp_path / "box.toml").write_text(CONFIG.format(roots=authority.roots, suspended=suspended, **pairs), "utf-8")
        (tmp_path / "dsn").write_text(dsn)
        return tmp_path / "box.toml"

    return write


def on_site(dsn: str, work: Callable[[Site], Awaitable[None]]) -> None:
    async def run() -> None:
        async with database.opened(dsn, size=3) as pool:
            await work(site_on(dsn, pool))

    asyncio.run(run())


@pytest.mark.requirement("DB.SO.28", "DB.SO.88")
def test_a_reconciliation_from_the_command_line(written: Callable[[], Path], dsn: str) -> None:
    config = str(written())

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["reconcile", *arguments, "--config", config])

    def said(*arguments: str) -> str:
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        return result.output

    async def three_studies(site: Site) -> None:
        await site.stock(3)

    on_site(dsn, three_studies)
    assert said("status") == "Aucun parcours jusqu'ici.\n"
    assert run("pause").exit_code == 1
    assert said("start", "--mode", "report", "--rate", "120") == "Réconciliation n° 1 commencée : 3 examens.\n"
    refused = run("start")
    assert (refused.exit_code, "déjà en cours" in refused.output) == (1, True)
    assert said("pause") == "Réconciliation mise en pause.\n"
    assert "Réconciliation n° 1 : en pause, signale sans rien changer" in said("status")
    assert said("resume") == "Réconciliation reprise.\n"

    async def walked(site: Site) -> None:
        site.compare.findings = {"1.2.3.2": {Finding.GONE: ""}}
        driver = site.driver()
        async with led(driver) as connection:
            await site.go(driver, connection, until=lambda w: w.done == 2)

    on_site(dsn, walked)
    told = said("status")
    assert "2 examens sur 3 (66 %)" in told
    assert "120 examens par minute au plus" in told
    assert "fin prévue : " in told
    assert "1 × L'examen n'est plus dans le PACS" in told
    assert said("stop") == "Réconciliation arrêtée après 2 examens.\n"
    assert "arrêtée" in said("status")
    [head, line] = list(csv.reader(io.StringIO(said("list")), delimiter=";"))
    assert (head[:3], line[:3]) == (["structure", "study_uid", "finding"], ["ambroise", "1.2.3.2", "gone"])
    assert said("list", "--walk", "1", "--kind", "content").count("\n") == 1
    assert run("list", "--walk", "9").exit_code == 1
    for bad in ("0", "6001", "x"):
        assert run("start", "--rate", bad).exit_code == 2
    # What is not said comes from the configuration.
    said("start")

    async def as_configured(site: Site) -> None:
        walk = await site.walk()
        assert (walk.mode, walk.rate) == (Mode.REPORT, 45)
        assert walk.started_by.startswith("os:")

    on_site(dsn, as_configured)


@pytest.mark.requirement("DB.SO.31")
def test_a_change_of_address_from_the_command_line(written: Callable[[], Path], dsn: str) -> None:
    config = str(written())

    async def elsewhere(site: Site) -> None:
        await site.stock(2, base=OLD)
        await site.stock(1, first=3)

    on_site(dsn, elsewhere)
    result = CliRunner().invoke(main, ["reconcile", "address", "--config", config])
    assert result.output == "Changement d'adresse n° 1 commencée : 2 examens.\n"
    told = CliRunner().invoke(main, ["reconcile", "status", "--config", config]).output
    assert f"adresse : {BASE}" in told
    assert "60 examens par minute" in told
    stopped = CliRunner().invoke(main, ["reconcile", "stop", "--address", "--config", config])
    assert stopped.exit_code == 0, stopped.output


@pytest.mark.requirement("DB.SO.28")
def test_the_drivers_follow_the_configuration(written: Callable[[str], Path], dsn: str) -> None:
    section = load(written('["lun-ven 07:30-19:00"]'), {}).source
    assert isinstance(section, SourceSection)
    assert section.wado.base == BASE
    assert section.wado.former_base_paths == ("/ancien",)

    async def drivers(site: Site) -> None:
        services = world_on(site.pool).services
        made = walk_drivers(section, services, site.pool, Incidents(site.pool, site.clock), Journal(site.pool), dsn)
        reconciliation, address = made
        assert (reconciliation.kind, address.kind) == tuple(Kind)
        assert (reconciliation.conduct.rate, address.conduct.rate) == (45, 60)
        assert (reconciliation.conduct.every_days, address.conduct.every_days) == (30, 0)
        assert reconciliation.conduct.mode is Mode.REPORT
        assert len(reconciliation.conduct.hours) == len(address.conduct.hours) == 1
        assert {d.base for d in made} == {BASE}

    on_site(dsn, drivers)


@pytest.mark.parametrize("suspended", ['["08h-10h"]', '["00:00-24:00"]', '"08:00-10:00"'])
def test_hours_that_make_no_sense_are_told(written: Callable[[str], Path], suspended: str) -> None:
    file = written(suspended)
    with pytest.raises(ConfigMistakes) as error:
        load(file, {})
    line = next(n for n, text in enumerate(file.read_text("utf-8").splitlines(), 1) if text.startswith("suspended"))
    assert any(str(line) in str(mistake) for mistake in error.value.mistakes)
