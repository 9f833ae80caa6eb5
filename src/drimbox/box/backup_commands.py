"""``drimbox backup`` and ``drimbox restore``, for the administrator (DB.SO.24).

What they import is imported when they run: the command line stays quick.
"""

from __future__ import annotations

from pathlib import Path

import click

from drimbox.box.journal_commands import load_settings, say

_CONFIG = click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="the box's TOML file")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_CONFIG
@click.option("--check", is_flag=True, help="make none: read FILE to its last octet, and say whether it is whole")
def backup(file: Path, path: Path, check: bool) -> None:
    """Back up the box into FILE, running or not: its database and the keys it made (docs/backup.md)."""
    from drimbox.box.backup import checked, made

    settings = load_settings(path)
    say(lambda: checked(file) if check else made(settings, file))


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@_CONFIG
def restore(file: Path, path: Path) -> None:
    """Restore a backup into an empty box that is not running: all of it, or nothing."""
    from drimbox.box.backup import restored

    settings = load_settings(path)
    say(lambda: restored(settings, file))
