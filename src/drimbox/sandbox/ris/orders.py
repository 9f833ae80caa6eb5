"""Order messages as a RIS sends them about exams that exist already: OMI^O23, of the form of the official ones."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from drimbox.sandbox.ris.exams import Exam
from drimbox.sandbox.ris.letters import Identity

_PATIENT = Identity()


@dataclass(frozen=True, slots=True)
class OrderLetter:
    """One order message to send: one group ``ORC … {IPC}`` per exam, one IPC per study of it.

    ``control`` is ORC-1: ``CA`` cancels, anything else tells a change. ``identity`` None leaves PID out.
    """

    exams: tuple[Exam, ...]
    control_id: str
    control: str = "XO"
    identity: Identity | None = _PATIENT
    application: str = "RIS-A"
    facility: str = "AMBROISE"
    version: str = "2.5.1"


def omi(letter: OrderLetter, now: dt.datetime) -> bytes:
    """OMI^O23^OMI_O23 of HL7 2.5.1 (official-data.md 4.4)."""
    segments = [
        rf"MSH|^~\&|{letter.application}|{letter.facility}|DRIMBOX|SOURCE|{now:%Y%m%d%H%M%S}||OMI^O23^OMI_O23|"
        f"{letter.control_id}|P|{letter.version}|||||FRA|UNICODE UTF-8"
    ]
    if letter.identity is not None:
        segments += [_pid(letter.identity), "PV1|1|I|UFNEPH"]
    for exam in letter.exams:
        segments += _order(letter.control, exam, now)
    return "".join(segment + "\r" for segment in segments).encode("utf-8")


def _order(control: str, exam: Exam, now: dt.datetime) -> list[str]:
    placer = exam.orders[0][0]
    procedures = [
        f"IPC|{accession}^^{exam.accession_issuer}^ISO|{placer}|{study}^RIS|{study.rpartition('.')[2]}|{exam.act.modality}"
        for study, (_, accession) in zip(exam.studies, exam.orders, strict=True)
    ]
    return [
        f"ORC|{control}|{placer}",
        f"TQ1|||||||{now:%Y%m%d}",
        f"OBR|1|{placer}|{exam.orders[0][1]}|{exam.act.loinc}^{exam.act.loinc_label}^LN",
        "OBX|1|ST|Modification Examen Imagerie||||||||F",
        *procedures,
    ]


def _pid(who: Identity) -> str:
    return (
        f"PID|||{who.ins}^^^ASIP-SANTE-INS-NIR&{who.ins_oid}&ISO^INS^^"
        f"~{who.ipp}^^^AUT-AFFECTATION&{who.ipp_issuer}&ISO^PI||"
        f"{who.family}^{who.given}^{who.given}^^^^L||{who.birth_date}|{who.sex}"
    )
