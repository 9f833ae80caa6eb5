"""The command line. Each command is a few lines: the work is in the rooms."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from drimbox.box.settings import Settings

HOME = Path(os.environ.get("DRIMBOX_HOME", Path.cwd()))


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
    _settings(path)
    click.echo(f"{path.name} : configuration correcte")


def _settings(path: Path) -> Settings:
    from drimbox.box.config import ConfigMistakes, load

    try:
        return load(path, os.environ)
    except ConfigMistakes as error:
        click.echo(error.reason, err=True)
        for mistake in error.mistakes:
            click.echo(f"  {mistake}", err=True)
        sys.exit(1)


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


@main.command()
@click.option("--state", type=click.Path(path_type=Path), default=HOME / "var" / "demo", help="folder of its state")
@click.option(
    "--message", type=click.Path(path_type=Path, exists=True), help="an HL7 message to send instead of exam E"
)
@click.option("--fresh", is_flag=True, help="forget what an earlier demonstration left")
@click.option("--once", is_flag=True, help="play the story without a browser, compare every image, and end")
@click.option("--json", "report", type=click.Path(path_type=Path), help="with --once: where the figures are written")
def demo(state: Path, message: Path | None, fresh: bool, once: bool, report: Path | None) -> None:
    """Two sites and the national services on this machine: a report in at one, its images at the other."""
    from drimbox.demo.play import Options, play

    sys.exit(asyncio.run(play(Options(state, HOME, message, fresh, once, report))))


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--slow", is_flag=True, help="the long proofs too")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(slow: bool, arguments: tuple[str, ...]) -> None:
    """Check style and types, then run the tests; ARGUMENTS go to pytest."""
    tools = Path(sys.executable).parent
    commands = [
        [str(tools / "ruff"), "format", "--check", "src", "tests"],
        [str(tools / "ruff"), "check", "src", "tests"],
        [str(tools / "mypy")],
        [str(tools / "pytest"), "-q", *([] if slow else ["-m", "not slow"]), *arguments],
    ]
    for command in commands:
        status = subprocess.run(command, cwd=HOME, check=False).returncode  # noqa: S603
        if status:
            sys.exit(status)


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
@click.option("--rounds", default=3, show_default=True, help="how often the walk of an image is measured")
@click.option("--json", "report", type=click.Path(path_type=Path), help="where every value is written")
def bench(rounds: int, report: Path | None) -> None:
    """Measure the mesh on this machine; print the table."""
    from drimbox.bench.mesh import measure

    click.echo(asyncio.run(measure(HOME, rounds, report)))


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
