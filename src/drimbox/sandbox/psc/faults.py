"""What tests may make the provider do wrong, one fault per endpoint at a time.

``POST /sandbox/faults`` takes a JSON object: names of endpoints to names of faults, ``""`` to heal one, and ``seconds``
(30 at most) for ``slow``. ``DELETE`` heals everything, ``GET`` shows what is on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drimbox.foundation.errors import Refused

MAX_SECONDS = 30.0
_REACH = frozenset({"down", "slow"})

#: down: 503; slow: waits before it answers; the others say what is wrong in an answer that looks right.
FAULTS: Mapping[str, frozenset[str]] = {
    "discovery": _REACH,
    "certs": _REACH,
    "authorization": _REACH | {"denied", "wrong-state", "wrong-issuer"},
    "token": _REACH
    | {
        "wrong-signature",
        "unsigned",
        "wrong-nonce",
        "wrong-issuer",
        "wrong-audience",
        "wrong-acr",
        "expired",
        "no-refresh-token",
    },
    "ciba": _REACH,
    "userinfo": _REACH | {"other-subject", "no-practices", "empty"},
    "introspect": _REACH | {"inactive", "other-certificate"},
    "logout": _REACH,
    "revoke": _REACH,
}


class Faults:
    """The faults that are on."""

    def __init__(self) -> None:
        self._on: dict[str, str] = {}
        self._seconds = 5.0

    def of(self, endpoint: str) -> str | None:
        """The fault of an endpoint, None when it is sound."""
        return self._on.get(endpoint)

    @property
    def seconds(self) -> float:
        """How long ``slow`` waits."""
        return self._seconds

    def set(self, wanted: Mapping[str, Any]) -> None:
        """Turn faults on and off. Raises ``Refused`` for a name that is not in the table, changing nothing."""
        seconds = wanted.get("seconds", self._seconds)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_SECONDS:
            raise Refused("seconds : de 0 à 30", code="invalid_request")
        changes = {name: fault for name, fault in wanted.items() if name != "seconds"}
        for endpoint, fault in changes.items():
            if endpoint not in FAULTS or (fault and fault not in FAULTS[endpoint]):
                raise Refused("Défaut inconnu ; GET /sandbox/faults les donne tous", code="invalid_request")
        self._seconds = float(seconds)
        for endpoint, fault in changes.items():
            if fault:
                self._on[endpoint] = fault
            else:
                self._on.pop(endpoint, None)

    def clear(self) -> None:
        """Heal everything."""
        self._on.clear()

    def shown(self) -> dict[str, Any]:
        """What is on, and what could be."""
        return {
            "on": dict(self._on),
            "seconds": self._seconds,
            "possible": {endpoint: sorted(faults) for endpoint, faults in FAULTS.items()},
        }
