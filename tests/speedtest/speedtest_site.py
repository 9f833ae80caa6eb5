"""A configuration of a box, a real PACS with a small study, and a PACS that does what a test says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from box_settings import NATIONAL
from drimbox.bench.pixels.images import Batch, Plan
from drimbox.box.config import load
from drimbox.box.settings import Settings
from drimbox.sandbox.pacs.peer import PacsPeer

TEMPLATE = (
    """[box]
name = "a"
state_dir = "state"

[trust]
roots = ["{roots}"]

[database]
dsn_file = "database"

[[structures]]
id = "s"
name = "S"
identifier = "1750803447"
auth = {{ certificate = "{pair}.pem", key = "{pair}.key" }}
sign = {{ certificate = "{pair}.pem", key = "{pair}.key" }}

[[pacs]]
id = "scanner"
host = "127.0.0.1"
port = {pacs_port}
ae_title = "PACS_A"
{more}

[source]
[source.hl7]
port = 2575
[source.dicom]
port = {dicom_port}
ae_title = "DRIMBOX"
[source.wado]
port = 8443
public_url = "https://db.example.test"
tls = {{ certificate = "{pair}.pem", key = "{pair}.key" }}

"""
    + NATIONAL
)
Configure = Callable[..., Path]
PLAN = Plan(reference=12, ct=10, different=4)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def settings_of(file: Path) -> Settings:
    return load(file, {})


@dataclass(frozen=True)
class Held:
    """A default Orthanc with a compressed and an uncompressed study; it moves to ``dicom_port``."""

    peer: PacsPeer
    dicom_port: int
    compressed: Batch
    native: Batch


@dataclass
class Scripted:
    """A PACS of our own making: one study, sent one image after the other as told."""

    batch: Batch
    dicom_port: int
    pause: float = 0.0
    """Seconds before each image."""
    told_syntax: str = ""
    """What it says of the syntax that it holds the images in."""
    lossy: bool = False
    """The headers say that the pixels have been through a lossy compression."""
    fail_after: int | None = None
    port: int = 0
    asked: list[Any] = field(default_factory=list)

    def find(self, event: Any) -> Iterator[tuple[int, Any]]:
        self.asked.append(event.identifier)
        level, key = event.identifier.QueryRetrieveLevel, event.identifier
        if key.get("StudyInstanceUID") not in ("", None, self.batch.study_uid):
            yield 0x0000, None
            return
        if level == "STUDY":
            found = self._answer(level)
            found.StudyInstanceUID, found.PatientID = (
                self.batch.study_uid,
                pydicom.dcmread(self.batch.files[0]).PatientID,
            )
            found.NumberOfStudyRelatedInstances = len(self.batch.files)
            yield 0xFF00, found
        elif level == "SERIES":
            found = self._answer(level)
            found.SeriesInstanceUID, found.Modality = self.batch.series_uid, "CT"
            yield 0xFF00, found
        else:
            for uid in self.batch.instances:
                found = self._answer(level)
                found.SeriesInstanceUID = self.batch.series_uid
                found.SOPInstanceUID, found.SOPClassUID = uid, CTImageStorage
                if self.told_syntax:
                    found.AvailableTransferSyntaxUID = self.told_syntax
                yield 0xFF00, found

    def _answer(self, level: str) -> pydicom.Dataset:
        found = pydicom.Dataset()
        found.QueryRetrieveLevel = level
        found.StudyInstanceUID = self.batch.study_uid
        return found

    def move(self, event: Any) -> Iterator[Any]:
        yield "127.0.0.1", self.dicom_port
        files = self.batch.files
        yield len(files)
        for number, path in enumerate(files):
            if self.fail_after is not None and number >= self.fail_after:
                yield 0xA702, None
                return
            time.sleep(self.pause)
            dataset = pydicom.dcmread(path)
            if self.lossy:
                dataset.LossyImageCompression = "01"
            yield 0xFF00, dataset


@contextmanager
def scripted(pacs: Scripted) -> Iterator[Scripted]:
    """It listens for the time of the block."""
    entity = AE("PACS_A")
    for sop_class in (
        Verification,
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelMove,
    ):
        entity.add_supported_context(sop_class)
    entity.add_requested_context(CTImageStorage, "1.2.840.10008.1.2.1")
    handlers = [(evt.EVT_C_FIND, pacs.find), (evt.EVT_C_MOVE, pacs.move)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    pacs.port = server.server_address[1]
    try:
        yield pacs
    finally:
        server.shutdown()
        for thread in threading.enumerate():
            if thread.name.startswith("AcceptorServer"):
                thread.join(5)
