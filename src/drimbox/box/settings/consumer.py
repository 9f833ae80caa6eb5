"""The consumer function."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from drimbox.box.settings.common import Seconds, TlsServer


class ConsumerSection(TlsServer):
    """The consumer function: contextual call, consultation, viewing."""

    call_paths: tuple[str, ...] = Field(
        ("/drim",), description="paths of the contextual call (POST); several are allowed (DB.CO.48)"
    )
    consent_values: dict[str, Literal["yes", "no", "unknown"]] = Field(
        {
            "yes": "yes",
            "oui": "yes",
            "O": "yes",
            "no": "no",
            "non": "no",
            "INC": "no",
            "NA": "no",
            "unknown": "unknown",
        },
        description="meaning of the values of the consent parameter; a value not listed means no consent (decision 18)",
    )
    session_hours: float = Field(4, gt=0, le=4, description="longest session (PSC: 4 hours)")
    idle_minutes: float = Field(30, gt=0, le=30, description="inactivity that ends a session (PSC: 30 minutes)")
    call_minutes: float = Field(10, gt=0, description="minutes within which a contextual call must be opened")
    viewer_dir: Path | None = Field(
        None, description="folder of the OHIF viewer; none: the one that `drimbox viewer install` made"
    )
    syntaxes_view: tuple[str, ...] = Field(
        (
            "1.2.840.10008.1.2.4.50 1.2.840.10008.1.2.4.51",
            "1.2.840.10008.1.2.4.70 1.2.840.10008.1.2.4.80 1.2.840.10008.1.2.4.91",
            "1.2.840.10008.1.2.4.100 1.2.840.10008.1.2.4.101 1.2.840.10008.1.2.4.102 1.2.840.10008.1.2.4.103",
            "1.2.840.10008.1.2.1",
        ),
        description="transfer syntaxes asked for viewing, best first: lossy first (decision 24); those that stand in "
        "one text with blanks between are liked alike: a source then sends what it has, not what it would have to make",
    )
    fetch_timeout: Seconds = Field(60, description="seconds without a byte from a source before it is held for silent")
    max_series_bytes: int = Field(8 * 2**30, ge=2**20, description="a longer answer of a source is cut off and refused")
