"""One-time codes on their way: each belongs to one browser and one link, and dies by use, by errors or by time.

A ticket is given for every identity that is said, right or wrong: what stands behind it, the visitor cannot tell.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import new_secret
from drimbox.link.address import Link

DIGITS = 8
_TRIES = 3
_MAX_PENDING = 5000


class CodeRefused(Refused):
    """Wrong, too late, of another browser, or of no one: the same words. ``again``: this ticket may be tried again."""

    def __init__(self, *, again: bool) -> None:
        advice = "vérifiez-le et recommencez" if again else "demandez un autre code"
        super().__init__(f"Ce code n'est pas le bon, ou n'est plus valable : {advice}", code="link-code")
        self.again = again


@dataclass(slots=True, repr=False)
class _Pending:
    browser: str
    link: Link
    deadline: float
    # Of a code that nobody was given, until there is one.
    digest: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    tries: int = _TRIES


class Codes:
    """The codes of this process. ``life`` is in seconds."""

    def __init__(self, clock: Clock, life: float) -> None:
        self._clock = clock
        self._life = life
        self._pending: OrderedDict[str, _Pending] = OrderedDict()

    def begin(self, browser: str, link: Link) -> str:
        """A ticket for this browser; no code opens it yet."""
        self._forget()
        ticket = new_secret()
        self._pending[ticket] = _Pending(browser, link, self._clock.monotonic() + self._life)
        while len(self._pending) > _MAX_PENDING:
            self._pending.popitem(last=False)
        return ticket

    def arm(self, ticket: str) -> str:
        """A code that opens the ticket; the former one opens it no more. Empty where the ticket is gone."""
        pending = self._pending.get(ticket)
        if pending is None:
            return ""
        digits = f"{secrets.randbelow(10**DIGITS):0{DIGITS}d}"
        pending.digest = _digest(ticket, digits)
        return digits

    def use(self, ticket: str, browser: str, typed: str) -> Link:
        """The link that the code opens, once. Raises ``CodeRefused``."""
        self._forget()
        pending = self._pending.get(ticket)
        if pending is None or not hmac.compare_digest(pending.browser.encode(), browser.encode()):
            raise CodeRefused(again=False)
        if hmac.compare_digest(pending.digest, _digest(ticket, _normal(typed))):
            del self._pending[ticket]
            return pending.link
        pending.tries -= 1
        if pending.tries <= 0:
            del self._pending[ticket]
        raise CodeRefused(again=pending.tries > 0)

    def _forget(self) -> None:
        """Drop what is too old: the oldest stand first."""
        now = self._clock.monotonic()
        while self._pending and next(iter(self._pending.values())).deadline <= now:
            self._pending.popitem(last=False)


def _normal(typed: str) -> str:
    """As people copy it: in groups, with blanks."""
    return "".join(typed[:64].split())


def _digest(ticket: str, digits: str) -> bytes:
    return hashlib.sha256(f"{ticket}|{digits}".encode("utf-8", "replace")).digest()
