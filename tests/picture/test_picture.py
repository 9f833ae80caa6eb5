"""Charts drawn with numpy alone."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.picture import axes, canvas, lettering
from drimbox.picture.canvas import Canvas


def test_a_png_comes_out_as_it_was_drawn() -> None:
    page = Canvas(20, 10)
    page.box(5, 2, 10, 4, canvas.RED)
    image = imagecodecs.png_decode(page.png())
    assert image.shape == (10, 20, 3)
    assert tuple(image[3, 7]) == canvas.RED
    assert tuple(image[0, 0]) == canvas.WHITE
    assert (image == canvas.RED).all(axis=2).sum() == 40


def test_a_line_covers_what_it_passes_and_nothing_else() -> None:
    page = Canvas(50, 50)
    page.line([(5, 25), (45, 25)], canvas.BLACK, 3)
    dark = (page.pixels < 128).all(axis=2)
    assert dark[25, 10:40].all()
    assert not dark[:22].any()
    assert not dark[28:].any()


@pytest.mark.parametrize("text", ["Débit pendant la réception", "0123456789", "ÉÈÀÇ éèàçêîôûëïù œ « » ’ – × ≥ °"])
def test_every_letter_of_french_is_known(text: str) -> None:
    unknown = lettering.strokes("\u4e00")[0]
    assert len(unknown) == 1
    for letter in text.replace(" ", ""):
        assert lettering.strokes(letter)[0] != unknown, letter


def test_no_two_letters_look_the_same() -> None:
    letters = "ABCDEFGHIJKLMNPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789éèêàçùûôîï.,:;-/()%+=<>?!"
    drawn = [tuple(lettering.strokes(letter)[0]) for letter in letters]
    assert len(set(drawn)) == len(drawn)


def test_text_stands_where_it_is_put() -> None:
    for align, left in (("left", 50.0), ("middle", 50.0 - 20), ("right", 10.0)):
        page = Canvas(120, 40)
        width = page.text(50, 30, "HHH", size=18, align=align)  # type: ignore[arg-type]
        columns = np.flatnonzero((page.pixels < 128).all(axis=2).any(axis=0))
        start = 50 - {"left": 0, "middle": width / 2, "right": width}[align]
        assert columns[0] == pytest.approx(start, abs=2), (align, left)
        assert columns[-1] == pytest.approx(start + width, abs=2)


@given(st.text(max_size=30), st.floats(-500, 500), st.floats(-500, 500), st.floats(4, 60))
def test_anything_can_be_written_anywhere(text: str, x: float, y: float, size: float) -> None:
    page = Canvas(60, 40)
    page.text(x, y, text, size=size)
    assert page.pixels.shape == (40, 60, 3)
    assert np.isfinite(page.pixels).all()


@given(st.floats(1e-6, 1e9))
def test_the_steps_of_an_axis_reach_to_its_end(most: float) -> None:
    found = axes.steps(most)
    assert found[0] == 0
    assert found[-1] >= most * 0.999
    assert found[-1] <= most * 2.5
    assert 2 <= len(found) <= 12


FIGURES = [(0, "0"), (1234.5, "1 234"), (0.00012, "0.00012"), (0.0000123, "0.000"), (12.345, "12.3")]


@pytest.mark.parametrize(("value", "text"), FIGURES)
def test_figures_are_readable(value: float, text: str) -> None:
    assert axes.readable(value) == text
