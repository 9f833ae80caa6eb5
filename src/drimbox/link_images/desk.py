"""What every address behind the door works with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from jinja2 import Environment
from starlette.requests import Request

from drimbox.consumer.pictures import Pictures
from drimbox.consumer.viewer_files import ViewerFiles
from drimbox.foundation.clock import Clock
from drimbox.images.renditions import Renderer
from drimbox.link.visit import Visit, Visitor
from drimbox.link_images.ports import Transcoder
from drimbox.link_images.standing import Register
from drimbox.link_images.traces import Traces
from drimbox.link_images.visits import OpenVisits

#: Where the visits are mounted: ``/visite/{key}/…``. OHIF's settings know it too (``ohif.js``).
PREFIX = "/visite"


class Form(StrEnum):
    """A form in which the patient may take the exam home."""

    DICOM = "dicom"
    JPEG = "jpeg"


@dataclass(frozen=True, slots=True)
class Desk:
    """``forms`` are the downloads that are offered to the patient; ``downloads`` bounds how many are made at once.

    ``leaving`` is the address, below that of the visit, of the page that ends it; empty for none.
    """

    box_name: str
    register: Register
    visits: OpenVisits
    traces: Traces
    renderer: Renderer
    transcoder: Transcoder
    pictures: Pictures
    scratch: Path
    viewer: ViewerFiles
    pages: Environment
    clock: Clock
    slots: asyncio.Semaphore
    downloads: asyncio.Semaphore
    max_download: int
    forms: tuple[Form, ...] = ()
    leaving: str = ""

    def offered(self, visit: Visit) -> tuple[Form, ...]:
        """What this visitor may take home: the patient their own exam, where the site offers it."""
        return self.forms if visit.who.visitor is Visitor.PATIENT else ()


def base_of(visit: Visit) -> str:
    """The address of a visit."""
    return f"{PREFIX}/{visit.key}"


def address_of(request: Request) -> str:
    """Where the request comes from, for the journal."""
    return request.client.host if request.client else ""
