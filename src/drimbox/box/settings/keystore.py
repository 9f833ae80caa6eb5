"""The pairs of the box: how they are watched, and where those that it keeps itself are sealed."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from drimbox.box.settings.common import Seconds, Section


class KeystoreSection(Section):
    """Certificates and keys, whatever they are for (docs/igc-sante.md)."""

    look: Seconds = Field(5.0, description="seconds between two looks at the files of pairs, and at those installed")
    reminders: tuple[int, ...] = Field(
        (90, 60, 30, 15, 7), description="days before the end of a certificate at which its renewal is asked for"
    )
    vault_secret: Path | None = Field(
        None,
        description="file of the secret that seals the private keys kept in the database, the same for every node; "
        "none: that of `[market_certificate]`, else `keys/vault.key` in state_dir, made at need",
    )
