"""What a measurement found: times, sizes, syntaxes. No image, no name, no identifier of a patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Arrival:
    """One image: seconds from the request until it was whole on our disk, its size, the syntax it came in."""

    at: float
    bytes: int
    syntax: str


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement of one PACS; times are in seconds.

    ``way`` is how the images came (``move``, ``get``, ``dicomweb``); ``associations`` and ``echoes`` are times to open
    an association and to be answered a C-ECHO in it; ``finding`` is the time to list the study; ``stored`` counts the
    syntaxes that the PACS says it holds the images in (empty: it says nothing), ``unlike`` the images that came in
    none of those told for them; ``once_lossy`` tells that images came uncompressed whose header says that they have
    been through a lossy compression; ``busy`` is the share of a core that this process took.
    """

    pacs: str
    way: str
    series: int
    expected: int
    associations: tuple[float, ...]
    echoes: tuple[float, ...]
    finding: float
    arrivals: tuple[Arrival, ...]
    seconds: float
    stored: Mapping[str, int]
    unlike: int
    once_lossy: bool
    busy: float

    @property
    def bytes(self) -> int:
        return sum(arrival.bytes for arrival in self.arrivals)

    @property
    def first(self) -> float:
        """Latency of the first image."""
        return self.arrivals[0].at

    @property
    def rate(self) -> float:
        """Mbit/s, from the request to the last image."""
        return self.bytes * 8 / 1e6 / max(self.arrivals[-1].at, 1e-6)

    @property
    def syntaxes(self) -> Mapping[str, int]:
        """How many images came in each syntax."""
        return dict(Counter(arrival.syntax for arrival in self.arrivals).most_common())

    @property
    def gaps(self) -> tuple[float, ...]:
        """Seconds between one image and the next."""
        return tuple(b.at - a.at for a, b in zip(self.arrivals, self.arrivals[1:], strict=False))


def encoded(measured: Measured) -> dict[str, Any]:
    """For JSON."""
    plain = asdict(measured)
    plain["arrivals"] = [(arrival.at, arrival.bytes, arrival.syntax) for arrival in measured.arrivals]
    return plain


def decoded(plain: Mapping[str, Any]) -> Measured:
    """What ``encoded`` wrote. Raises ``KeyError``, ``TypeError``, ``ValueError`` for anything else."""
    values = dict(plain)
    values["arrivals"] = tuple(Arrival(float(at), int(size), str(syntax)) for at, size, syntax in plain["arrivals"])
    values["associations"] = tuple(map(float, plain["associations"]))
    values["echoes"] = tuple(map(float, plain["echoes"]))
    return Measured(**values)
