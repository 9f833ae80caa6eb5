"""The operator's console."""

from __future__ import annotations

from pydantic import Field

from drimbox.box.settings.common import TlsServer


class ConsoleSection(TlsServer):
    """The operator's console: the queue, the archived studies, the accounts (`drimbox account add` makes the first)."""

    pro_sante_connect: bool = Field(
        False,
        description="accounts with a national id may log in with Pro Sante Connect, as the client of [psc]; PSC must "
        "know `<public_url>/connexion/retour` and, after logout, `<public_url>/au-revoir`",
    )
    idle_minutes: float = Field(15, gt=0, le=30, description="inactivity that ends a session")
    session_hours: float = Field(8, gt=0, le=12, description="longest session (4 hours with Pro Sante Connect)")
    password_length: int = Field(12, ge=10, le=64, description="least length of a password")
    admin_password_length: int = Field(15, ge=15, le=64, description="least length of an administrator's password")
    password_classes: int = Field(
        4, ge=3, le=4, description="how many of lower case, upper case, digits and other characters a password mixes"
    )
    former_passwords: int = Field(5, ge=0, le=24, description="earlier passwords that may not come back")
    password_days: float = Field(0, ge=0, description="age at which a password must be changed; 0: none")
    first_password_days: float = Field(7, gt=0, description="how long a provisional password may wait for its owner")
    lock_failures: int = Field(5, ge=3, le=10, description="failures in a row that lock an account")
    lock_minutes: float = Field(
        30, ge=1, description="how long the first lock lasts; each further failure doubles it, up to a day"
    )
