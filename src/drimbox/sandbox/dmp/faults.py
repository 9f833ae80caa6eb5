"""Faults on demand: what the next requests meet, so that retry and unknown outcome can be tried."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from enum import StrEnum


class FaultKind(StrEnum):
    """What is done to a request, and whether it takes effect."""

    FAULT = "fault"  # SOAP fault Receiver, HTTP 500; no effect
    BUSY = "busy"  # Failure with XDSRepositoryBusy or XDSRegistryBusy; no effect
    UNAVAILABLE = "unavailable"  # HTTP 503 with Retry-After; no effect
    DROP = "drop"  # the connection is cut before anything is done
    CUT = "cut"  # it takes effect, then the connection is cut within the answer
    TIMEOUT = "timeout"  # it takes effect, and the answer is withheld for `seconds`
    SLOW = "slow"  # it waits for `seconds`, then all goes well
    PARTIAL = "partial"  # it takes effect, and the answer says PartialSuccess


@dataclass(frozen=True, slots=True)
class OrderedFault:
    """``count`` requests to ``service`` (any when empty) meet this fault."""

    kind: FaultKind
    count: int = 1
    service: str = ""
    seconds: float = 2.0


class Faults:
    """The faults that are still to come, first ordered first met."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ordered: list[OrderedFault] = []

    def order(self, fault: OrderedFault) -> None:
        if fault.count > 0:
            with self._lock:
                self._ordered.append(fault)

    def take(self, service: str) -> OrderedFault | None:
        """The fault that a request to this service meets now, if any; it counts as met."""
        with self._lock:
            for place, fault in enumerate(self._ordered):
                if fault.service in ("", service):
                    if fault.count > 1:
                        self._ordered[place] = replace(fault, count=fault.count - 1)
                    else:
                        del self._ordered[place]
                    return fault
        return None

    def pending(self) -> tuple[OrderedFault, ...]:
        with self._lock:
            return tuple(self._ordered)

    def clear(self) -> None:
        with self._lock:
            self._ordered.clear()
