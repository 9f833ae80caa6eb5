"""``drimbox journal`` and ``drimbox statistics``: the audit journal searched, verified, kept to its retention; counted.

What they import is imported when they run: the command line stays quick.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from drimbox.box.settings import Settings

_CONFIG = click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="the box's TOML file")
_DAY = click.DateTime(["%Y-%m-%d"])
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def journal() -> None:
    """The audit journal: search it, verify it, remove what is past its retention."""


@journal.command()
@_CONFIG
@click.option("--patient", is_flag=True, help="by patient: the INS is asked for here, never on the command line")
@click.option("--person", default="", help="national id of the professional (or local:, os: account)")
@click.option("--identifier", default="", help="identifier of a document, study, KOS, message...")
@click.option("--kind", default="", help="kind of event, such as IMAGES_SERVED (`drimbox journal kinds`)")
@click.option("--correlation", default="", help="everything that one piece of work left")
@click.option("--since", type=_DAY, help="from this day (Paris) on")
@click.option("--until", type=_DAY, help="up to and with this day")
@click.option("--before", default="", help="older than this number: the next page")
@click.option("--csv", "target", type=_FILE, help="everything that matches, into this file")
def search(
    path: Path,
    patient: bool,
    person: str,
    identifier: str,
    kind: str,
    correlation: str,
    since: dt.datetime | None,
    until: dt.datetime | None,
    before: str,
    target: Path | None,
) -> None:
    """Search the journal, newest first, a page at a time. Every search is itself in the journal."""
    from drimbox.box.journal import exported, searched

    settings = load_settings(path)
    fields = {"personne": person, "identifiant": identifier, "nature": kind, "travail": correlation, "avant": before}
    fields |= {"du": since.date().isoformat() if since else "", "au": until.date().isoformat() if until else ""}
    if patient:
        test = settings.box.environment == "test"
        fields["matricule"] = click.prompt("Matricule INS", err=True)
        default = "1.2.250.1.213.1.4.10" if test else "1.2.250.1.213.1.4.8"
        fields["oid"] = click.prompt("OID de son autorité", default=default, err=True)
    if target is not None:
        say(lambda: exported(settings, fields, target))
    else:
        say(lambda: searched(settings, fields))


@journal.command()
def kinds() -> None:
    """List the kinds of events."""
    from drimbox.record.audit import Kind
    from drimbox.record.words import kind

    for one in Kind:
        click.echo(f"{one.name:<22} {one.code:<22} {kind(one)}")


@journal.command()
@_CONFIG
@click.option("--known", default="", help="an end of the chain kept elsewhere (number:digest, from the technical log)")
def verify(path: Path, known: str) -> None:
    """Compare the journal with its chain of seals; exits 0 only when it is whole."""
    from drimbox.box.journal import verified
    from drimbox.foundation.errors import DrimboxError

    try:
        text, whole = verified(load_settings(path), known)
    except DrimboxError as error:
        raise click.ClickException(error.reason) from error
    click.echo(text)
    sys.exit(0 if whole else 2)


@journal.command()
@_CONFIG
@click.option("--yes", is_flag=True, help="without asking")
def remove(path: Path, yes: bool) -> None:
    """Remove what is older than [journal] keep_days; it is written in the journal."""
    from drimbox.box.journal import removed

    def sure(count: int, days: int) -> bool:
        return yes or click.confirm(f"Retirer définitivement {count} traces de plus de {days} jours ?")

    say(lambda: removed(load_settings(path), sure))


@click.command()
@_CONFIG
@click.option("--since", type=_DAY, required=True, help="first day (Paris)")
@click.option("--until", type=_DAY, required=True, help="last day")
@click.option("--by", "step", type=click.Choice(["day", "month"]), default="month", show_default=True)
@click.option("--csv", "target", type=_FILE, help="every line into this file")
@click.option("--calls", type=_FILE, help="every contextual call, a row each, into this file")
def statistics(
    path: Path, since: dt.datetime, until: dt.datetime, step: str, target: Path | None, calls: Path | None
) -> None:
    """Count what the box did: reports, KOS, image requests, contextual calls, DMP queries... (DB.SO.87)."""
    from drimbox.box.counting import Wanted, counted

    wanted = Wanted(since.date(), until.date(), step, target, calls)
    say(lambda: counted(load_settings(path), wanted))


@click.group()
def notify() -> None:
    """How the administrator is told of the queue ([notifications])."""


@notify.command("test")
@_CONFIG
def notify_test(path: Path) -> None:
    """Send an example by every channel."""
    from drimbox.box.notifying import tried

    say(lambda: tried(load_settings(path)))


def load_settings(path: Path) -> Settings:
    """The configuration; what is wrong with it ends the program."""
    from drimbox.box.config import ConfigMistakes, load

    try:
        return load(path, os.environ)
    except ConfigMistakes as error:
        click.echo(error.reason, err=True)
        for mistake in error.mistakes:
            click.echo(f"  {mistake}", err=True)
        sys.exit(1)


def say(work: Callable[[], str]) -> None:
    """What was done, or why it could not be."""
    from drimbox.foundation.errors import DrimboxError

    try:
        click.echo(work())
    except DrimboxError as error:
        click.echo(error.reason, err=True)
        sys.exit(1)
