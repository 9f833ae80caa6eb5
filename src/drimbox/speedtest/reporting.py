"""The figures as a person reads them, in French."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path

from pydicom.uid import UID

from drimbox.speedtest import judging
from drimbox.speedtest.judging import french
from drimbox.speedtest.measured import Measured
from drimbox.speedtest.measuring import Progress

_WAYS = {"move": "C-MOVE", "get": "C-GET", "dicomweb": "DICOMweb"}
_SYNTAXES = {
    "1.2.840.10008.1.2": "Implicit VR LE",
    "1.2.840.10008.1.2.1": "Explicit VR LE",
    "1.2.840.10008.1.2.1.99": "Deflated LE",
    "1.2.840.10008.1.2.2": "Explicit VR BE",
    "1.2.840.10008.1.2.4.50": "JPEG baseline",
    "1.2.840.10008.1.2.4.51": "JPEG extended",
    "1.2.840.10008.1.2.4.57": "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless SV1",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "HTJ2K lossless",
    "1.2.840.10008.1.2.4.202": "HTJ2K lossless RPCL",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
    "1.2.840.10008.1.2.5": "RLE",
}


def lines(measured: Measured) -> list[tuple[str, str]]:
    """What was measured, and the figure."""
    gaps = measured.gaps
    return [
        ("Ouverture d'une association (médiane)", _seconds(statistics.median(measured.associations))),
        ("Réponse à un C-ECHO (médiane)", _seconds(statistics.median(measured.echoes))),
        ("Liste des images de l'examen", _seconds(measured.finding)),
        ("Première image", f"{_seconds(measured.first)} ({_verdict(measured.first <= judging.BAR_FIRST)} : 1 s)"),
        (
            "Débit",
            f"{french(measured.rate)} Mbit/s ({_verdict(measured.rate >= judging.BAR_RATE)} : 100 Mbit/s), "
            f"{french(len(measured.arrivals) / measured.arrivals[-1].at)} images/s",
        ),
        (
            "Images reçues",
            f"{len(measured.arrivals)} sur {measured.expected}, en {measured.series} série(s), "
            f"{french(measured.bytes / 1e6)} Mo, en {_seconds(measured.arrivals[-1].at)}",
        ),
        ("Entre deux images (médiane, la plus longue)", f"{_seconds(statistics.median(gaps))}, {_seconds(max(gaps))}"),
        ("Syntaxe reçue", _counted(measured.syntaxes)),
        ("Syntaxe annoncée par le PACS", _counted(measured.stored) or "non annoncée"),
        ("Chemin", _WAYS.get(measured.way, "selon la configuration")),
    ]


def text(measured: Measured) -> str:
    """The whole report."""
    rows = lines(measured)
    width = max(len(what) for what, _ in rows)
    parts = [f"PACS {measured.pacs}", "", *(f"  {what:<{width}}  {figure}" for what, figure in rows), ""]
    parts += [f"ATTENTION : {one}" for one in judging.warnings(measured)]
    parts += [f"Remarque : {one}" for one in judging.remarks(measured)]
    return "\n".join(parts).rstrip()


def progress(now: Progress) -> str:
    """One line on how far it is."""
    if not now.expected:
        return f"{now.step}…"
    rate = f", {french(now.bytes * 8 / 1e6 / now.seconds)} Mbit/s" if now.seconds > 0 and now.bytes else ""
    return f"{now.step} : {now.landed}/{now.expected}, {french(now.bytes / 1e6)} Mo{rate}"


def write(path: Path, measured: Measured) -> None:
    """Every value, for programs: no identifier of a study or of a patient. Raises ``OSError``."""
    content = {
        "pacs": measured.pacs,
        "way": measured.way,
        "images": len(measured.arrivals),
        "bytes": measured.bytes,
        "association_seconds": list(measured.associations),
        "echo_seconds": list(measured.echoes),
        "find_seconds": measured.finding,
        "first_image_seconds": measured.first,
        "mbit_per_second": measured.rate,
        "syntaxes": dict(measured.syntaxes),
        "stored_syntaxes": dict(measured.stored),
        "arrivals": [(arrival.at, arrival.bytes) for arrival in measured.arrivals],
        "warnings": judging.warnings(measured),
        "remarks": judging.remarks(measured),
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), "utf-8")


def _seconds(value: float) -> str:
    return f"{french(value)} s" if value >= 1 else f"{french(value * 1000)} ms"


def _verdict(reached: bool) -> str:
    return "atteint l'objectif" if reached else "n'atteint pas l'objectif"


def _counted(syntaxes: Mapping[str, int]) -> str:
    return ", ".join(f"{_SYNTAXES.get(uid, UID(uid).name)} ({count})" for uid, count in syntaxes.items())
