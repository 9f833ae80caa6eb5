"""A surface to draw on: filled boxes, lines and text, smooth at their edges; a PNG in the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import imagecodecs
import numpy as np
import numpy.typing as npt

from drimbox.picture import lettering

Colour = tuple[int, int, int]
Point = tuple[float, float]

BLACK: Colour = (30, 34, 40)
GREY: Colour = (120, 128, 138)
PALE: Colour = (226, 230, 235)
WHITE: Colour = (255, 255, 255)
BLUE: Colour = (24, 92, 172)
LIGHT_BLUE: Colour = (150, 186, 226)
GREEN: Colour = (30, 132, 73)
ORANGE: Colour = (202, 111, 30)
RED: Colour = (184, 42, 42)


class Canvas:
    """Coordinates are in pixels, from the upper left corner."""

    def __init__(self, width: int, height: int, background: Colour = WHITE) -> None:
        self.width = width
        self.height = height
        self.pixels: npt.NDArray[np.float32] = np.empty((height, width, 3), np.float32)
        self.pixels[:] = background

    def box(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """A filled box; its edges on whole pixels."""
        left, top = max(round(x), 0), max(round(y), 0)
        self.pixels[top : max(round(y + height), top), left : max(round(x + width), left)] = colour

    def line(self, points: Sequence[Point], colour: Colour, thickness: float = 2.0) -> None:
        """A line through points; one point is a dot."""
        ends = points[1:] or points
        for start, end in zip(points, ends, strict=False):
            self._segment(start, end, colour, thickness)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: Colour = BLACK,
        *,
        size: float = 16.0,
        bold: bool = False,
        align: Literal["left", "middle", "right"] = "left",
    ) -> float:
        """A line of text that stands on ``y``; ``size`` is the height of its capitals. Gives its width."""
        step = size / lettering.HEIGHT
        found, width = lettering.strokes(text)
        left = x - {"left": 0.0, "middle": width * step / 2, "right": width * step}[align]
        thickness = size * (0.19 if bold else 0.125)
        for stroke in found:
            placed = [(left + px * step, y - size + py * step) for px, py in stroke]
            # A dot of a letter is a little larger than its strokes.
            self.line(placed, colour, thickness * (1.35 if len(placed) == 1 else 1.0))
        return width * step

    def png(self) -> bytes:
        """The picture as a file."""
        return bytes(imagecodecs.png_encode(np.clip(self.pixels + 0.5, 0, 255).astype(np.uint8)))

    def save(self, path: Path) -> None:
        """Write it. Raises ``OSError``."""
        path.write_bytes(self.png())

    def _segment(self, start: Point, end: Point, colour: Colour, thickness: float) -> None:
        """Each pixel is covered by how near its middle is to the segment."""
        half = thickness / 2
        reach = half + 1
        left = max(math.floor(min(start[0], end[0]) - reach), 0)
        top = max(math.floor(min(start[1], end[1]) - reach), 0)
        right = min(math.ceil(max(start[0], end[0]) + reach), self.width)
        bottom = min(math.ceil(max(start[1], end[1]) + reach), self.height)
        if left >= right or top >= bottom:
            return
        xs = np.arange(left, right, dtype=np.float32)[None, :] + 0.5 - start[0]
        ys = np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5 - start[1]
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = dx * dx + dy * dy
        along = np.clip((xs * dx + ys * dy) / length, 0, 1) if length else np.zeros((1, 1), np.float32)
        distance = np.hypot(xs - along * dx, ys - along * dy)
        cover = np.clip(half + 0.5 - distance, 0, 1)[:, :, None]
        part = self.pixels[top:bottom, left:right]
        part += cover * (np.asarray(colour, np.float32) - part)


def width_of(text: str, size: float) -> float:
    """How wide a text of this size is, in pixels."""
    return lettering.width_of(text) * size / lettering.HEIGHT
