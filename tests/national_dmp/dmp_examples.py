"""Constants that the tests of the DMP client share: test identities of the official samples."""

from __future__ import annotations

import datetime as dt

from drimbox.foundation.clock import Clock
from drimbox.foundation.http_client import HttpClient
from drimbox.national.dmp.actor import DmpEndpoints, Software
from drimbox.national.dmp.client import DmpClient
from drimbox.national.dmp.metadata import Device, DocumentEntry, kos_entry
from drimbox.pacs.study import Study
from drimbox.reports.report import Coded, Identifier, Order, Person, Report, Structure

STRUCTURE = Structure("1750803447", "Centre de radiologie Ambroise")
RADIOLOGIST = Person(
    "801234560801",
    "BIDEAULT",
    "Jacques",
    Coded("10", "1.2.250.1.71.1.2.7", "Médecin"),
    Coded("SM44", "1.2.250.1.71.4.2.5", "Radiodiagnostic"),
)
STUDY_UID = "1.2.250.1.213.4.5.2.1.105"
DEVICE = Device("31750803447/drimbox-1", "drimbox")
SOURCE_ID = "1.2.250.1.999.1.1.9000"
SOFTWARE = Software("drimbox", "0.1.0", "DRB-000000-tmp1", "drimbox-1")
ORDER = Order(Identifier("OPN105", "1.2.250.1.748.12345678.12"), Identifier("ACN105", "1.2.250.1.925.994044.27"))


KOS_BYTES = b"\0" * 128 + b"DICM" + bytes(range(256)) * 3
KOS_UID = "2.25.9001"


def make_entry(report: Report, study: Study, **other: object) -> DocumentEntry:
    """The entry of ``KOS_BYTES``, with some arguments of ``kos_entry`` changed."""
    arguments: dict[str, object] = {
        "report": report,
        "study": study,
        "orders": (ORDER,),
        "kos_uid": KOS_UID,
        "kos_bytes": KOS_BYTES,
        "created": dt.datetime(2024, 1, 15, 9, 0, 12, tzinfo=dt.UTC),
        "device": DEVICE,
    }
    return kos_entry(**{**arguments, **other})  # type: ignore[arg-type]


def make_client(http: HttpClient, endpoints: DmpEndpoints, clock: Clock, *, timeout: float = 5) -> DmpClient:
    """A client with the settings of the test environment."""
    return DmpClient(
        http,
        endpoints,
        SOFTWARE,
        clock,
        vihf_version="3.0",
        vihf_algorithm="rsa-sha256",
        signature_algorithm="rsa-sha256",
        source_id=SOURCE_ID,
        timeout=timeout,
        test=True,
    )
