"""Submission sets and archives, made and signed as the box makes them."""

from __future__ import annotations

import datetime as dt
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

for _room in ("publication", "portability", "images"):
    sys.path.append(str(Path(__file__).parents[2] / _room))

from portability_examples import EMITTER, Maker  # noqa: E402
from publication_examples import study_of  # noqa: E402

from drimbox.portability.compose import set_files  # noqa: E402
from drimbox.portability.volume import volume_files  # noqa: E402
from drimbox.reports.report import Visibility  # noqa: E402
from drimbox.sandbox.pki import Profile, TestAuthority  # noqa: E402
from drimbox.trust.keystore import load_credential  # noqa: E402
from fuzz.grammars.zips import pack  # noqa: E402

NOW = dt.datetime(2024, 1, 15, 9, 30, 12, tzinfo=dt.UTC)


@cache
def _maker() -> Maker:
    with tempfile.TemporaryDirectory(prefix="drimbox-fuzz-") as folder:
        pair = TestAuthority(Path(folder)).issue(
            Profile.ORG_SIGN, "fuzz", common_name="DRIMbox", unit="1750803447", organisation="CENTRE DE RADIOLOGIE"
        )
        return Maker(load_credential(pair.certificate, pair.key))


def _row(number: int, state: str, **changes: object) -> dict[str, object]:
    """A version as the archive gives it to the export."""
    maker = _maker()
    report = replace(maker.report(), **changes)  # type: ignore[arg-type]
    version = maker.version(report, study_of(105, 2), NOW + dt.timedelta(days=number), report_id=1, replaces=None)
    return {
        "id": number,
        "metadata": version.submission.metadata,
        "signature": version.submission.signature,
        "vihf_identity": version.submission.identity,
        "kos_uid": version.kos_uid,
        "kos": version.kos,
        "document_ids": list(version.document_ids),
        "standing": list(version.document_ids) if state == "current" else None,
        "pacs": version.pacs,
        "prepared_at": NOW,
        "sent_at": NOW,
        "confirmed_at": NOW,
        "ended_at": NOW if state == "depublished" else None,
        "fingerprint": version.fingerprint,
        "replaced_kos": None,
        "visibility": asdict(version.visibility),
        "entry_uuid": "urn:uuid:2e82c1f6-a085-4c72-9da3-8640a32e42ab",
        "state": state,
        "ins": version.ins.matricule,
        "ins_oid": version.ins.oid,
    }


@cache
def _sets() -> tuple[dict[str, bytes], ...]:
    rows = (_row(1, "current"), _row(2, "depublished", visibility=Visibility(masked_to_professionals=True)))
    return tuple(dict(set_files([row], f"SS00000{n}")) for n, row in enumerate(rows, 1))


def metadata_files() -> Iterator[bytes]:
    """METADATA.XML of two sets."""
    for files in _sets():
        yield files["METADATA.XML"]


def archives() -> Iterator[bytes]:
    """Zips of one volume: one set, two sets."""
    for count in (1, 2):
        found = {f"KA202401/{name}": content for name, content in volume_files(EMITTER, "KA202401", count).items()}
        for number, files in enumerate(_sets()[:count], 1):
            found |= {f"KA202401/IHE_XDM/SS00000{number}/{name}": content for name, content in files.items()}
        yield pack(found)
