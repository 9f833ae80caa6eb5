"""``drimbox archive``: the archive of KOS out to XDM media, and in from them; for the administrator (DB.SO.29, 30).

What they import is imported when they run: the command line stays quick.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from drimbox.box.settings import Settings

_CONFIG = click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="the box's TOML file")
_DAY = click.DateTime(["%Y-%m-%d"])


@click.group()
def archive() -> None:
    """The archive of KOS: export it to XDM media, import it from them."""


@archive.command("export")
@click.argument("target", type=click.Path(path_type=Path), metavar="FOLDER|FILE.zip")
@_CONFIG
@click.option("--since", type=_DAY, help="only what was published or changed from this day on")
@click.option("--until", type=_DAY, help="only what was published or changed up to and with this day")
@click.option("--structure", help="only this structure (its id in the configuration)")
@click.option("--contact", default="", help="how to reach the site, written in README.TXT")
@click.option(
    "--volume-size",
    type=click.IntRange(1, 999_999),
    default=100_000,
    show_default=True,
    help="submission sets of a volume at the most",
)
def export_command(
    target: Path,
    path: Path,
    since: dt.datetime | None,
    until: dt.datetime | None,
    structure: str | None,
    contact: str,
    volume_size: int,
) -> None:
    """Write every version of every KOS, with its metadata and its reports. A cut export goes on when run again."""
    from drimbox.box.archiving import Wanted, exported
    from drimbox.foundation.errors import DrimboxError

    wanted = Wanted(structure, since.date() if since else None, until.date() if until else None, contact, volume_size)
    try:
        _end(*exported(_settings(path), target, wanted))
    except DrimboxError as error:
        raise click.ClickException(f"{error.reason} ({error.code})") from error


@archive.command("import")
@click.argument("source", type=click.Path(path_type=Path, exists=True), metavar="FOLDER|FILE.zip")
@_CONFIG
@click.option("--pacs", help="PACS that holds the studies (its id), where the archive does not tell")
@click.option("--structure", help="structure (its id) of the sets whose own structure is none of this box's")
def import_command(source: Path, path: Path, pacs: str | None, structure: str | None) -> None:
    """Read an XDM archive of any DRIMbox. What is refused is told in the operator's queue; run again, it goes on."""
    from drimbox.box.archiving import imported
    from drimbox.foundation.errors import DrimboxError

    try:
        _end(*imported(_settings(path), source, pacs=pacs, structure=structure))
    except DrimboxError as error:
        raise click.ClickException(f"{error.reason} ({error.code})") from error


def _end(whole: bool, lines: list[str]) -> None:
    """Say what was done; status 2 when some of it was not."""
    for line in lines:
        click.echo(line)
    sys.exit(0 if whole else 2)


def _settings(path: Path) -> Settings:
    from drimbox.box.config import ConfigMistakes, load

    try:
        return load(path, os.environ)
    except ConfigMistakes as error:
        raise click.ClickException("\n  ".join([error.reason, *map(str, error.mistakes)])) from error
