"""The table as a picture: for each row our bar above those of the peers, with marks where the goals are."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from drimbox.bench.pixels.comparison import Comparison, spread
from drimbox.bench.pixels.report import figure
from drimbox.picture import canvas
from drimbox.picture.axes import readable
from drimbox.picture.canvas import Canvas

_WIDTH, _MARGIN = 1500, 40
_LEFT, _BARS = 700, 560
_BAR, _GAP, _TITLE = 17, 5, 26
_COLOURS = {"aim": canvas.GREEN, "floor": canvas.BLUE, "below floor": canvas.RED, "": canvas.BLUE}


def draw(rows: Sequence[Comparison], machine: str) -> Canvas:
    """The whole table."""
    height = 150 + sum(_height(row) for row in rows)
    page = Canvas(_WIDTH, height)
    page.text(_MARGIN, 46, "drimbox bench pixels", size=24, bold=True)
    page.text(_MARGIN, 74, machine, canvas.GREY, size=11)
    _legend(page, 102)
    top = 128.0
    for row in rows:
        _row(page, row, top)
        top += _height(row)
    return page


def save(path: Path, rows: Sequence[Comparison], machine: str) -> None:
    """Draw it into a PNG file. Raises ``OSError``."""
    draw(rows, machine).save(path)


def _height(row: Comparison) -> int:
    return max(_TITLE + (1 + len(row.peers)) * (_BAR + _GAP) + 16, 74)


def _legend(page: Canvas, y: float) -> None:
    at = float(_MARGIN)
    for colour, what in (
        (canvas.GREEN, "drimbox, aim reached"),
        (canvas.BLUE, "floor reached, or none set"),
        (canvas.RED, "below the floor"),
        (canvas.LIGHT_BLUE, "peer"),
    ):
        page.box(at, y - 11, 14, 12, colour)
        at += 20 + page.text(at + 20, y, what, size=11) + 28
    page.line([(at, y - 13), (at, y + 3)], canvas.ORANGE, 2)
    at += 8 + page.text(at + 8, y, "floor", size=11) + 22
    page.line([(at, y - 13), (at, y + 3)], canvas.BLACK, 2)
    page.text(at + 8, y, "aim; bars of a row share one scale, which begins at 0", size=11)


def _row(page: Canvas, row: Comparison, top: float) -> None:
    page.line([(_MARGIN, top), (_WIDTH - _MARGIN, top)], canvas.PALE, 1)
    _words(page, row, top)
    sides = [("drimbox", row.ours), *row.peers.items()]
    goals = [(row.floor, canvas.ORANGE), (row.aim, canvas.BLACK)]
    levels = [(level, colour) for goal, colour in goals if goal is not None and (level := goal.level(row)) is not None]
    most = max([statistics.median(values) for _, values in sides] + [level for level, _ in levels]) or 1.0
    first = top + 14
    for place, (name, values) in enumerate(sides):
        y = first + place * (_BAR + _GAP)
        middle = statistics.median(values)
        colour = canvas.LIGHT_BLUE if place else _COLOURS[row.verdict]
        width = max(_BARS * middle / most, 2)
        page.box(_LEFT, y, width, _BAR, colour)
        if len(values) > 1:
            low, high = (_LEFT + _BARS * value / most for value in spread(values))
            page.line([(low, y + _BAR / 2), (min(high, _LEFT + _BARS), y + _BAR / 2)], canvas.GREY, 2)
        page.text(_LEFT - 8, y + 14, name, size=11, align="right", bold=not place)
        page.text(
            _LEFT + _BARS + 12,
            y + 14,
            f"{readable(middle)} {row.unit}" if not place else figure(row, name),
            size=11,
            bold=not place,
        )
    bottom = first + len(sides) * (_BAR + _GAP) - _GAP
    for level, colour in levels:
        x = _LEFT + _BARS * level / most
        page.line([(x, first - 4), (x, bottom + 4)], colour, 2)


def _words(page: Canvas, row: Comparison, top: float) -> None:
    y = top + 24
    for line in _wrapped(row.what, 56):
        page.text(_MARGIN, y, line, size=12, bold=True)
        y += 19
    page.text(_MARGIN, y, f"limit: {row.limit}" if row.limit else "", canvas.GREY, size=11)


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
