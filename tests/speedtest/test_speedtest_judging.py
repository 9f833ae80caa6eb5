"""What the figures of a measurement are taken to mean."""

from __future__ import annotations

import json
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.speedtest import drawing, judging, reporting
from drimbox.speedtest.measured import Arrival, Measured, decoded, encoded
from drimbox.speedtest.measuring import Progress

pytestmark = pytest.mark.requirement("DB.SO.102")
JPEG_LS, EXPLICIT = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.1"


def measured(ats: list[float], *, size: int = 500_000, syntax: str = JPEG_LS) -> Measured:
    return Measured(
        pacs="p",
        way="move",
        series=1,
        expected=len(ats),
        associations=(0.002, 0.003, 0.002),
        echoes=(0.001, 0.001, 0.001),
        finding=0.2,
        arrivals=tuple(Arrival(at, size, syntax) for at in ats),
        seconds=ats[-1],
        stored={},
        unlike=0,
        once_lossy=False,
        busy=0.1,
    )


def evenly(gap: float, count: int = 40, first: float = 0.1) -> list[float]:
    return [first + gap * number for number in range(count)]


def test_a_pacs_without_fault_is_told_nothing() -> None:
    fine = measured(evenly(0.005))
    assert judging.warnings(fine) == []
    assert judging.remarks(fine) == []
    assert "atteint l'objectif" in reporting.text(fine)
    assert "n'atteint pas" not in reporting.text(fine)


@pytest.mark.parametrize(("gap", "like"), [(0.042, "40 ms"), (0.2, "200 ms"), (0.1, "")])
def test_regular_waits_are_found(gap: float, like: str) -> None:
    slow = judging.stall(measured(evenly(gap), size=50_000))
    assert slow is not None
    assert slow.like == like
    assert slow.gap == pytest.approx(gap, abs=0.001)


def test_a_network_that_is_just_slow_is_not_taken_for_a_stall() -> None:
    rng = np.random.default_rng(1)
    ats = list(0.1 + np.cumsum(rng.exponential(0.12, 60)))
    assert judging.stall(measured([float(at) for at in ats], size=50_000)) is None


def test_a_few_images_prove_no_stall() -> None:
    assert judging.stall(measured(evenly(0.042, count=6))) is None


def test_what_is_below_the_bars_is_told() -> None:
    slow = measured(evenly(0.5, count=10, first=1.5), size=300_000)
    said = " ".join(judging.warnings(slow))
    assert "100 Mbit/s" in said
    assert "plus d'une seconde" in said


def test_a_tiny_study_proves_no_slowness() -> None:
    tiny = measured(evenly(0.005), size=1000)
    assert not judging.warnings(tiny)
    assert "trop petit" in judging.remarks(tiny)[0]


def test_a_box_that_is_itself_the_limit_says_so() -> None:
    assert any("passerelle elle-même" in one for one in judging.warnings(replace(measured(evenly(0.005)), busy=0.95)))


def test_transcoding_is_a_warning_only_with_evidence() -> None:
    native = measured(evenly(0.005), syntax=EXPLICIT)
    assert judging.remarks(native)
    assert not judging.warnings(native)
    told = replace(native, stored={JPEG_LS: 40}, unlike=40)
    assert "transcode" in judging.warnings(told)[0]
    assert not judging.remarks(told)


@given(
    st.lists(st.floats(1e-6, 5, allow_nan=False), min_size=2, max_size=60),
    st.integers(1, 10**9),
    st.sampled_from([JPEG_LS, EXPLICIT, "1.2.3"]),
)
def test_any_measurement_is_told_and_survives_its_way_over_the_socket(
    gaps: list[float], size: int, syntax: str
) -> None:
    ats = [float(at) for at in np.cumsum(gaps)]
    one = measured(ats, size=size, syntax=syntax)
    assert decoded(json.loads(json.dumps(encoded(one)))) == one
    text = reporting.text(one)
    assert f"{len(gaps)} sur {len(gaps)}" in text
    assert "nan" not in text


@pytest.mark.parametrize("ats", [evenly(0.042), evenly(0.005), [0.1, 0.1], [1e-9, 2e-9, 30.0]])
def test_the_picture_can_be_drawn(ats: list[float]) -> None:
    image = imagecodecs.png_decode(drawing.draw(measured(ats)).png())
    assert image.shape[1:] == (1400, 3)
    assert 0.005 < (image < 200).any(axis=2).mean() < 0.6


def test_progress_is_one_line() -> None:
    assert reporting.progress(Progress("Recherche de l'examen")) == "Recherche de l'examen…"
    assert reporting.progress(Progress("Images", 3, 10, 2_000_000, 0.5)) == "Images : 3/10, 2 Mo, 32 Mbit/s"
