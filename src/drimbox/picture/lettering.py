"""Letters as strokes, so that any size can be drawn without a font file.

A letter lives on a grid: x from 0, y from 0 (top of the capitals) over 2 (top of the small letters) and 6 (the line
it stands on) down to 8. It is written as its strokes, blanks between them, each point two digits, x then y; a stroke of
one point is a dot.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

Stroke = tuple[tuple[float, float], ...]

HEIGHT = 6.0
"""Of the capitals, in steps of the grid."""
_GAP = 1.7
_BLANK = 2.2
_RING = "100105163645413010"

_LETTERS = {
    "A": "062046 1434",
    "B": "06003041423303 3344453606",
    "C": "4130100105163645",
    "D": "06003041453606",
    "E": "40000646 0333",
    "F": "400006 0333",
    "G": "41301001051636454323",
    "H": "0006 4046 0343",
    "I": "0020 1016 0626",
    "J": "4045361605",
    "K": "0006 4003 0346",
    "L": "000646",
    "M": "0600234046",
    "N": "06004640",
    "O": _RING,
    "P": "06003041423303",
    "Q": f"{_RING} 3447",
    "R": "06003041423303 2346",
    "S": "413010010213334445361605",
    "T": "0040 2026",
    "U": "000516364540",
    "V": "002640",
    "W": "0016233640",
    "X": "0046 4006",
    "Y": "002340 2326",
    "Z": "00400646",
    "a": "4246 4332120305163645",
    "b": "0006 0312324345361605",
    "c": "4332120305163645",
    "d": "4046 4332120305163645",
    "e": "04444332120305163645",
    "f": "30201116 0232",
    "g": "4247381807 4332120305163645",
    "h": "0006 0312324346",
    "i": "0206 00",
    "j": "121708 10",
    "k": "0006 3204 0436",
    "l": "000516",
    "m": "0206 0312223336 3342526366",
    "n": "0206 0312324346",
    "o": "120305163645433212",
    "p": "0208 0312324345361605",
    "q": "4248 4332120305163645",
    "r": "0206 031232",
    "s": "43321203143445361605",
    "t": "10152636 0232",
    "u": "0205163645 4246",
    "v": "022642",
    "w": "0216243642",
    "x": "0246 4206",
    "y": "0226 4208",
    "z": "02420646",
    "0": _RING,
    "1": "012026",
    "2": "01103041420646",
    "3": "01103041423313 334445361605",
    "4": "300444 3036",
    "5": "400002324345361605",
    "6": "413010010516364544331304",
    "7": "004016",
    "8": "100102133342413010 1304051636454433",
    "9": "051636454130100102133342",
    ".": "06",
    ",": "1507",
    ":": "03 06",
    ";": "13 1507",
    "-": "0434",
    "–": "0444",
    "/": "0640",
    "(": "10010516",
    ")": "00111506",
    "[": "10000616",
    "]": "00101606",
    "%": "0640 0010110100 3545463635",
    "+": "0444 2226",
    "=": "0343 0545",
    "×": "0346 4306",
    "<": "420446",
    ">": "024406",
    "≥": "024406 0747",
    "≤": "420446 0747",
    "→": "0444 334435",
    "·": "04",
    "'": "0001",
    "’": "0001",
    '"': "0001 2021",
    "«": "220426 422446",
    "»": "022406 224426",
    "°": "0020220200",
    "_": "0747",
    "?": "011030414224 26",
    "!": "0004 06",
    "|": "0007",
    "*": "0345 4305 2226",
    "#": "1016 3036 0242 0444",
    "&": "4612010010210405163644",
}
# Above a small letter of width 4.
_MARKS = {"\u0301": "1130", "\u0300": "1031", "\u0302": "112031", "\u0308": "11 31", "\u0327": "262817"}
_BELOW = "\u0327"
_UNKNOWN = "0040460600"
_SPELT = str.maketrans({"œ": "oe", "Œ": "OE", "æ": "ae", "µ": "u", "\u00a0": " ", "\u202f": " ", "…": "...", "—": "–"})


def strokes(text: str) -> tuple[list[Stroke], float]:
    """The strokes of a line of text in steps of the grid, and how wide it is."""
    found: list[Stroke] = []
    at = 0.0
    for letter in unicodedata.normalize("NFC", text.translate(_SPELT)):
        if letter == " ":
            at += _BLANK + _GAP
            continue
        drawn, width = _letter(letter)
        found += [tuple((x + at, y) for x, y in stroke) for stroke in drawn]
        at += width + _GAP
    return found, max(at - _GAP, 0.0)


def width_of(text: str) -> float:
    """How wide a line of text is, in steps of the grid."""
    return strokes(text)[1]


def _letter(letter: str) -> tuple[list[Stroke], float]:
    base, *marks = list(unicodedata.normalize("NFD", letter)) if letter not in _LETTERS else [letter]
    drawn = list(_read(_LETTERS.get(base, _UNKNOWN)))
    width = max(x for stroke in drawn for x, _ in stroke)
    if base == "i" and marks:
        drawn.pop()
    for mark in marks:
        rise = 2.3 if base.isupper() and mark != _BELOW else 0.0
        for stroke in _read(_MARKS.get(mark, "")):
            drawn.append(tuple((x + width / 2 - 2, y - rise) for x, y in stroke))
    return drawn, width


def _read(written: str) -> Iterator[Stroke]:
    for stroke in written.split():
        yield tuple((float(stroke[i]), float(stroke[i + 1])) for i in range(0, len(stroke), 2))
