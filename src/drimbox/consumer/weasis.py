"""Images opened in Weasis, a viewer installed on the workstation: what it is given, and for how long.

The address that starts it is good for one use within two minutes; what it gets for it is a manifest of the images and
a key, told in a header and never in an address, that ends with the session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import quote

from drimbox.consumer.viewing import ExamImages
from drimbox.consumer.views import View
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Busy
from drimbox.foundation.uids import new_secret
from drimbox.foundation.xml import Builder, Element, to_bytes

_Owner = TypeVar("_Owner")
_TICKET_SECONDS = 120.0
_MAX_GRANTS = 2000
_build = Builder({"": "http://www.weasis.org/xsd/2.5"}, "")


@dataclass(slots=True)
class _Grant(Generic[_Owner]):
    owner: _Owner
    deadline: float | None


@dataclass(slots=True)
class WeasisDoor(Generic[_Owner]):
    """Who may fetch what with which key. ``_Owner`` stands behind a key; the caller knows whether it still lasts."""

    clock: Clock
    _grants: dict[str, _Grant[_Owner]] = field(default_factory=dict)

    def ticket(self, owner: _Owner, alive: Callable[[_Owner], bool]) -> str:
        """A ticket for one use. Raises ``Busy`` when too many are out."""
        now = self.clock.monotonic()
        self._grants = {
            name: grant
            for name, grant in self._grants.items()
            if alive(grant.owner) and (grant.deadline is None or grant.deadline > now)
        }
        if len(self._grants) >= _MAX_GRANTS:
            raise Busy("Trop d'ouvertures dans Weasis", code="weasis")
        name = new_secret()
        self._grants[name] = _Grant(owner, now + _TICKET_SECONDS)
        return name

    def redeem(self, ticket: str) -> tuple[_Owner, str] | None:
        """The owner and the key that the ticket stands for, once; None for one that was used, is late or unknown."""
        grant = self._grants.get(ticket)
        if grant is None or grant.deadline is None:
            return None
        del self._grants[ticket]
        if grant.deadline <= self.clock.monotonic():
            return None
        key = new_secret()
        self._grants[key] = _Grant(grant.owner, None)
        return grant.owner, key

    def owner(self, key: str) -> _Owner | None:
        """Who stands behind a key; None for a ticket, or a key that was never given."""
        grant = self._grants.get(key)
        return grant.owner if grant is not None and grant.deadline is None else None


def launch_address(manifest_url: str) -> str:
    """The address that the workstation hands to Weasis."""
    command = f'$dicom:get -w "{manifest_url}"'
    return f"weasis://{quote(command, safe='')}"


def manifest_of(view: View, base_url: str, key: str) -> bytes:
    """The images of a viewer as Weasis reads them: it asks for each at ``base_url`` (WADO-URI, PS3.18 9)."""
    patients = [_patient(exam.images) for exam in view.exams]
    query = _build(
        "arcQuery",
        _build("httpTag", key="Authorization", value=f"Bearer {key}"),
        *patients,
        arcId="drimbox",
        baseUrl=base_url,
        requireOnlySOPInstanceUID="false",
        additionnalParameters="",
    )
    return to_bytes(_build("manifest", query))


def _patient(images: ExamImages) -> Element:
    manifest = images.manifest
    series = [
        _build(
            "Series",
            *(
                _build("Instance", SOPInstanceUID=one.sop_instance_uid, **_numbered("InstanceNumber", one.number))
                for one in each.instances
            ),
            SeriesInstanceUID=each.series_uid,
            Modality=each.modality,
            SeriesDescription=each.description,
            **_numbered("SeriesNumber", each.number),
        )
        for each in manifest.series
    ]
    study = _build(
        "Study",
        *series,
        StudyInstanceUID=manifest.study_uid,
        StudyDescription=manifest.description,
        StudyDate=manifest.study_date,
    )
    return _build(
        "Patient",
        study,
        PatientID=_patient_id(images),
        PatientName=manifest.patient_name,
        PatientBirthDate=manifest.birth_date,
        PatientSex=manifest.sex,
    )


def _patient_id(images: ExamImages) -> str:
    """As the images that Weasis gets have it; it puts those of one number together."""
    if images.local is not None:
        return images.local.patient_id
    return images.manifest.ins.matricule if images.manifest.ins is not None else ""


def _numbered(name: str, number: int | None) -> dict[str, str]:
    return {} if number is None else {name: str(number)}
