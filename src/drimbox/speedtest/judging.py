"""What the figures mean: the official bars, and what stands in the way of more."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from drimbox.dicom.syntaxes import NATIVE
from drimbox.speedtest.measured import Measured

BAR_RATE = 100.0
"""Mbit/s (DB.SO.100)."""
BAR_FIRST = 1.0
"""Seconds to the first image (DB.SO.36, VI-SO.37)."""
# Less than this is over before a rate means anything.
_LITTLE = 2_000_000
_FEW = 8
_SHARE = 0.6
_BUSY = 0.8
# A delayed acknowledgement that Nagle's algorithm waits for: 40 ms on Linux, 200 ms on Windows. From, to, in seconds.
_STALLS = ((0.035, 0.06, "40 ms"), (0.18, 0.26, "200 ms"))
_SLOW_GAP = 0.02


@dataclass(frozen=True, slots=True)
class Stall:
    """Most images waited for the same time, whatever their size; ``like`` names the known wait that it looks like."""

    gap: float
    share: float
    like: str


def stall(measured: Measured) -> Stall | None:
    """Does the PACS wait between the images of its one association, as with Nagle's algorithm?"""
    gaps = measured.gaps
    if len(gaps) < _FEW:
        return None
    for low, high, like in _STALLS:
        within = [gap for gap in gaps if low <= gap <= high]
        if len(within) >= _SHARE * len(gaps):
            return Stall(statistics.median(within), len(within) / len(gaps), like)
    middle = statistics.median(gaps)
    alike = sum(abs(gap - middle) <= 0.15 * middle for gap in gaps) / len(gaps)
    if middle >= _SLOW_GAP and alike >= _SHARE and measured.rate < BAR_RATE:
        return Stall(middle, alike, "")
    return None


def warnings(measured: Measured) -> list[str]:
    """What the site should know, in French."""
    found = []
    if measured.unlike:
        found.append(
            f"Le PACS transcode : {measured.unlike} images sont arrivées dans une syntaxe de transfert autre que celle "
            "qu'il annonce conserver. Autorisez-le à les envoyer comme elles sont stockées."
        )
    elif measured.once_lossy:
        found.append(
            "Le PACS transcode probablement : des images arrivent non compressées alors que leur en-tête indique "
            "une compression avec perte. Autorisez-le à les envoyer comme elles sont stockées."
        )
    if (slow := stall(measured)) is not None:
        found.append(_stalled(slow))
    if measured.rate < BAR_RATE and measured.bytes >= _LITTLE:
        found.append(
            f"Le débit ({french(measured.rate)} Mbit/s) est inférieur aux {BAR_RATE:.0f} Mbit/s demandés (DB.SO.100)."
        )
    if measured.first > BAR_FIRST:
        found.append(f"La première image arrive après plus d'une seconde ({french(measured.first)} s).")
    if measured.busy >= _BUSY:
        found.append(
            "La passerelle elle-même a été occupée presque tout le temps : c'est peut-être elle qui limite le débit."
        )
    return found


def remarks(measured: Measured) -> list[str]:
    """What could not be found out, in French."""
    found = []
    if measured.bytes < _LITTLE:
        found.append(
            "Cet examen est trop petit pour que son débit ait un sens : prenez-en un de quelques dizaines de Mo."
        )
    if not measured.stored and not measured.once_lossy and set(measured.syntaxes) <= NATIVE:
        found.append(
            "Les images arrivent non compressées et le PACS n'annonce pas la syntaxe dans laquelle il les conserve : "
            "un transcodage ne peut être ni constaté ni exclu."
        )
    return found


def _stalled(slow: Stall) -> str:
    share, gap = f"{slow.share * 100:.0f} %", f"{slow.gap * 1000:.0f} ms"
    if slow.like:
        return (
            f"Le PACS marque une pause d'environ {slow.like} avant {share} des images : c'est l'effet de l'algorithme "
            "de Nagle et des acquittements différés. Activez TCP_NODELAY sur le PACS, ou faites-lui ouvrir plusieurs "
            "associations."
        )
    return (
        f"Le PACS envoie les images une à une, à intervalles réguliers ({gap} pour {share} d'entre elles) : un temps "
        "d'attente par image limite le débit, pas le réseau. Plusieurs associations iraient plus vite."
    )


def french(value: float) -> str:
    """A figure with three digits that count, as it is written in French."""
    text = f"{value:,.0f}".replace(",", "\u202f") if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace(".", ",")
