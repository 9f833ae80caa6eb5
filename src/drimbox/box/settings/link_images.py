"""What is shown behind the link in a report, and what the patient may take home."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from drimbox.box.settings.common import Section


class LinkImagesSection(Section):
    """The viewer behind the link in a report, and the download for the patient (VI_SO.05, VI_SO.06, VI-SO.37)."""

    download: tuple[Literal["dicom", "jpeg"], ...] = Field(
        (),
        description="what a patient may download of the exam: `dicom` (ZIP with a DICOMDIR), `jpeg` (ZIP of pictures "
        "with a page that shows them); none: nothing",
    )
    download_max_gb: float = Field(8, gt=0, description="a download that grows longer is cut off")
    downloads: int = Field(4, ge=1, le=64, description="downloads made at once; who comes next is asked to wait")
    series_at_once: int = Field(2, ge=1, le=16, description="series of one visit on their way from the PACS at once")
    requests_at_once: int = Field(64, ge=1, le=1000, description="requests for images answered at once, the rest wait")
    visits: int = Field(500, ge=1, description="visits that look at images at once")
    viewer_dir: Path | None = Field(
        None, description="folder of the OHIF viewer; none: the one that `drimbox viewer install` made"
    )
