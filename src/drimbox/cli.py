"""The command line. Each command is a few lines: the work is in the rooms."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from drimbox.box.archive_commands import archive
from drimbox.box.backup_commands import backup, restore
from drimbox.box.certificate_commands import certificate
from drimbox.box.journal_commands import journal, notify, statistics
from drimbox.box.link_commands import link
from drimbox.box.reconciliation_commands import reconcile
from drimbox.box.trust_commands import evidence, flows, nginx, psc, trust, whitelist

if TYPE_CHECKING:
    from drimbox.box.settings import Settings

_ROLES = "operateur, administrateur, lecture-messages, auditeur; several times"
HOME = Path(os.environ.get("DRIMBOX_HOME", Path.cwd()))
_CONFIG = click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="the box's TOML file")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """An open DRIMbox: the gateway between a French imaging site and DRIM-M."""


@main.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="the box's TOML file")
def run(path: Path) -> None:
    """Run a box until it is told to stop."""
    from drimbox.box.run import main_box

    settings = _settings(path)
    sys.exit(main_box(settings))


@main.group()
def config() -> None:
    """Look at a configuration."""


@config.command("check")
@click.argument("path", type=click.Path(path_type=Path))
def check(path: Path) -> None:
    """Check a configuration: each mistake with its line and its remedy."""
    _settings(path, strict=True)
    click.echo(f"{path.name} : configuration correcte")


def _settings(path: Path, *, strict: bool = False) -> Settings:
    from drimbox.box.config import ConfigMistakes, load

    try:
        return load(path, os.environ, strict=strict)
    except ConfigMistakes as error:
        click.echo(error.reason, err=True)
        for mistake in error.mistakes:
            click.echo(f"  {mistake}", err=True)
        sys.exit(1)


@main.group()
def viewer() -> None:
    """The OHIF viewer's files."""


@viewer.command("install")
@click.option("--folder", type=click.Path(path_type=Path), default=HOME / "var" / "viewer", help="where they go")
def viewer_install(folder: Path) -> None:
    """Fetch the pinned viewer from npm and check it; nothing is done when it is there already."""
    from drimbox.consumer.viewer_files import install_viewer
    from drimbox.foundation.errors import DrimboxError

    try:
        fresh = install_viewer(folder)
    except DrimboxError as error:
        click.echo(error.reason, err=True)
        sys.exit(1)
    click.echo(f"Visionneuse {'installée' if fresh else 'déjà présente'} dans {folder}")


@main.group()
def queue() -> None:
    """The operator's queue: what could not be done, and why."""


@queue.command("list")
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="the box's TOML file")
@click.option("--all", "closed", is_flag=True, help="what is closed too")
@click.option("--limit", default=50, show_default=True, help="lines at the most")
def queue_list(path: Path, closed: bool, limit: int) -> None:
    """List the queue, newest first."""
    from drimbox.box.operator import listed

    click.echo(listed(_settings(path), closed=closed, limit=limit))


@queue.command("show")
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="the box's TOML file")
@click.argument("number", type=int)
def queue_show(path: Path, number: int) -> None:
    """Show one line of the queue with its history."""
    from drimbox.box.operator import shown

    text = shown(_settings(path), number)
    if text is None:
        click.echo(f"Pas d'incident {number}.", err=True)
        sys.exit(1)
    click.echo(text)


@queue.command("retry")
@_CONFIG
@click.argument("number", type=int)
def queue_retry(path: Path, number: int) -> None:
    """Try one line of the queue again, now."""
    from drimbox.box.operator import retried

    _say(lambda: retried(_settings(path), number))


@queue.command("resync")
@_CONFIG
@click.argument("number", type=int)
def queue_resync(path: Path, number: int) -> None:
    """Compare the study of one line of the queue with PACS and DMP, and set its KOS right."""
    from drimbox.box.operator import resynced

    _say(lambda: resynced(_settings(path), number))


@queue.command("discard")
@_CONFIG
@click.argument("number", type=int)
@click.option("--reason", required=True, help="why: kept in the history, without health data")
def queue_discard(path: Path, number: int, reason: str) -> None:
    """File one line of the queue without follow-up."""
    from drimbox.box.operator import discarded

    _say(lambda: discarded(_settings(path), number, reason))


@main.command()
@_CONFIG
@click.argument("study_uid")
@click.option("--structure", default="", help="this structure alone (its id in the configuration)")
def resync(path: Path, study_uid: str, structure: str) -> None:
    """Compare one study with PACS and DMP, and set its KOS right: updated, taken out, or published again."""
    from drimbox.box.operator import compared

    _say(lambda: compared(_settings(path), study_uid, structure))


@main.group()
def account() -> None:
    """The accounts of the operator's console."""


@account.command("add")
@_CONFIG
@click.argument("login")
@click.option("--name", required=True, help="first name and name of the person")
@click.option("--role", "roles", multiple=True, help=_ROLES)
@click.option("--national-id", default="", help="national id (8 and RPPS) that may log in with Pro Sante Connect")
@click.option("--password-file", type=click.Path(path_type=Path, exists=True), help="file of a first password")
@click.option("--no-password", is_flag=True, help="Pro Sante Connect alone")
def account_add(
    path: Path,
    login: str,
    name: str,
    roles: tuple[str, ...],
    national_id: str,
    password_file: Path | None,
    no_password: bool,
) -> None:
    """Open an account. Its first password is asked for here, or read from a file; its owner must change it."""
    from drimbox.box.accounts import NewAccount, added

    settings = _settings(path)
    password = None if no_password else _password(password_file)
    _say(lambda: added(settings, NewAccount(login, name, roles, national_id, password)))


@account.command("list")
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="for programs")
def account_list(path: Path, as_json: bool) -> None:
    """Every account with its rights."""
    from drimbox.box.accounts import listed

    _say(lambda: listed(_settings(path), as_json=as_json))


@account.command("roles")
@_CONFIG
@click.argument("login")
@click.option("--role", "roles", multiple=True, help=_ROLES)
def account_roles(path: Path, login: str, roles: tuple[str, ...]) -> None:
    """Give an account these rights and no others."""
    from drimbox.box.accounts import with_roles

    _say(lambda: with_roles(_settings(path), login, roles))


@account.command("lock")
@_CONFIG
@click.argument("login")
def account_lock(path: Path, login: str) -> None:
    """Let nobody in by an account any more."""
    from drimbox.box.accounts import locked

    _say(lambda: locked(_settings(path), login))


@account.command("unlock")
@_CONFIG
@click.argument("login")
def account_unlock(path: Path, login: str) -> None:
    """Open an account again."""
    from drimbox.box.accounts import unlocked

    _say(lambda: unlocked(_settings(path), login))


@account.command("password")
@_CONFIG
@click.argument("login")
@click.option("--password-file", type=click.Path(path_type=Path, exists=True), help="file of the new password")
def account_password(path: Path, login: str, password_file: Path | None) -> None:
    """Give an account a provisional password, asked for here or read from a file."""
    from drimbox.box.accounts import with_password

    settings = _settings(path)
    password = _password(password_file)
    _say(lambda: with_password(settings, login, password))


def _password(file: Path | None) -> str:
    """From a file, its line end left out, or typed twice; never from the command line, which others can read."""
    if file is not None:
        return file.read_text("utf-8").removesuffix("\n").removesuffix("\r")
    typed: str = click.prompt("Mot de passe provisoire", hide_input=True, confirmation_prompt="Encore une fois")
    return typed


def _say(work: Callable[[], str]) -> None:
    """What was done, or why it could not be."""
    from drimbox.foundation.errors import DrimboxError

    try:
        click.echo(work())
    except DrimboxError as error:
        click.echo(error.reason, err=True)
        sys.exit(1)


@main.command()
@_CONFIG
@click.option("--pacs", default="", help="id of one PACS in the configuration; none: all")
def pacs(path: Path, pacs: str) -> None:
    """Ask each PACS what it does: C-ECHO, C-FIND, C-MOVE, C-GET, DICOMweb (docs/pacs.md)."""
    from drimbox.box.pacs_command import told
    from drimbox.foundation.errors import DrimboxError

    settings = _settings(path)
    try:
        text, sound = told(settings, pacs)
    except DrimboxError as error:
        click.echo(error.reason, err=True)
        sys.exit(1)
    click.echo(text)
    sys.exit(0 if sound else 1)


@main.command()
@_CONFIG
@click.option("--study", "study_uid", default="", help="Study Instance UID; none: the reference study, or a recent one")
@click.option("--pacs", default="", help="id of the PACS in the configuration, where it has several")
@click.option("--picture", type=click.Path(path_type=Path), help="a PNG file of the figures")
@click.option("--json", "report", type=click.Path(path_type=Path), help="where every value is written")
def speedtest(path: Path, study_uid: str, pacs: str, picture: Path | None, report: Path | None) -> None:
    """Measure the site's own PACS: first image, throughput, and what slows it down (DB.SO.102)."""
    from drimbox.box.speedtest import Options, measured

    settings = _settings(path)
    _say(lambda: measured(settings, Options(study_uid, pacs, picture, report)))


@main.command()
@click.option("--state", type=click.Path(path_type=Path), default=HOME / "var" / "demo", help="folder of its state")
@click.option(
    "--message", type=click.Path(path_type=Path, exists=True), help="an HL7 message to send instead of exam E"
)
@click.option("--fresh", is_flag=True, help="forget what an earlier demonstration left")
@click.option("--once", is_flag=True, help="play the story without a browser, compare every image, and end")
@click.option("--json", "report", type=click.Path(path_type=Path), help="with --once: where the figures are written")
@click.option("--ports", "first_port", default=17400, show_default=True, help="first port of a new demonstration")
@click.option(
    "--patients",
    type=click.Choice(["code", "oidc"]),
    default="code",
    show_default=True,
    help="how patients are let in by the link of a report: a one-time code, or an identity provider (FranceConnect+)",
)
def demo(
    state: Path,
    message: Path | None,
    fresh: bool,
    once: bool,
    report: Path | None,
    first_port: int,
    patients: str,
) -> None:
    """Two sites and the national services on this machine: a report in at one, its images at the other."""
    from drimbox.demo.play import Options, play

    sys.exit(asyncio.run(play(Options(state, HOME, message, fresh, once, report, first_port, patients))))


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--slow", is_flag=True, help="the long proofs too")
@click.option("--chaos", is_flag=True, help="the chaos run alone: 2000 messages while everything around fails")
@click.option("--fuzz", "minutes", type=float, help="fuzz every parser and service alone, for so many minutes")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(slow: bool, chaos: bool, minutes: float | None, arguments: tuple[str, ...]) -> None:
    """Check style and types, then run the tests; ARGUMENTS go to pytest, for a part of them.

    With --fuzz, ARGUMENTS are the names of the targets, all of them when there are none.
    """
    from drimbox import checks

    if minutes is not None:
        paths = os.pathsep.join(str(HOME / folder) for folder in ("src", "tests"))
        command = [sys.executable, "-m", "fuzz", "campaign", str(minutes), *arguments]
        sys.exit(subprocess.run(command, cwd=HOME, check=False, env={**os.environ, "PYTHONPATH": paths}).returncode)  # noqa: S603
    sys.exit(checks.chaos(HOME, arguments) if chaos else checks.check(HOME, slow=slow, arguments=arguments))


@main.command()
@click.option("--config", "path", type=click.Path(path_type=Path, exists=True), required=True, help="a JSON file")
def sandbox(path: Path) -> None:
    """Run the simulated national services that a JSON file describes (the demonstration writes one)."""
    from drimbox.record.logs import configure
    from drimbox.sandbox.services import main_services
    from drimbox.sandbox.sites import config_from_json

    configure("INFO")
    main_services(config_from_json(path.read_text("utf-8")), ready=lambda _: click.echo("READY"))


@main.command()
@click.argument("part", type=click.Choice(["mesh", "source", "pixels", "consumer", "trust", "all"]), default="all")
@click.option("--rounds", default=3, show_default=True, help="how often each walk is measured")
@click.option("--backlog", "length", default=50_000, show_default=True, help="reports that wait in the source's queue")
@click.option("--quick", is_flag=True, help="pixels, consumer: a few images only, to see that everything runs")
@click.option("--picture", type=click.Path(path_type=Path), help="pixels: a PNG file of the table")
@click.option("--json", "report", type=click.Path(path_type=Path), help="where every value is written")
def bench(part: str, rounds: int, length: int, quick: bool, picture: Path | None, report: Path | None) -> None:
    """Measure the mesh, the source alone, the images beside their peers, the consumer, trust, or all."""
    from drimbox.bench import mesh, rows, source
    from drimbox.bench.consumer import run as consumer
    from drimbox.bench.pixels import run as pixels
    from drimbox.bench.trust import run as trusting

    found: list[rows.Row] = []
    if part in ("mesh", "all"):
        found += asyncio.run(mesh.measure(HOME, rounds))
    if part in ("source", "all"):
        found += asyncio.run(source.measure(rounds, length))
    if part in ("consumer", "all"):
        found += asyncio.run(consumer.measure(HOME, rounds, quick=quick, say=_progress))
    if part in ("trust", "all"):
        found += asyncio.run(trusting.measure(rounds, _progress))
    if found:
        click.echo(f"{rows.machine()}\n\n{rows.table(found)}\n")
    if part in ("pixels", "all"):
        _say(lambda: pixels.measured(HOME, rounds, quick=quick, picture=picture, report=report, others=found))
    elif report is not None:
        rows.write(report, found)


def _progress(text: str) -> None:
    click.echo(f"... {text}", err=True)


@main.group()
def docs() -> None:
    """Write the pages that are made from the code."""


@docs.command("settings")
def docs_settings() -> None:
    """Write docs/settings.md."""
    from drimbox.box.manual import settings_page

    (HOME / "docs" / "settings.md").write_text(settings_page(), "utf-8")


@docs.command("requirements")
def docs_requirements() -> None:
    """Write docs/requirements.md from the marks of the tests (needs what `./drimbox test` installs)."""
    pytest = Path(sys.executable).parent / "pytest"
    page = HOME / "docs" / "requirements.md"
    command = [str(pytest), "--collect-only", "-q", f"--requirements={page}", "tests"]
    sys.exit(subprocess.run(command, cwd=HOME, check=False, stdout=subprocess.DEVNULL).returncode)  # noqa: S603


main.add_command(archive)
main.add_command(backup)
main.add_command(restore)
main.add_command(certificate)
main.add_command(journal)
main.add_command(link)
main.add_command(statistics)
main.add_command(notify)
main.add_command(reconcile)
main.add_command(flows)
main.add_command(whitelist)
main.add_command(trust)
main.add_command(nginx)
main.add_command(psc)
main.add_command(evidence)
