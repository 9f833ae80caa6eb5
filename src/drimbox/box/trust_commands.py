"""``drimbox flows``, ``whitelist``, ``trust``, ``nginx``, ``psc`` and ``evidence``, for the administrator.

What they import is imported when they run: the command line stays quick.
"""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

import click

from drimbox.box.journal_commands import load_settings, say

_CONFIG = click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="the box's TOML file")
_FILE = click.Path(path_type=Path, dir_okay=False)
_DAY = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"])


@click.command()
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="for programs")
@click.option("--markdown", "as_markdown", is_flag=True, help="for a document")
@click.option("--check", is_flag=True, help="exit 2 when a flow is in the clear that C17 does not allow")
def flows(path: Path, as_json: bool, as_markdown: bool, check: bool) -> None:
    """Every network flow of the box: port, direction, protocol, encryption (control point C17)."""
    from drimbox.box.flows import flows as read
    from drimbox.flows import State, showing
    from drimbox.foundation.errors import DrimboxError

    try:
        found = read(load_settings(path))
    except DrimboxError as error:
        raise click.ClickException(error.reason) from error
    show = showing.as_json if as_json else showing.markdown if as_markdown else showing.text
    click.echo(show(found))
    if check and any(flow.state is State.CLEAR for flow in found):
        sys.exit(2)


@click.group()
def whitelist() -> None:
    """The signed list of the DRIMboxes of the network."""


@whitelist.command("show")
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="for programs")
def whitelist_show(path: Path, as_json: bool) -> None:
    """The list in use: when it was signed and fetched, until when it is believed, whom it names."""
    from drimbox.box.whitelist_command import shown

    say(lambda: shown(load_settings(path), as_json=as_json))


@whitelist.command("fetch")
@_CONFIG
def whitelist_fetch(path: Path) -> None:
    """Fetch the list now, whether the box runs or not; says what changed."""
    from drimbox.box.whitelist_command import fetched

    say(lambda: fetched(load_settings(path)))


@whitelist.command("check")
@_CONFIG
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def whitelist_check(path: Path, file: Path) -> None:
    """Judge a list in a FILE as one that is fetched; nothing is kept."""
    from drimbox.box.whitelist_command import checked

    say(lambda: checked(load_settings(path), file))


@click.group()
def trust() -> None:
    """Whom the box believes: pinned authorities, revocation lists."""


@trust.command("show")
@_CONFIG
def trust_show(path: Path) -> None:
    """Every pinned authority with its revocation list, and where lists are fetched."""
    from drimbox.box.trust_command import shown

    say(lambda: shown(load_settings(path)))


@trust.command("fetch")
@_CONFIG
def trust_fetch(path: Path) -> None:
    """Fetch every revocation list now; a running box takes them in within five minutes."""
    from drimbox.box.trust_command import fetched

    say(lambda: fetched(load_settings(path)))


@click.command()
@_CONFIG
@click.option("--out", type=_FILE, help="file to write; none: the terminal")
@click.option("--authorities", type=_FILE, help="write the pinned CAs here, in one file, and name it")
def nginx(path: Path, out: Path | None, authorities: Path | None) -> None:
    """Write the configuration of an nginx that ends TLS before the box (docs/tls.md)."""
    from drimbox.box.nginx import nginx_configuration, write_authorities

    def work() -> str:
        settings = load_settings(path)
        if authorities is not None:
            write_authorities(settings, authorities)
        text = nginx_configuration(settings, authorities.resolve() if authorities is not None else None)
        if out is None:
            return text
        out.write_text(text, "utf-8")
        return f"Configuration de nginx écrite dans {out}"

    say(work)


@click.group()
def psc() -> None:
    """Pro Sante Connect: what it must know of this box, and the traces of the proxy e-Sante."""


@psc.command("registration")
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="for programs")
def psc_registration(path: Path, as_json: bool) -> None:
    """Client id, certificate, addresses and roles to declare; exits 2 when something is to be corrected."""
    from drimbox.box.registration import as_json as json_of
    from drimbox.box.registration import registration, written

    found = registration(load_settings(path))
    click.echo(json_of(found) if as_json else written(found))
    sys.exit(2 if found.problems else 0)


@psc.command("traces")
@_CONFIG
@click.option("--since", type=_DAY, required=True, help="from this instant (Paris) on")
@click.option("--until", type=_DAY, required=True, help="up to this instant (Paris)")
def psc_traces(path: Path, since: dt.datetime, until: dt.datetime) -> None:
    """The traces of the proxy e-Sante, as JSON lines; reading them is itself in the journal."""
    from drimbox.box.registration import traces
    from drimbox.foundation.clock import PARIS

    say(lambda: traces(load_settings(path), since.replace(tzinfo=PARIS), until.replace(tzinfo=PARIS)))


@click.command()
@_CONFIG
@click.argument("target", type=_FILE)
@click.option("--attach", multiple=True, type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="a report to put in besides (testssl.sh, an auditor's); several times")  # fmt: skip
@click.option("--no-probe", is_flag=True, help="do not connect to the box's own listeners to see what TLS they speak")
def evidence(path: Path, target: Path, attach: tuple[Path, ...], no_probe: bool) -> None:
    """Write TARGET, one signed ZIP for the habilitation file: facts, flows, certificates, TLS, journal; no secret."""
    from drimbox.box.evidence import written

    say(lambda: written(load_settings(path), target, attach, probe=not no_probe))
