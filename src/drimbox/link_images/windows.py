"""How the numbers of a frame become grey: its own window, slope and tables (PS3.3 C.7.6.16.2.9, C.11.1, C.11.2).

Read from the header as DICOM JSON; of an enhanced image, from the functional groups of the frame.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_SHARED, _PER_FRAME = "52009229", "52009230"
_VOI_MACRO, _TRANSFORMATION_MACRO = "00289132", "00289145"
_CENTRE, _WIDTH, _FUNCTION = "00281050", "00281051", "00281056"
_INTERCEPT, _SLOPE = "00281052", "00281053"
_MODALITY_TABLES, _VOI_TABLES = "00283000", "00283010"
_DESCRIPTOR, _DATA = "00283002", "00283006"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Table:
    """A lookup table: ``values`` for the inputs from ``first`` on; those outside take its ends."""

    first: int
    top: float
    values: npt.NDArray[np.uint16]

    def of(self, values: npt.NDArray[Any]) -> Floats:
        places = np.clip(np.rint(values).astype(np.int64) - self.first, 0, len(self.values) - 1)
        looked_up: Floats = self.values[places].astype(np.float32)
        return looked_up


@dataclass(frozen=True, slots=True)
class Window:
    """What is done to the stored values of one frame, in this order: rescaled or looked up, then windowed."""

    slope: float = 1.0
    intercept: float = 0.0
    modality: Table | None = None
    centre: float | None = None
    width: float | None = None
    function: str = "LINEAR"
    table: Table | None = None

    def grey(self, stored: Floats) -> npt.NDArray[np.uint8]:
        """From 0 to 255, black for the lowest."""
        values = self.modality.of(stored) if self.modality else stored * self.slope + self.intercept
        if self.centre is not None and self.width is not None:
            shown = _windowed(values, self.centre, self.width, self.function)
        elif self.table is not None:
            shown = self.table.of(values) / self.table.top
        else:
            # No window at all: all values that occur, but for a few that stand out.
            low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
            shown = (values - low) / max(high - low, 1e-6)
        grey: npt.NDArray[np.uint8] = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
        return grey


def window_of(header: Mapping[str, Any], number: int) -> Window:
    """The window of frame ``number`` (from 1)."""
    voi = _group(header, number, _VOI_MACRO)
    rescaled = _group(header, number, _TRANSFORMATION_MACRO)
    width = _number(voi, _WIDTH)
    centre = _number(voi, _CENTRE)
    function = _text(voi, _FUNCTION) or "LINEAR"
    if width is None or width <= 0 or (width < 1 and function == "LINEAR"):
        width = centre = None
    slope = _number(rescaled, _SLOPE)
    return Window(
        slope=1.0 if slope is None else slope,
        intercept=_number(rescaled, _INTERCEPT) or 0.0,
        modality=_table(header, _MODALITY_TABLES),
        centre=centre,
        width=width,
        function=function,
        table=_table(header, _VOI_TABLES),
    )


def _windowed(values: Floats, centre: float, width: float, function: str) -> Floats:
    if function == "SIGMOID":
        shown: Floats = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -60, 60)))
        return shown
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    return (values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5


def _group(header: Mapping[str, Any], number: int, macro: str) -> Mapping[str, Any]:
    """The attributes of a macro for one frame: its own, those that all share, or those of the image."""
    groups = (_items(header, _PER_FRAME)[number - 1 : number], _items(header, _SHARED)[:1])
    for items in groups:
        for item in items:
            if found := _items(item, macro):
                return found[0]
    return header


def _table(header: Mapping[str, Any], tag: str) -> Table | None:
    for item in _items(header, tag)[:1]:
        descriptor = item.get(_DESCRIPTOR, {}).get("Value", [])
        values = _words(item.get(_DATA, {}))
        if len(descriptor) == 3 and values is not None and len(values):
            bits = int(descriptor[2]) if 8 <= int(descriptor[2]) <= 16 else 16
            first = int(descriptor[1])
            return Table(first - 65536 if first > 32767 and _signed(header) else first, float(2**bits - 1), values)
    return None


def _words(element: Mapping[str, Any]) -> npt.NDArray[np.uint16] | None:
    if "InlineBinary" in element:
        data = base64.b64decode(element["InlineBinary"])
        return np.frombuffer(data[: len(data) // 2 * 2], "<u2")
    if "Value" in element:
        return np.array([int(v) & 0xFFFF for v in element["Value"]], np.uint16)
    return None


def _signed(header: Mapping[str, Any]) -> bool:
    return bool(header.get("00280103", {}).get("Value", [0])[0] == 1)


def _items(header: Mapping[str, Any], tag: str) -> list[Mapping[str, Any]]:
    found = header.get(tag, {}).get("Value", [])
    return [item for item in found if isinstance(item, dict)]


def _number(header: Mapping[str, Any], tag: str) -> float | None:
    found = header.get(tag, {}).get("Value", [None])[0]
    return float(found) if isinstance(found, int | float) else None


def _text(header: Mapping[str, Any], tag: str) -> str:
    found = header.get(tag, {}).get("Value", [""])[0]
    return found if isinstance(found, str) else ""
