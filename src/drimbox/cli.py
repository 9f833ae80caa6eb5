"""The command line."""

from __future__ import annotations

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """An open DRIMbox: the gateway between a French imaging site and DRIM-M."""
