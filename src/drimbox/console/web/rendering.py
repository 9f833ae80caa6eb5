"""Templates, and how times, durations and texts of peers are shown."""

from __future__ import annotations

import datetime as dt
import unicodedata
from collections.abc import Collection
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from drimbox.console.account import Role
from drimbox.foundation.clock import PARIS

_ROLE_NAMES = {
    Role.OPERATOR: "opérateur",
    Role.ADMINISTRATOR: "administrateur",
    Role.MESSAGES: "lecture des messages",
    Role.AUDITOR: "auditeur",
}


def render(template: str, **context: Any) -> str:
    return _TEMPLATES.get_template(template).render(**context)


def moment(at: dt.datetime | None) -> str:
    """``14/07/2026 à 11:30:12``, in Paris time."""
    return at.astimezone(PARIS).strftime("%d/%m/%Y à %H:%M:%S") if at else ""


def clock(at: dt.datetime | None) -> str:
    return at.astimezone(PARIS).strftime("%H:%M:%S") if at else ""


def lasting(since: dt.datetime, now: dt.datetime) -> str:
    """``3 j 4 h``, ``2 h 05``, ``12 min``, ``moins d'une minute``."""
    minutes = max(0, int((now - since).total_seconds() // 60))
    days, hours = minutes // 1440, minutes // 60
    if days:
        return f"{days} j {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02d}"
    return f"{minutes} min" if minutes else "moins d'une minute"


def plain(text: str) -> str:
    """Text of a peer, without characters that are not seen or that turn the writing direction."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "\ufffd" for c in text)


def octets(size: int) -> str:
    """``812 octets``, ``12,4 Kio``, ``3,1 Mio``."""
    for unit, scale in (("Mio", 2**20), ("Kio", 2**10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}".replace(".", ",")
    return f"{size} octets"


def role_names(roles: Collection[Role]) -> str:
    return ", ".join(_ROLE_NAMES[role] for role in Role if role in roles)


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("drimbox.console", "pages"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "moment": moment,
        "clock": clock,
        "lasting": lasting,
        "plain": plain,
        "octets": octets,
        "role_names": role_names,
    }
    return environment


_TEMPLATES = _templates()
