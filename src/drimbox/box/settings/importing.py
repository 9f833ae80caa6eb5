"""Imports into the site's own imaging, the cache of the consumer, portable media and workstations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from drimbox.box.settings.common import AeTitle, KeyPair, Port, Seconds, Section

_JPEG_2000 = "1.2.840.10008.1.2.4.91"


class ImportTargetSection(Section):
    """One PACS that exams may be imported into; the first one is proposed first."""

    pacs: str = Field(description="its id in [[pacs]]")
    title: str = Field("", description="what users call it; none: its id")
    by: Literal["c-store", "stow-rs"] = Field(
        "c-store", description="how images are stored: `c-store`, or `stow-rs` where it has a table [pacs.dicomweb]"
    )
    associations: int = Field(2, ge=1, le=16, description="associations at once for one import (C-STORE)")


class ImportSection(Section):
    """Exams of other sites brought into a PACS of the site, under the local patient number (DB.CO.60 to DB.CO.79)."""

    targets: tuple[ImportTargetSection, ...] = Field((), description="where to; none: nothing can be imported")
    syntaxes: tuple[str, ...] = Field(
        ("1.2.840.10008.1.2.4.70 1.2.840.10008.1.2.4.80 1.2.840.10008.1.2.4.90 1.2.840.10008.1.2.1",),
        description="transfer syntaxes asked for importing: lossless, in a request of its own (decision 24); those "
        "that stand in one text with blanks between are liked alike",
    )
    syntaxes_as_stored: tuple[str, ...] = Field(
        (
            _JPEG_2000,
            "1.2.840.10008.1.2.4.50 1.2.840.10008.1.2.4.51",
            "1.2.840.10008.1.2.4.100 1.2.840.10008.1.2.4.101 1.2.840.10008.1.2.4.102 1.2.840.10008.1.2.4.103",
        ),
        description="asked for once the source has said that it has the images in none of `syntaxes`: videos, and what "
        "was made with loss; none: such images are not imported",
    )
    accession: Literal["kept", "replaced", "call"] = Field(
        "kept",
        description="accession number of imported images: `kept`; `replaced` by none (the former one stays in Original "
        "Attributes); `call`: that of the contextual call, `kept` where it has none",
    )
    uids: Literal["kept", "replaced", "call"] = Field(
        "kept",
        description="UIDs of imported images: `kept`; `replaced` by new ones, always the same for the same object; "
        "`call`: the study takes the StudyInstanceUID of the contextual call where it has one, the rest is replaced",
    )
    parallel: int = Field(2, ge=1, le=16, description="imports at once; those of one study go one after the other")
    whole_series: bool = Field(
        False, description="store nothing of a series before all of it has come and was checked: safer, and slower"
    )
    retry_hours: float = Field(
        24, gt=0, description="hours after which an import that cannot go on is said to be partial"
    )
    history_days: float = Field(7, gt=0, description="days that an import that is over stays on the page of imports")


class ConsumerCacheSection(Section):
    """Images that were fetched, kept for the radiologists of the same site: two of them, or a view and an import."""

    max_gb: float = Field(20, ge=0, description="size of the cache in GB; 0: nothing is kept")
    hours: float = Field(
        0, ge=0, description="hours that an image stays; 0: to the end of the working day (`day_ends`)"
    )
    day_ends: str = Field(
        "20:00", pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description="end of the working day, in Paris time"
    )
    min_free_gb: float = Field(2, ge=0, description="GB that stay free on its disk")
    cache_dir: Path | None = Field(None, description="its folder; none: `consumer-cache` in box.state_dir")
    key_file: Path | None = Field(
        None,
        description="file with a secret of 32 bytes or more, under which the images on the disk are encrypted; none: "
        "the box makes its own, `keys/consumer-cache.key` in box.state_dir",
    )
    prefetch: int = Field(
        0,
        ge=0,
        le=20,
        description="likely priors (same modality and region as the call says, newest first) that are fetched once the "
        "user is in; 0: none. Each is a consultation of the DMP in the user's name",
    )


class WorkstationSection(Section):
    """A workstation that may ask for what users saved."""

    ae_title: AeTitle = Field(description="its AE title")
    host: str = Field(description="its address: associations from elsewhere are refused")
    port: Port = Field(description="port at which it takes images (C-MOVE)")


class WorkstationsSection(Section):
    """The DICOM listener for workstations (C-FIND, C-MOVE) on what users saved (DB.CO.72); closed without this."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(description="port to listen on")
    ae_title: AeTitle = Field(description="our AE title on this listener")
    clients: tuple[WorkstationSection, ...] = Field(min_length=1, description="who may ask, and be moved to")
    keep_hours: float = Field(12, gt=0, description="hours that what a user saved stays")
    max_gb: float = Field(20, gt=0, description="GB that may be saved in all")
    tls: KeyPair | None = Field(None, description="certificate of this listener; none: plain DICOM, protected network")
    idle_timeout: Seconds = Field(60, description="seconds of silence that end an association")


class MediaSection(Section):
    """Exams as a ZIP for portable media (DB.CO.71, IHE PDI)."""

    enabled: bool = Field(True, description="users may download an exam")
    max_gb: float = Field(8, gt=0, description="GB of images in one download at the most")


def check_targets(targets: tuple[ImportTargetSection, ...], pacs: Mapping[str, bool]) -> None:
    """``pacs``: which ids there are, and whether each has DICOMweb. Raises ``ValueError``."""
    seen: set[str] = set()
    for target in targets:
        if target.pacs not in pacs:
            raise ValueError(f"[consumer.imports] nomme un PACS absent de [[pacs]] : {target.pacs}")
        if target.by == "stow-rs" and not pacs[target.pacs]:
            raise ValueError(f"l'import par stow-rs dans {target.pacs} demande sa table [pacs.dicomweb]")
        if target.pacs in seen:
            raise ValueError(f"[consumer.imports] nomme deux fois le PACS {target.pacs}")
        seen.add(target.pacs)
