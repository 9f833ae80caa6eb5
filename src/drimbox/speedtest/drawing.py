"""The measurement as a picture: the figures, the rate while the images came, the waits between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from drimbox.picture import canvas
from drimbox.picture.axes import steps
from drimbox.picture.canvas import Canvas
from drimbox.speedtest import judging, reporting
from drimbox.speedtest.judging import french
from drimbox.speedtest.measured import Measured

_WIDTH, _MARGIN = 1400, 50
_LINE, _CHART = 28, 300
_BINS = 60


def save(path: Path, measured: Measured) -> None:
    """Draw it into a PNG file. Raises ``OSError``."""
    draw(measured).save(path)


def draw(measured: Measured) -> Canvas:
    """The whole picture."""
    rows = reporting.lines(measured)
    told = [(line, canvas.RED) for one in judging.warnings(measured) for line in _wrapped(one)]
    told += [(line, canvas.GREY) for one in judging.remarks(measured) for line in _wrapped(one)]
    top = 110 + _LINE * len(rows) + 22 * len(told) + 30
    page = Canvas(_WIDTH, top + 2 * (_CHART + 90))
    page.text(_MARGIN, 56, f"Mesure du PACS {measured.pacs}", size=24, bold=True)
    y = 104.0
    for what, figure in rows:
        page.text(_MARGIN, y, what, canvas.GREY, size=13)
        page.text(_MARGIN + 520, y, figure, size=13, bold=True)
        y += _LINE
    for line, colour in told:
        page.text(_MARGIN, y + 6, line, colour, size=12)
        y += 22
    _rates(page, measured, top + 30)
    _waits(page, measured, top + _CHART + 120)
    return page


def _rates(page: Canvas, measured: Measured, top: float) -> None:
    """Mbit/s in each piece of the time."""
    end = max(measured.arrivals[-1].at, 1e-3)
    ats = np.array([arrival.at for arrival in measured.arrivals])
    sizes = np.array([arrival.bytes for arrival in measured.arrivals], np.float64)
    bins = max(min(_BINS, len(ats) // 2), 1)
    sums, edges = np.histogram(ats, bins, (0.0, end), weights=sizes)
    rates = sums * 8 / 1e6 / (end / bins)
    page.text(_MARGIN, top, "Débit pendant la réception (Mbit/s, selon le temps en s)", size=14, bold=True)
    frame = _Frame(page, top + 20, end, float(max(rates.max(), judging.BAR_RATE)))
    for rate, edge in zip(rates, edges, strict=False):
        frame.bar(float(edge), end / bins, float(rate), canvas.BLUE)
    frame.mark_level(judging.BAR_RATE, "100 Mbit/s")


def _waits(page: Canvas, measured: Measured, top: float) -> None:
    """How many images came how long after the one before."""
    gaps = np.array(measured.gaps) * 1000
    # The few that are much longer than all others would press the rest together.
    end = float(max(np.percentile(gaps, 99) * 1.1, 60.0 if judging.stall(measured) else 1.0))
    counts, edges = np.histogram(np.clip(gaps, 0, end), _BINS, (0.0, end))
    page.text(_MARGIN, top, "Attente entre deux images (nombre d'images, selon l'attente en ms)", size=14, bold=True)
    frame = _Frame(page, top + 20, end, float(counts.max()))
    for count, edge in zip(counts, edges, strict=False):
        frame.bar(float(edge), end / _BINS, float(count), canvas.BLUE)
    if end > 42:
        frame.mark_place(40.0, "40 ms")


class _Frame:
    """The axes of one chart."""

    def __init__(self, page: Canvas, top: float, most_x: float, most_y: float) -> None:
        self._page = page
        self._left, self._right = _MARGIN + 70.0, _WIDTH - _MARGIN
        self._top, self._bottom = top, top + _CHART
        levels, places = steps(most_y), steps(most_x, 8)
        self._most_x, self._most_y = most_x, levels[-1]
        for level in levels:
            y = self._y(level)
            page.line([(self._left, y), (self._right, y)], canvas.PALE, 1)
            page.text(self._left - 10, y + 5, french(level), canvas.GREY, size=11, align="right")
        for place in places:
            if place <= most_x:
                page.text(self._x(place), self._bottom + 20, french(place), canvas.GREY, size=11, align="middle")

    def bar(self, x: float, width: float, value: float, colour: canvas.Colour) -> None:
        left, right = self._x(x), self._x(x + width)
        self._page.box(left, self._y(value), max(right - left - 2, 1), self._bottom - self._y(value), colour)

    def mark_level(self, value: float, name: str) -> None:
        y = self._y(value)
        self._page.line([(self._left, y), (self._right, y)], canvas.ORANGE, 2)
        self._page.text(self._right, y - 6, name, canvas.ORANGE, size=11, align="right", bold=True)

    def mark_place(self, value: float, name: str) -> None:
        x = self._x(value)
        self._page.line([(x, self._top), (x, self._bottom)], canvas.ORANGE, 2)
        self._page.text(x - 6, self._top + 12, name, canvas.ORANGE, size=11, align="right", bold=True)

    def _x(self, value: float) -> float:
        return self._left + (self._right - self._left) * value / self._most_x

    def _y(self, value: float) -> float:
        return self._bottom - (self._bottom - self._top) * min(value / self._most_y, 1.0)


def _wrapped(text: str) -> list[str]:
    """Lines that fit."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and canvas.width_of(longer, 12) > _WIDTH - 2 * _MARGIN:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
