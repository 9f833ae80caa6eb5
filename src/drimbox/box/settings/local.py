"""Studies of the local PACS beside those of other sites."""

from __future__ import annotations

from pydantic import Field

from drimbox.box.settings.common import Section
from drimbox.box.settings.source import DicomListener


class LocalStudiesSection(Section):
    """Studies of the patient in the PACSs of the structure, shown beside those of other sites (DB.VI-CS.35)."""

    enabled: bool = Field(
        True,
        description="are the PACSs of the structure asked (C-FIND by the local number of the call) for the other "
        "studies of the patient, which users may then compare with those of other sites",
    )
    receiver: DicomListener | None = Field(
        None,
        description="where a PACS that has neither DICOMweb nor C-GET stores the images to (C-MOVE); none: it is not "
        "asked that way",
    )
