"""Makes the next version of the KOS of a study from the report that stands and from what the PACS holds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from drimbox.foundation.uids import new_uid
from drimbox.manifest.build import build_manifest
from drimbox.manifest.manifest import Manifest
from drimbox.manifest.read import read_manifest
from drimbox.pacs.keynotes import KeyNote
from drimbox.pacs.study import Study
from drimbox.publication.checks import orders_of
from drimbox.publication.fingerprint import fingerprint
from drimbox.publication.services import Rules
from drimbox.reports.report import Order, Report, Structure


@dataclass(frozen=True, slots=True, repr=False)
class Made:
    """A KOS that was built; ``manifest`` is what its octets say, ``fingerprint`` what its entry would say besides."""

    kos_uid: str
    kos: bytes
    manifest: Manifest
    created: dt.datetime
    orders: tuple[Order, ...]
    fingerprint: str


def compose(
    rules: Rules,
    report: Report,
    study: Study,
    *,
    structure: Structure,
    now: dt.datetime,
    notes: Sequence[KeyNote] = (),
) -> Made:
    """The next version of the KOS of a study. Pure but for its new UIDs; a large study takes a good part of a second.

    ``structure`` is the publishing one, ``notes`` are the key-image notes of the study. Raises ``Refused`` as
    ``build_manifest`` does.
    """
    kos_uid = new_uid(rules.uid_root)
    orders = orders_of(report, study)
    kos = build_manifest(
        report,
        study,
        orders=orders,
        retrieve_base=rules.retrieve_base,
        kos_uid=kos_uid,
        series_uid=new_uid(rules.uid_root),
        created=now,
        manufacturer=rules.manufacturer,
        structure=structure,
        notes=notes,
        zone=rules.zone,
    )
    # Read back even when there is nothing to compare: what we could not read ourselves must not leave.
    return Made(kos_uid, kos, read_manifest(kos), now, orders, fingerprint(report, study, structure))
