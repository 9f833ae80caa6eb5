"""What tests and outside clients may order: the state of a DMP, an authorisation, documents that others published."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from drimbox.sandbox.dmp.bench import Authorisation, KnownPatient, RecordStatus
from drimbox.sandbox.dmp.preload import Published

if TYPE_CHECKING:
    from drimbox.sandbox.dmp.service import Dmp

MAX_ORDERS_BYTES = 16 * 2**20
_TIMES = ("created", "started", "stopped")
_CODES = ("author", "structure", "class_code", "type_code", "format_code", "facility", "practice")
_LISTS = ("references", "masks", "patient_info")


def order_patient(dmp: Dmp, told: Mapping[str, Any]) -> object:
    """``{"ins", "oid", "family", "given", "birth_date", "sex", "status", "closed_on", "closing"}``; returns its CX.

    Raises ``KeyError``, ``ValueError`` or ``TypeError`` for anything else.
    """
    patient = KnownPatient(
        **{
            **told,
            "status": RecordStatus(told.get("status", RecordStatus.ACTIVE)),
            "closing": tuple(told.get("closing", ("", ""))),
        }
    )
    dmp.set_patient(patient)
    return {"patient": patient.cx}


def order_authorisation(dmp: Dmp, told: Mapping[str, Any]) -> object:
    """``{"patient": CX, "professional": PS_IdNat, "state": "VALIDE" | "INEXISTANTE" | "EXPIREE" | "INTERDIT"}``."""
    dmp.set_authorisation(str(told["patient"]), str(told["professional"]), Authorisation(told["state"]))
    return {}


def order_documents(dmp: Dmp, told: Any) -> object:
    """A list of documents with the fields of ``Published``: times in ISO 8601, ``content`` in base64."""
    return {"entries": [dmp.preload(_published(one)) for one in told]}


def _published(told: Mapping[str, Any]) -> Published:
    values: dict[str, Any] = dict(told)
    values["content"] = base64.b64decode(values["content"], validate=True)
    values |= {name: dt.datetime.fromisoformat(values[name]) for name in _TIMES}
    values |= {name: tuple(values[name]) for name in (*_CODES, *_LISTS) if name in values}
    if "events" in values:
        values["events"] = tuple(tuple(event) for event in values["events"])
    return Published(**values)
