"""The one error tree, grouped by what the caller can do.

::

    DrimboxError
    +-- Refused            what was received cannot be accepted; the same input will be refused again
    |   +-- IdentityMismatch   two sources disagree on who the patient is: stop, tell the operator
    +-- Rejected           a peer understood and said no; repeating the request will not help
    +-- Unavailable        a peer cannot answer now; nothing was done; try again later
    |   +-- Busy               it said so itself (503, busy code); try again after ``retry_after``
    +-- OutcomeUnknown     the request left and no whole answer came back: ask before sending again
    +-- Misconfigured      a setting, key or certificate must be changed by the operator

Every leaf carries a ``reason`` in French that holds no health data (it is shown to the operator and logged), and the
peer's own error code where there is one.
"""

from __future__ import annotations


class DrimboxError(Exception):
    """Base of every error that drimbox raises on purpose.

    ``reason`` is one French sentence without health data; ``code`` a short stable word for machines (``ins-key``,
    ``pacs-unreachable``); ``peer_code`` the peer's own error code, word for word.
    """

    def __init__(self, reason: str, *, code: str = "", peer_code: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code or _kebab(type(self).__name__)
        self.peer_code = peer_code


class Refused(DrimboxError):
    """What was received cannot be accepted, now or later."""


class IdentityMismatch(Refused):
    """Two sources disagree on who the patient is."""


class Rejected(DrimboxError):
    """A peer understood the request and said no for good."""


class Unavailable(DrimboxError):
    """A peer cannot answer now and did nothing; the same request may succeed later."""


class Busy(Unavailable):
    """A peer asked to come back later."""

    def __init__(
        self, reason: str, *, code: str = "", peer_code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(reason, code=code, peer_code=peer_code)
        self.retry_after = retry_after


class OutcomeUnknown(DrimboxError):
    """The request was sent and no whole answer came back: the effect may or may not have happened."""


class Misconfigured(DrimboxError):
    """The operator must change a setting, a key or a certificate."""


def _kebab(name: str) -> str:
    return "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")
