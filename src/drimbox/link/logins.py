"""Logins on their way at a provider: what was sent is kept under the ``state``, and bound to one browser and one link.

Each provider has its own: the answer of one is never taken for the other's (RFC 9700 4.4).
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from dataclasses import dataclass

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import new_secret
from drimbox.link.address import Link

_LOGIN_SECONDS = 600
_MAX_PENDING = 2000


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """One way out, and what must come back."""

    browser: str
    link: Link
    nonce: str
    verifier: str
    deadline: float


class Logins:
    """The logins of this process at one provider."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pending: OrderedDict[str, Login] = OrderedDict()

    def made(self, browser: str, link: Link) -> tuple[str, Login]:
        """A fresh login and its state; ``expect`` it once the browser is on its way."""
        deadline = self._clock.monotonic() + _LOGIN_SECONDS
        return new_secret(), Login(browser, link, new_secret(), new_secret(), deadline)

    def expect(self, state: str, login: Login) -> None:
        self._pending[state] = login
        while len(self._pending) > _MAX_PENDING:
            self._pending.popitem(last=False)

    def take(self, state: str, browser: str) -> Login:
        """The login that this browser waits for, once. Raises ``Refused`` (``link-state``) for any other."""
        login = self._pending.get(state)
        if login is None or not hmac.compare_digest(login.browser.encode(), browser.encode()):
            # Another browser's login stays that browser's.
            raise _unexpected()
        del self._pending[state]
        if login.deadline <= self._clock.monotonic():
            raise _unexpected()
        return login


def _unexpected() -> Refused:
    return Refused("Cette connexion n'a pas été demandée par ce navigateur, ou a expiré", code="link-state")
