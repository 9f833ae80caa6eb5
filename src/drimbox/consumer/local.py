"""Studies of the local PACS beside those of other sites: found by the local number of the call, then compared.

The local number says which studies are asked for; the traits say whether they are of this patient (INS/va1.36). An
image that carries an INS must carry the call's (DB.CO.68).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drimbox.consumer.call import ContextualCall
from drimbox.consumer.exams import Document
from drimbox.consumer.identity_check import Difference, compared_image
from drimbox.consumer.image_identity import ImageIdentity
from drimbox.consumer.ports import LocalArchive, ReceivedImage
from drimbox.consumer.vocabulary import MODALITIES
from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.identity.ins import Authority, Ins
from drimbox.identity.traits import parse_date
from drimbox.manifest.manifest import Manifest, ManifestSeries
from drimbox.pacs.patient import HeldStudy
from drimbox.pacs.study import Series, Study

_OTHER_IDS, _PATIENT_ID, _ISSUER = "00101002", "00100020", "00100021"
_QUALIFIERS, _UNIVERSAL_ID = "00100024", "00400032"
_NAMESPACES = frozenset(authority.namespace for authority in Authority)


@dataclass(frozen=True, slots=True)
class LocalExam:
    """One study of a PACS of the site, as a line of its own; ``differences``: traits that are not the call's."""

    archive: LocalArchive
    held: HeldStudy
    differences: tuple[Difference, ...] = ()

    @property
    def key(self) -> str:
        """Names it in addresses, and says nothing of it."""
        told = f"{self.archive.id}|{self.held.study.study_uid}"
        return f"local{hashlib.sha256(told.encode()).hexdigest()[:15]}"

    @property
    def study_uid(self) -> str:
        return self.held.study.study_uid

    @property
    def images(self) -> Document | None:
        """There is no document in the DMP behind it."""
        return None

    @property
    def reports(self) -> tuple[Document, ...]:
        return ()

    @property
    def day(self) -> dt.date | None:
        try:
            return parse_date(self.held.study.study_date)
        except Refused:
            return None

    @property
    def title(self) -> str:
        words = ", ".join(MODALITIES[code] for code in self.held.modalities if code in MODALITIES)
        return self.held.study.description or words or "Examen d'imagerie"

    @property
    def site(self) -> str:
        return f"PACS local ({self.archive.id})"


def is_of(call: ContextualCall, study: Study) -> bool:
    """Is it under the local number of the call? Two issuers that are both known must agree: numbers repeat."""
    ours, theirs = call.local_id.issuer, study.patient_id_issuer
    return study.patient_id == call.local_id.value.strip() and (not ours or not theirs or ours == theirs)


def differences_of(call: ContextualCall, study: Study, used_names: Collection[str]) -> tuple[Difference, ...]:
    """The traits of a study of the PACS that are not the call's."""
    return compared_image(
        call.traits, name=study.patient_name, birth_date=study.birth_date, sex=study.sex, used_names=used_names
    )


def manifest_of(call: ContextualCall, study: Study) -> Manifest:
    """What there is to show of it, in the form that a KOS gives."""
    return Manifest(
        kos_uid="",
        study_uid=study.study_uid,
        study_date=study.study_date,
        description=study.description,
        ins=call.ins,
        patient_name=study.patient_name,
        birth_date=study.birth_date,
        sex=study.sex,
        birth_place="",
        requests=(),
        series=tuple(_series(each) for each in study.series),
        study_time=study.study_time,
        study_id=study.study_id,
    )


def _series(each: Series) -> ManifestSeries:
    return ManifestSeries(each.series_uid, "", each.modality, each.number, each.description, each.instances)


def fetching(
    archive: LocalArchive, study: Study
) -> Callable[[ManifestSeries, Path], AbstractAsyncContextManager[AsyncIterator[ReceivedImage]]]:
    """How the series of this study are had."""
    return lambda series, folder: archive.fetch_series(study, series.series_uid, folder)


def inspecting(ins: Ins, identity: ImageIdentity) -> Callable[[bytes], None]:
    """Lets an image pass by its header. Raises ``IdentityMismatch`` (``ins-differs``), and as ``ImageIdentity.check``.

    Few images of a PACS carry an INS; those that do must carry the patient's.
    """

    def check(described: bytes) -> None:
        try:
            told = list(_matricules(json.loads(described)))
        except (ValueError, AttributeError, LookupError, TypeError):
            raise Refused("Image reçue illisible", code="dicom-file") from None
        if told and ins.matricule not in told:
            raise IdentityMismatch("L'INS de l'image n'est pas celle du patient", code="ins-differs")
        identity.check(described)

    return check


def _matricules(header: dict[str, Any]) -> Collection[str]:
    found = []
    for item in header.get(_OTHER_IDS, {}).get("Value") or ():
        systems = [_text(one, _UNIVERSAL_ID) for one in item.get(_QUALIFIERS, {}).get("Value") or ()]
        if _text(item, _ISSUER) in _NAMESPACES or any(Authority.of(system) is not None for system in systems):
            found.append(_text(item, _PATIENT_ID))
    return found


def _text(item: dict[str, Any], tag: str) -> str:
    values = item.get(tag, {}).get("Value") or [""]
    return str(values[0] or "")
