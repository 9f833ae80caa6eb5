"""When a certificate is renewed, when a failure is tried again, and at which authority. Pure: no clock, no state.

Instants are compared, never counted down: a clock that jumps makes a renewal come at once or wait, and no pause of our
own outlives the longest one.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drimbox.certificates.acme.messages import RenewalWindow

TWO_THIRDS = 2 / 3
# Renewals spread over this part of the life before two thirds of it: sites that began together do not stay together.
SPREAD = 0.03
# Beyond this part of its life, a certificate that was not renewed is told to the operator.
LATE = 0.75
# A window that begins beyond this part of the life would leave no time to try again: it is not believed.
LAST_CHANCE = 0.95

# A refusal takes something of the site or of the authority to change, and authorities count failed validations.
FIRST_PAUSE, FIRST_PAUSE_REFUSED = 60.0, 600.0
# However soon an authority says that a fresh certificate is due again, it is not ordered again within this time.
LEAST_INTERVAL = 3600.0
LONGEST_PAUSE = 6 * 3600.0
LONGEST_IMPOSED = 7 * 86400.0
# Failures in a row after which another authority is asked.
STEP_ASIDE = 3


@dataclass(frozen=True, slots=True)
class Trouble:
    """What an authority met lately: ``failures`` in a row, left alone ``until`` then.

    ``imposed``: the authority itself said until when. ``final``: it refused for good; others are asked at once.
    """

    failures: int
    until: dt.datetime
    imposed: bool = False
    final: bool = False

    def over(self, now: dt.datetime) -> bool:
        """May the authority be asked again? A pause longer than any we make is of another clock."""
        longest = LONGEST_IMPOSED if self.imposed else LONGEST_PAUSE
        return now >= self.until or self.until - now > dt.timedelta(seconds=1.2 * longest)

    @property
    def steps_aside(self) -> bool:
        return self.imposed or self.final or self.failures >= STEP_ASIDE

    def to_json(self) -> dict[str, str | int | bool]:
        return {
            "failures": self.failures,
            "until": self.until.isoformat(),
            "imposed": self.imposed,
            "final": self.final,
        }

    @classmethod
    def of_json(cls, kept: Mapping[str, object]) -> Trouble:
        until = dt.datetime.fromisoformat(str(kept["until"]))
        return cls(int(str(kept["failures"])), until, bool(kept["imposed"]), bool(kept["final"]))


def renewal_time(
    not_before: dt.datetime, not_after: dt.datetime, serial: int, window: RenewalWindow | None = None
) -> dt.datetime:
    """When to renew: within the window that the authority suggests (RFC 9773 4.2), else by two thirds of the life.

    The moment is drawn from the serial number: the same on every node and after every restart, spread over sites.
    """
    life = not_after - not_before
    if window is not None and window.start < not_before + life * LAST_CHANCE:
        drawn = window.start + (window.end - window.start) * _draw(serial, window.start.isoformat())
        return min(drawn, not_before + life * LAST_CHANCE)
    return not_before + life * (TWO_THIRDS - SPREAD * _draw(serial, "life"))


def late_time(not_before: dt.datetime, not_after: dt.datetime) -> dt.datetime:
    """From when the operator is told that a certificate was not renewed."""
    return not_before + (not_after - not_before) * LATE


def pause(failures: int, drawn: float, *, refused: bool = False) -> float:
    """Seconds until the next try after so many failures in a row; ``drawn`` in [0, 1) moves it by a fifth."""
    first = FIRST_PAUSE_REFUSED if refused else FIRST_PAUSE
    return min(first * 2.0 ** min(failures - 1, 20), LONGEST_PAUSE) * (0.8 + 0.4 * drawn)


def authority_for(
    directories: Sequence[str], troubles: Mapping[str, Trouble], now: dt.datetime
) -> tuple[str | None, dt.datetime | None]:
    """Whom to ask now, in the order of preference; nobody, and until when.

    One that failed is given time to come back before the next one is asked; one that asks to wait, that refused for
    good or failed several times steps aside.
    """
    until: dt.datetime | None = None
    for directory in directories:
        trouble = troubles.get(directory)
        if trouble is None or trouble.over(now):
            return directory, None
        until = trouble.until if until is None else min(until, trouble.until)
        if not trouble.steps_aside:
            break
    return None, until


def _draw(serial: int, what: str) -> float:
    digest = hashlib.sha256(f"{serial:x} {what}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
