"""Where a sandbox PACS is, for whoever wants to use it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Destination:
    """A DICOM node that the PACS knows: may ask it, and is stored to by C-MOVE."""

    ae_title: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class PacsPeer:
    """A running sandbox PACS. The REST fields are empty where it has no REST interface (the embedded one)."""

    ae_title: str
    host: str
    port: int
    rest_url: str = ""
    rest_user: str = ""
    rest_password: str = field(default="", repr=False)

    @property
    def dicomweb_url(self) -> str:
        return f"{self.rest_url}/dicom-web" if self.rest_url else ""
