"""``drimbox certificate``: the certificates of the box, for the administrator.

What they import is imported when they run: the command line stays quick.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from drimbox.box.settings import Settings

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_CONFIG = click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="the box's TOML file")
_WAIT = click.option("--wait", default=300.0, show_default=True, help="seconds to wait for the end of the order")
_REASONS = ["unspecified", "key-compromise", "affiliation-changed", "superseded", "cessation"]
_KINDS = ["P-256", "P-384", "RSA-2048", "RSA-3072", "RSA-4096"]


@click.group()
def certificate() -> None:
    """The certificates of the box: that of the viewer host, and those of IGC-Sante."""


@certificate.command()
@_CONFIG
@_WAIT
def order(path: Path, wait: float) -> None:
    """Order the first certificate and wait for it; the running box does the work, else this command."""
    from drimbox.box.certifying import ordered

    _say(lambda: ordered(_settings(path), wait, again=False))


@certificate.command()
@_CONFIG
@_WAIT
def renew(path: Path, wait: float) -> None:
    """Order a new certificate now, whatever the date of the next renewal."""
    from drimbox.box.certifying import ordered

    _say(lambda: ordered(_settings(path), wait, again=True))


@certificate.command("list")
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="for programs")
def list_command(path: Path, as_json: bool) -> None:
    """Every certificate with its state, and when the one in service is renewed."""
    from drimbox.box.certifying import listed

    _say(lambda: listed(_settings(path), as_json=as_json))


@certificate.command()
@_CONFIG
@click.argument("file", type=_FILE)
@click.option("--place", help="place of an IGC-Sante pair (`inventory`); none: the market certificate")
@click.option("--key", type=_FILE, help="its private key (PEM), where it was not made by `csr`, nor is in the file")
@click.option("--password-file", type=_FILE, help="file of the password of the private key, or of the PKCS#12 file")
def install(path: Path, file: Path, place: str | None, key: Path | None, password_file: Path | None) -> None:
    """Check a certificate with its chain (PEM, or PKCS#12 with --place), then put it in service without a restart."""
    if place is not None:
        from drimbox.box.keying import installed_at

        _say(lambda: installed_at(_settings(path), place, file, key, password_file))
        return
    from drimbox.box.certifying import installed

    _say(lambda: installed(_settings(path), file, key, password_file))


@certificate.command()
@_CONFIG
@click.option("--place", required=True, help="place of the pair (`inventory`)")
def remove(path: Path, place: str) -> None:
    """Take out an IGC-Sante pair that was installed in the box: that of the files serves again."""
    from drimbox.box.keying import removed

    _say(lambda: removed(_settings(path), place))


@certificate.command()
@_CONFIG
@click.option("--json", "form", flag_value="json", help="for programs")
@click.option("--csv", "form", flag_value="csv", help="for a spreadsheet")
def inventory(path: Path, form: str | None) -> None:
    """Every certificate of the box with its site, its use and its end, the refused ones included."""
    from drimbox.box.keying import inventoried

    _say(lambda: inventoried(_settings(path), form or "text"))


@certificate.command()
@_CONFIG
@click.option("--key", "kind", type=click.Choice(_KINDS), default="P-256", show_default=True, help="kind of key")
@click.option("--organisation", default="", help="legal name of the structure, for an OV certificate")
@click.option("--out", type=click.Path(path_type=Path), help="file of the request; none: the terminal")
def csr(path: Path, kind: str, organisation: str, out: Path | None) -> None:
    """Make a request (CSR) for an authority without ACME; its key stays in the box, sealed."""
    from drimbox.box.certifying import requested

    _say(lambda: requested(_settings(path), kind, organisation, out))


@certificate.command()
def ov() -> None:
    """Say what an order of an OV certificate needs."""
    from drimbox.certificates.requests import OV_ORDER

    click.echo("Pour commander un certificat OV, il faut :")
    for line in OV_ORDER:
        click.echo(f"  - {line}")


@certificate.command()
@click.option("--config", "path", type=click.Path(path_type=Path), help="the box's TOML file")
@click.option("--number", type=int, help="number of the certificate (`list`); none: the one in service")
@click.option("--reason", type=click.Choice(_REASONS), default="unspecified", show_default=True)
@click.option("--own-key", is_flag=True, help="signed by the certificate's key alone, not by the account")
@click.option("--no-replacement", is_flag=True, help="order no other one")
@click.option("--directory", help="address of the ACME directory, where it is none of the box's")
@click.option("--certificate", "file", type=_FILE, help="without a box: the certificate (PEM)")
@click.option("--certificate-key", type=_FILE, help="without a box: the certificate's private key (PEM)")
@click.option("--account-key", type=_FILE, help="without a box: the account's private key (PEM)")
@click.option("--roots", type=_FILE, help="without a box: CAs of the authority's web server; none: the system's")
def revoke(
    path: Path | None,
    number: int | None,
    reason: str,
    own_key: bool,
    no_replacement: bool,
    directory: str | None,
    file: Path | None,
    certificate_key: Path | None,
    account_key: Path | None,
    roots: Path | None,
) -> None:
    """Revoke a certificate: one of the box, or any one by its key or its account's key alone, without a box."""
    from drimbox.box.certifying import revoked, revoked_alone

    if path is not None:
        settings = _settings(path)
        _say(
            lambda: revoked(settings, number, reason, own_key=own_key, replace=not no_replacement, directory=directory)
        )
        return
    key = certificate_key or account_key
    if directory is None or file is None or key is None or (certificate_key and account_key):
        raise click.UsageError(
            "--config, else --directory with --certificate and one of --certificate-key and --account-key"
        )
    _say(lambda: revoked_alone(directory, file, key, reason, of_account=account_key is not None, roots=roots))


@certificate.command("account-key")
@_CONFIG
@click.option("--authority", default="", help="its name in the configuration; none: the first one")
@click.option("--new-account", is_flag=True, help="forget the account, whose key is lost; the next order opens another")
def account_key_command(path: Path, authority: str, new_account: bool) -> None:
    """Change the key of the account at an authority."""
    from drimbox.box.certifying import account_key_changed

    _say(lambda: account_key_changed(_settings(path), authority, new_account=new_account))


def _say(work: Callable[[], str]) -> None:
    """What was done, or why it could not be."""
    from drimbox.certificates.rules import RulesBroken
    from drimbox.foundation.errors import DrimboxError

    try:
        click.echo(work())
    except RulesBroken as error:
        raise click.ClickException("\n  ".join(["règles du programme", *(b.text for b in error.breaches)])) from error
    except DrimboxError as error:
        peer = f" [{error.peer_code}]" if error.peer_code else ""
        raise click.ClickException(f"{error.reason}{peer} ({error.code})") from error


def _settings(path: Path) -> Settings:
    from drimbox.box.config import ConfigMistakes, load

    try:
        return load(path, os.environ)
    except ConfigMistakes as error:
        raise click.ClickException("\n  ".join([error.reason, *map(str, error.mistakes)])) from error
