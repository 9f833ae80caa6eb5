"""``drimbox reconcile``: walks through the archive, for the administrator (DB.SO.28, DB.SO.31).

What they import is imported when they run: the command line stays quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from drimbox.box.settings import Settings
    from drimbox.reconciliation.walk import Kind

_CONFIG = click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="the box's TOML file")
_RATE = click.option("--rate", type=click.IntRange(1, 6000), help="studies a minute at the most (else the setting)")
_ADDRESS = click.option("--address", is_flag=True, help="the walk that rewrites addresses, not the reconciliation")


@click.group()
def reconcile() -> None:
    """Compare the whole archive of KOS with PACS and DMP, study by study; the running box does the work."""


@reconcile.command()
@_CONFIG
@click.option("--mode", type=click.Choice(["repair", "report"]), help="set right, or only tell (else the setting)")
@_RATE
def start(path: Path, mode: str | None, rate: int | None) -> None:
    """Begin a reconciliation."""
    from drimbox.box.reconciling import started
    from drimbox.reconciliation.walk import Kind

    _say(lambda: started(_settings(path), Kind.RECONCILIATION, mode, rate))


@reconcile.command()
@_CONFIG
@_RATE
def address(path: Path, rate: int | None) -> None:
    """Rewrite every KOS that does not carry this source's present address."""
    from drimbox.box.reconciling import started
    from drimbox.reconciliation.walk import Kind

    _say(lambda: started(_settings(path), Kind.ADDRESS, None, rate))


@reconcile.command()
@_CONFIG
def status(path: Path) -> None:
    """Tell how far it is, what it found, when it will end."""
    from drimbox.box.reconciling import status as told

    _say(lambda: told(_settings(path)))


@reconcile.command()
@_CONFIG
@_ADDRESS
def pause(path: Path, address: bool) -> None:
    """Take no more studies until it is resumed."""
    from drimbox.box.reconciling import paused

    _say(lambda: paused(_settings(path), _kind(address)))


@reconcile.command()
@_CONFIG
@_ADDRESS
def resume(path: Path, address: bool) -> None:
    """Go on where it was paused."""
    from drimbox.box.reconciling import resumed

    _say(lambda: resumed(_settings(path), _kind(address)))


@reconcile.command()
@_CONFIG
@_ADDRESS
def stop(path: Path, address: bool) -> None:
    """End it for good; what it found is kept."""
    from drimbox.box.reconciling import stopped

    _say(lambda: stopped(_settings(path), _kind(address)))


@reconcile.command("list")
@_CONFIG
@click.option("--walk", type=int, help="number of the walk; none: the last reconciliation")
@click.option("--kind", default="", help="one kind of finding only")
def list_command(path: Path, walk: int | None, kind: str) -> None:
    """Write what it found as CSV: study and finding, no health data."""
    from drimbox.box.reconciling import listed

    _run(lambda: listed(_settings(path), walk, kind, sys.stdout))


def _kind(address: bool) -> Kind:
    from drimbox.reconciliation.walk import Kind

    return Kind.ADDRESS if address else Kind.RECONCILIATION


def _say(work: Callable[[], str]) -> None:
    _run(lambda: click.echo(work()))


def _run(work: Callable[[], None]) -> None:
    """What was done, or why it could not be."""
    from drimbox.foundation.errors import DrimboxError

    try:
        work()
    except DrimboxError as error:
        raise click.ClickException(f"{error.reason} ({error.code})") from error


def _settings(path: Path) -> Settings:
    from drimbox.box.config import ConfigMistakes, load

    try:
        return load(path, os.environ)
    except ConfigMistakes as error:
        raise click.ClickException("\n  ".join([error.reason, *map(str, error.mistakes)])) from error
