"""What callers may write in Accept, and what they get for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.dicom.syntaxes import EXPLICIT_LE, FRENCH_PROFILE, JPEG_BASELINE, JPEG_LOSSLESS_SV1, JPEG_LS
from drimbox.foundation.errors import Refused
from drimbox.images.accept import (
    ANY,
    Offer,
    Policy,
    Wanted,
    Work,
    choose,
    dicom_wanted,
    frames_wanted,
    parse_accept,
    quality_of,
    takes_json,
    wanted_boundaries,
)
from drimbox.images.client import accept_header

LOSSLESS_PROFILE = dict(zip(FRENCH_PROFILE, (0.9, 0.8, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.4), strict=True))
LOSSY_PROFILE = dict(zip(FRENCH_PROFILE, (0.6, 0.5, 0.5, 0.9, 0.9, 0.5, 0.5, 0.5, 0.5, 0.4), strict=True))
EQUAL_PROFILE = dict.fromkeys(FRENCH_PROFILE, 0.5)


def wanted_of(*lines: str) -> dict[str, float]:
    wanted = dicom_wanted(parse_accept(lines))
    assert not any(w.single for w in wanted)
    return {w.syntax: w.quality for w in wanted}


@pytest.mark.requirement("DB.SO.32", "DB.CS.83", "DB.SO.85")
@pytest.mark.parametrize(
    ("file", "profile"),
    [
        ("OK_Frames", EQUAL_PROFILE),
        ("OK_Requete_CISIS_TSLossless", LOSSLESS_PROFILE),
        ("OK_Requete_CISIS_TSLossy", LOSSY_PROFILE),
        ("OK_Series", EQUAL_PROFILE),
        ("OK_Study", EQUAL_PROFILE),
        ("instance", LOSSLESS_PROFILE),
        ("series", LOSSLESS_PROFILE),
    ],
)
def test_every_official_request_is_read(samples: Path, file: str, profile: dict[str, float]) -> None:
    text = (samples / "wado-rs" / "requests" / f"{file}.txt").read_text()
    lines = [line[len("accept:") :] for line in text.splitlines() if line.lower().startswith("accept:")]
    assert wanted_of(*lines) == profile
    assert wanted_boundaries(parse_accept(lines)) == ("**",)


@pytest.mark.parametrize(
    "lines",
    [
        ('multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.80; q=0.5',),
        ("multipart/related;type=application/dicom;transfer-syntax=1.2.840.10008.1.2.4.80;q=.5",),
        ('Multipart/Related ; Q=0.50 ; Transfer-Syntax="1.2.840.10008.1.2.4.80" ; TYPE="application/dicom"',),
        ("transfer-syntax=1.2.840.10008.1.2.4.80;q=0.5;boundary=myboundary",),
        ("q=5e-1;transfer-syntax=1.2.840.10008.1.2.4.80",),
        ("", ",,", 'text/html;x="a,b;c", multipart/related;transfer-syntax=1.2.840.10008.1.2.4.80;q=0.5,, ;'),
    ],
)
def test_spelling_does_not_matter(lines: tuple[str, ...]) -> None:
    assert wanted_of(*lines) == {JPEG_LS: 0.5}


@pytest.mark.parametrize(
    ("notation", "value"),
    [("0", 0), ("0.0", 0), ("1", 1), ("1.0", 1), ("0.1", 0.1), ("1.", 1), (".25", 0.25), ("1e-1", 0.1)],
)
def test_quality_in_any_notation(notation: str, value: float) -> None:
    assert wanted_of(f"multipart/related;transfer-syntax=*;q={notation}") == {ANY: value}


@pytest.mark.parametrize("notation", ["1.1", "-1", "2", "x", "", "1,5.", "nan", "inf", "0x1", "1_0", "١"])
def test_a_quality_outside_of_0_to_1_is_a_bad_request(notation: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_accept([f"multipart/related;q={notation}"])
    assert refused.value.code in ("accept-quality", "accept-syntax")


def test_no_accept_means_as_stored_and_no_syntax_means_explicit_little_endian() -> None:
    assert wanted_of() == {ANY: 1.0}
    assert wanted_of("*/*") == {ANY: 1.0}
    assert wanted_of('multipart/related; type="application/dicom"') == {EXPLICIT_LE: 1.0}
    assert dicom_wanted(parse_accept(["application/dicom"])) == (Wanted(EXPLICIT_LE, 1.0, single=True),)
    assert dicom_wanted(parse_accept(["text/html, image/jpeg"])) == ()
    assert dicom_wanted(parse_accept(['multipart/related; type="application/octet-stream"'])) == ()


@pytest.mark.parametrize(
    "text", ["multipart/related;transfer-syntax=1.2.", "transfer-syntax=../../etc", "complete nonsense"]
)
def test_what_is_no_media_range_is_a_bad_request(text: str) -> None:
    with pytest.raises(Refused):
        dicom_wanted(parse_accept([text]))


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ([], [(ANY, ANY, False)]),
        (["*/*"], [(ANY, ANY, False)]),
        (['multipart/related; type="*/*"'], [(ANY, ANY, False)]),
        (["multipart/*"], [(ANY, ANY, False)]),
        ([f"multipart/related; transfer-syntax={JPEG_LS}"], [(ANY, JPEG_LS, False)]),
        (["multipart/related; type=application/octet-stream"], [("application/octet-stream", EXPLICIT_LE, False)]),
        (["application/octet-stream; transfer-syntax=*"], [("application/octet-stream", ANY, True)]),
        (["multipart/related; type=image/jls"], [("image/jls", JPEG_LS, False)]),
        (["image/jpeg"], [("image/jpeg", JPEG_LOSSLESS_SV1, True)]),
        ([f"image/jpeg; transfer-syntax={JPEG_BASELINE}"], [("image/jpeg", JPEG_BASELINE, True)]),
        ([f"image/jpeg; transfer-syntax={JPEG_LS}"], []),
        (["application/dicom"], [("application/dicom", EXPLICIT_LE, True)]),
        (['multipart/related; type="application/dicom"; transfer-syntax=*'], [("application/dicom", ANY, False)]),
        ([f"transfer-syntax={JPEG_LS}"], [("application/dicom", JPEG_LS, False)]),
        (["image/png, text/html"], []),
    ],
)
def test_forms_of_frames(accept: list[str], expected: list[tuple[str, str, bool]]) -> None:
    assert [(w.media, w.syntax, w.single) for w in frames_wanted(parse_accept(accept))] == expected


def test_json_is_told_by_the_closest_range() -> None:
    assert takes_json(parse_accept([]))
    assert takes_json(parse_accept(["application/json"]))
    assert takes_json(parse_accept(["*/*;q=0.1"]))
    assert not takes_json(parse_accept(["application/dicom+json;q=0, */*"]))
    assert not takes_json(parse_accept(["multipart/related"]))


def test_an_accept_without_end_is_refused() -> None:
    with pytest.raises(Refused, match="trop long"):
        parse_accept(["a/b," * 20_000])
    with pytest.raises(Refused, match="trop long"):
        parse_accept(["a/b," * 300])


@given(st.lists(st.text(max_size=60), max_size=6))
def test_no_header_does_more_than_be_refused(lines: list[str]) -> None:
    try:
        ranges = parse_accept(lines)
        dicom_wanted(ranges)
        frames_wanted(ranges)
        takes_json(ranges)
    except Refused:
        pass


PIECES = r"""multipart/related|application/dicom|*/*|;|,|type=|"application/dicom"|q=|0.5|"|\\| |transfer-syntax="""
media_pieces = st.lists(st.sampled_from([*PIECES.split("|"), "*", JPEG_LS]), max_size=20).map("".join)


@given(media_pieces)
def test_no_mixture_of_right_pieces_does_more_than_be_refused(line: str) -> None:
    try:
        ranges = parse_accept([line])
        for wanted in (*dicom_wanted(ranges), *frames_wanted(ranges)):
            assert 0 <= wanted.quality <= 1
    except Refused:
        pass


syntaxes = st.sampled_from(FRENCH_PROFILE)
wanteds = st.lists(
    st.builds(
        Wanted, st.one_of(syntaxes, st.just(ANY)), st.sampled_from([0.0, 0.1, 0.4, 0.5, 0.9, 1.0]), st.booleans()
    ),
    max_size=8,
)
offers = st.lists(
    st.builds(Offer, syntaxes, st.sampled_from(Work), st.booleans()), max_size=6, unique_by=lambda o: o.syntax
)


@pytest.mark.requirement("DB.SO.85", "D14")
@given(wanteds, offers, st.sampled_from(Policy), st.booleans())
def test_the_choice_is_one_that_the_caller_takes_and_none_is_better(
    wanted: list[Wanted], offered: list[Offer], policy: Policy, one: bool
) -> None:
    forms = (False, True) if one else (False,)
    takeable = [o for o in offered if any(quality_of(wanted, o.syntax, single=s) > 0 for s in forms)]
    choice = choose(wanted, offered, policy=policy, one=one)
    if choice is None:
        assert not takeable
        return
    assert choice.offer in takeable
    assert choice.quality == quality_of(wanted, choice.offer.syntax, single=choice.single) > 0
    assert one or not choice.single
    # Never a lossy step while something else would do.
    assert not choice.offer.loses or all(o.loses for o in takeable)
    rivals = [o for o in takeable if o.loses == choice.offer.loses]
    if policy is Policy.LEAST_WORK:
        assert choice.offer.work == min(o.work for o in rivals)
        rivals = [o for o in rivals if o.work == choice.offer.work]
    best = max(quality_of(wanted, o.syntax, single=s) for o in rivals for s in forms)
    assert choice.quality == best


def test_the_two_policies() -> None:
    wanted = [Wanted(JPEG_LOSSLESS_SV1, 0.9), Wanted(JPEG_BASELINE, 1.0), Wanted(EXPLICIT_LE, 0.4)]
    offered = [
        Offer(EXPLICIT_LE, Work.NONE),
        Offer(JPEG_LOSSLESS_SV1, Work.ENCODE),
        Offer(JPEG_BASELINE, Work.ENCODE, loses=True),
    ]
    assert (choice := choose(wanted, offered, policy=Policy.LEAST_WORK)) is not None
    assert choice.offer.syntax == EXPLICIT_LE
    assert (choice := choose(wanted, offered)) is not None
    assert choice.offer.syntax == JPEG_LOSSLESS_SV1
    equal = [Wanted(o.syntax, 0.5) for o in reversed(offered)]
    assert (choice := choose(equal, offered)) is not None
    assert choice.offer.syntax == EXPLICIT_LE
    assert (choice := choose(wanted[1:2], offered)) is not None
    assert choice.offer.loses


def test_a_named_syntax_outweighs_the_star_and_zero_forbids() -> None:
    wanted = dicom_wanted(
        parse_accept([f"multipart/related;transfer-syntax={JPEG_LS};q=0", "multipart/related;transfer-syntax=*"])
    )
    assert choose(wanted, [Offer(JPEG_LS, Work.NONE)]) is None
    assert choose(wanted, [Offer(JPEG_LS, Work.NONE), Offer(EXPLICIT_LE, Work.DECODE)]) is not None


@pytest.mark.requirement("DB.CO.84", "DB.VI-CO.15", "D24")
def test_accept_ranks_the_syntaxes_in_the_official_form() -> None:
    text = accept_header(FRENCH_PROFILE)
    assert text.startswith(
        'multipart/related; type="application/dicom";transfer-syntax=1.2.840.10008.1.2.4.70;q=1;boundary=**,'
    )
    wanted = dicom_wanted(parse_accept([text]))
    assert [w.syntax for w in wanted] == list(FRENCH_PROFILE)
    assert [w.quality for w in wanted] == [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    alike = dicom_wanted(parse_accept([accept_header([f"{JPEG_BASELINE} 1.2.3", JPEG_LS])]))
    assert [(w.syntax, w.quality) for w in alike] == [(JPEG_BASELINE, 1), ("1.2.3", 1), (JPEG_LS, 0.9)]
    many = [w.quality for w in dicom_wanted(parse_accept([accept_header([f"1.2.{n}" for n in range(30)])]))]
    assert many == sorted(many, reverse=True)
    assert len(set(many)) == 30
    assert min(many) > 0
