"""What the console's page about the network needs: the whitelist, and the revocation lists that are fetched."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from drimbox.national.whitelist import Held, Renewal
from drimbox.record.audit import Actor
from drimbox.trust.distribution import ListState


@dataclass(frozen=True, slots=True)
class CircleRoom:
    """``renew`` fetches the whitelist now, in somebody's name; ``max_age`` is how long a list is believed."""

    held: Callable[[], Awaitable[Held | None]]
    renew: Callable[[Actor], Awaitable[Renewal]]
    lists: Callable[[], Sequence[ListState]]
    url: str
    max_age: dt.timedelta


_WORDS = (("added ", "ajoutée : "), ("removed ", "retirée : "), ("changed ", "changée : "))


def in_french(change: str) -> str:
    """A line of ``national.whitelist.keeper.differences`` for people."""
    for english, french in _WORDS:
        if change.startswith(english):
            return french + change[len(english) :]
    return change.replace("first list, ", "première liste : ").replace(" DRIMboxes", " DRIMbox")
