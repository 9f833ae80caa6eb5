"""The consumer function."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from drimbox.box.settings.common import IssuerCx4, Seconds, TlsServer
from drimbox.box.settings.importing import ConsumerCacheSection, ImportSection, MediaSection, WorkstationsSection
from drimbox.box.settings.listing import AccessSection, IdentitySection, ListSection
from drimbox.box.settings.local import LocalStudiesSection


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
    ipp_issuers: dict[str, IssuerCx4] = Field(
        {},
        description="whole issuer of the IPP (CX-4: `name&OID&ISO`) for each text that callers send as "
        "PatientIDIssuer: the text whole, or the OID or the name in it; an issuer not listed stays as sent",
    )
    practice_days: int = Field(
        400,
        ge=0,
        description="days without a visit after which the practice that a professional chose is forgotten; "
        "0: it is asked at each login",
    )
    session_hours: float = Field(4, gt=0, le=4, description="longest session (PSC: 4 hours)")
    idle_minutes: float = Field(30, gt=0, le=30, description="inactivity that ends a session (PSC: 30 minutes)")
    call_minutes: float = Field(10, gt=0, description="minutes within which a contextual call must be opened")
    viewer_dir: Path | None = Field(
        None, description="folder of the OHIF viewer; none: the one that `drimbox viewer install` made"
    )
    viewer_ahead: bool = Field(
        True,
        description="start the viewer behind the list of exams, in the tab that is looked at, so that the exam that is "
        "opened is on the screen sooner; it takes some hundred megabytes of the workstation's memory",
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
    exams: ListSection = ListSection()
    access: AccessSection = AccessSection()
    identity: IdentitySection = IdentitySection()
    imports: ImportSection = ImportSection()
    cache: ConsumerCacheSection = ConsumerCacheSection()
    media: MediaSection = MediaSection()
    workstations: WorkstationsSection | None = None
    local: LocalStudiesSection = LocalStudiesSection()
    max_series_bytes: int = Field(8 * 2**30, ge=2**20, description="a longer answer of a source is cut off and refused")
    min_free_bytes: int = Field(
        2**30, ge=0, description="images stop coming when less than this would stay free on the disk of `state_dir`"
    )
    weasis: bool = Field(
        False, description="offer to open the images in Weasis, where it is installed on the workstations"
    )
