"""The walk over data elements, beside pydicom on every file that its packages ship, and on bytes that mean harm."""

from __future__ import annotations

import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import data_store  # the package pydicom-data
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from drimbox.dicom.elements import (
    ITEM,
    ITEM_END,
    MAX_DEPTH,
    SEQUENCE_END,
    UNDEFINED,
    Budget,
    Element,
    element_at,
    elements,
    head,
    inner_encoding,
    items,
    number,
    raw,
    write,
)
from drimbox.dicom.files import mapped, read_meta, splice, syntax_edits
from drimbox.dicom.syntaxes import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, JPEG_LS, Encoding, encoding_of
from drimbox.foundation.errors import Refused

EXPLICIT, IMPLICIT, BIG = encoding_of(EXPLICIT_LE), encoding_of(IMPLICIT_LE), encoding_of(EXPLICIT_BE)
ENCODINGS = (EXPLICIT, IMPLICIT, BIG)
FOLDERS = (Path(pydicom.__file__).parent / "data", Path(data_store.__file__).parent)
# Labelled otherwise than they are written, deflated, or cut.
LEFT_OUT = {"SC_rgb_jpeg.dcm", "image_dfl.dcm", "meta_missing_tsyntax.dcm", "MR_truncated.dcm", "rtplan_truncated.dcm"}


def part10() -> list[Path]:
    found = [p for folder in FOLDERS for p in sorted(folder.rglob("*.dcm")) if p.stat().st_size < 2**20]
    return [p for p in found if p.name not in LEFT_OUT and p.read_bytes()[128:132] == b"DICM"]


def walked(data: bytes, encoding: Encoding = EXPLICIT, *, most: int = 100_000) -> list[Element]:
    return list(elements(data, 0, len(data), encoding, Budget(most)))


def code_of(data: bytes, encoding: Encoding = EXPLICIT, *, most: int = 100_000) -> str:
    with pytest.raises(Refused) as refused:
        walked(data, encoding, most=most)
    return refused.value.code


def everything(data: Any, start: int, end: int, encoding: Encoding, budget: Budget, depth: int = 0) -> int:
    """Visit every element, those of items too; how many there are."""
    count = 0
    for element in elements(data, start, end, encoding, budget, depth=depth):
        count += 1
        if element.vr == "SQ" or (element.length == UNDEFINED and element.tag != 0x7FE00010):
            inside = inner_encoding(element, encoding)
            for item in items(data, element, inside, budget, depth=depth):
                count += everything(data, item.value, item.content_end, inside, budget, depth + 1)
    return count


@pytest.mark.parametrize("path", part10(), ids=lambda p: p.name)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_elements_lie_where_pydicom_finds_them(path: Path) -> None:
    reference = pydicom.dcmread(path, stop_before_pixels=True, defer_size=None)
    with mapped(path) as buffer:
        meta = read_meta(buffer)
        assert meta.transfer_syntax == reference.file_meta.TransferSyntaxUID
        found = {
            e.tag: e
            for e in elements(
                buffer, meta.end, len(buffer), encoding_of(meta.transfer_syntax), Budget(10**6), until=0x7FDFFFFF
            )
        }
        theirs = {int(tag): each for tag, each in reference._dict.items() if int(tag) < 0x7FE00000}
        assert found.keys() == theirs.keys()
        for tag, each in theirs.items():
            if isinstance(each, RawDataElement) and each.length != UNDEFINED:
                assert (found[tag].value, found[tag].length) == (each.value_tell, each.length)
                assert raw(buffer, found[tag]) == (each.value or b"")
                assert found[tag].vr == (each.VR if meta.transfer_syntax != IMPLICIT_LE else "")


@pytest.mark.parametrize(
    "path", [p for p in part10() if "small" in p.name and "short" not in p.name], ids=lambda p: p.name
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_cut_anywhere_is_refused_and_never_read_further(path: Path) -> None:
    data = path.read_bytes()
    meta = read_meta(data)
    encoding = encoding_of(meta.transfer_syntax)
    ends = {e.end for e in elements(data, meta.end, len(data), encoding, Budget(10**6))} | {meta.end}
    for cut in range(meta.end, min(len(data), meta.end + 4000), 7):
        if cut in ends:
            continue
        with pytest.raises(Refused):
            list(elements(data[:cut], meta.end, cut, encoding, Budget(10**6)))


# --- whole data sets, made at random

values = st.binary(max_size=12).map(lambda b: b + b"\0" * (len(b) % 2))
tags = st.integers(0x0008, 0x00FF).flatmap(lambda group: st.integers(1, 0xFFFF).map(lambda n: group << 16 | n))


@st.composite
def datasets(draw: st.DrawFn, encoding: Encoding, depth: int = 0) -> tuple[bytes, list[int]]:
    """The bytes of a data set, and its tags."""
    chosen = sorted(draw(st.sets(tags, max_size=5)))
    pieces: list[bytes] = []
    for tag in chosen:
        if depth < 3 and draw(st.integers(0, 3)) == 0:
            pieces.append(draw(sequences(tag, encoding, depth + 1)))
            continue
        value, vr = draw(values), draw(st.sampled_from(["LO", "OB", "UN", "US", "UT", "ZZ"]))
        pieces.append(head(tag, vr, len(value), encoding) + value)
    return b"".join(pieces), chosen


@st.composite
def sequences(draw: st.DrawFn, tag: int, encoding: Encoding, depth: int) -> bytes:
    content = b""
    for _ in range(draw(st.integers(0, 2))):
        inside, _ = draw(datasets(encoding, depth))
        if draw(st.booleans()):
            content += head(ITEM, "", len(inside), encoding) + inside
        else:
            content += head(ITEM, "", UNDEFINED, encoding) + inside + head(ITEM_END, "", 0, encoding)
    if draw(st.booleans()):
        return head(tag, "SQ", len(content), encoding) + content
    return head(tag, "SQ", UNDEFINED, encoding) + content + head(SEQUENCE_END, "", 0, encoding)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_data_set_is_walked_to_its_last_byte(encoding: Encoding, data: st.DataObject) -> None:
    content, expected = data.draw(datasets(encoding))
    found = walked(content, encoding)
    assert [e.tag for e in found] == expected
    assert [e.start for e in found] == [0, *(e.end for e in found)][: len(found)]
    assert not found or found[-1].end == len(content)
    everything(content, 0, len(content), encoding, Budget(10_000))
    # Behind any prefix whose end is told, and in any kind of buffer.
    assert [e.tag for e in elements(memoryview(b"xx" + content), 2, 2 + len(content), encoding, Budget(10_000))] == (
        expected
    )


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@settings(max_examples=150, deadline=None)
@given(data=st.data(), noise=st.binary(max_size=200))
def test_noise_is_refused_or_read_within_its_bounds(encoding: Encoding, data: st.DataObject, noise: bytes) -> None:
    content, _ = data.draw(datasets(encoding))
    at = data.draw(st.integers(0, len(content)))
    mixed = content[:at] + noise + content[at + data.draw(st.integers(0, 20)) :]
    with suppress(Refused):
        for element in elements(mixed, 0, len(mixed), encoding, Budget(1000)):
            assert 0 <= element.start < element.value <= element.end <= len(mixed)
        everything(mixed, 0, len(mixed), encoding, Budget(1000))


# --- what each bound is for


def test_nesting_has_a_limit_and_costs_no_stack() -> None:
    for encoding in ENCODINGS:
        opening = head(0x00081115, "SQ", UNDEFINED, encoding) + head(ITEM, "", UNDEFINED, encoding)
        assert code_of(opening * (MAX_DEPTH + 1), encoding) == "dicom-depth"
        closing = head(ITEM_END, "", 0, encoding) + head(SEQUENCE_END, "", 0, encoding)
        levels = MAX_DEPTH // 2
        assert len(walked(opening * levels + closing * levels, encoding)) == 1


def test_the_number_of_elements_has_a_limit() -> None:
    many = b"".join(write(0x00090000 + n, "UN", b"", EXPLICIT) for n in range(1, 2000))
    assert code_of(many, most=500) == "dicom-elements"
    # Those that only have to be skipped count too.
    inside = head(ITEM, "", UNDEFINED, EXPLICIT) + many + head(ITEM_END, "", 0, EXPLICIT)
    whole = head(0x00081115, "SQ", UNDEFINED, EXPLICIT) + inside + head(SEQUENCE_END, "", 0, EXPLICIT)
    assert code_of(whole, most=500) == "dicom-elements"
    before = time.process_time()
    assert code_of(head(ITEM, "", 0, EXPLICIT) * 10**6, most=1000) in ("dicom-elements", "dicom-order")
    assert time.process_time() - before < 1


@pytest.mark.parametrize("length", [0x7FFFFFFF, 0xFFFFFFFE, 9])
def test_a_length_over_its_surroundings_is_truncation(length: int) -> None:
    assert code_of(head(0x00091001, "OB", length, EXPLICIT) + b"12345678") == "dicom-truncated"
    assert code_of(head(0x00091001, "", length, IMPLICIT) + b"12345678", IMPLICIT) == "dicom-truncated"
    item = head(ITEM, "", length, EXPLICIT) + b"12345678"
    sequence = head(0x00081115, "SQ", len(item), EXPLICIT) + item
    with pytest.raises(Refused):
        everything(sequence, 0, len(sequence), EXPLICIT, Budget(100))


def test_two_values_of_one_element_are_refused_and_the_same_twice_is_not() -> None:
    first, other = write(0x00100020, "LO", b"ONE", EXPLICIT), write(0x00100020, "LO", b"TWO", EXPLICIT)
    assert code_of(first + other) == "dicom-order"
    assert code_of(write(0x00100040, "CS", b"F", EXPLICIT) + first) == "dicom-order"
    assert len(walked(first + first)) == 2


def test_an_explicit_element_has_a_vr() -> None:
    assert code_of(struct.pack("<HHI", 0x0010, 0x0020, 4) + b"ABCD") == "dicom-syntax"
    # One of its maker's own is read as those of old are.
    assert walked(struct.pack("<HH2sH", 0x0011, 0x1001, b"ZZ", 2) + b"AB")[0].vr == "ZZ"


def test_a_sequence_holds_items_only() -> None:
    stray = write(0x00080100, "SH", b"AB", EXPLICIT)
    assert code_of(head(0x00081115, "SQ", UNDEFINED, EXPLICIT) + stray) == "dicom-syntax"
    sequence = head(0x00081115, "SQ", len(stray), EXPLICIT) + stray
    with pytest.raises(Refused):
        everything(sequence, 0, len(sequence), EXPLICIT, Budget(100))


def test_unknown_of_undefined_length_holds_implicit_items() -> None:
    inside = write(0x00080100, "", b"AB", IMPLICIT)
    item = head(ITEM, "", len(inside), IMPLICIT) + inside
    for encoding in (EXPLICIT, BIG):
        end = head(SEQUENCE_END, "", 0, IMPLICIT)
        (element,) = walked(head(0x00091010, "UN", UNDEFINED, encoding) + item + end, encoding)
        (found,) = items(b"\0" * element.value + item + end, element, IMPLICIT, Budget(9))
        assert found.tag == ITEM
        assert element.content_end - element.value == len(item)


def test_numbers() -> None:
    def read(tag: int, value: bytes, encoding: Encoding = EXPLICIT) -> int:
        data = head(tag, "IS" if tag == 0x00280008 else "US", len(value), encoding) + value
        return number(data, element_at(data, 0, len(data), encoding, Budget(1)), encoding)

    assert read(0x00280010, b"\x01\x02") == 0x0201
    assert read(0x00280010, b"\x01\x02", BIG) == 0x0102
    assert read(0x00280008, b"12\\13 ") == 12
    assert read(0x00280008, b"") == 0
    for tag, value in ((0x00280010, b""), (0x00280008, b"x "), (0x00280008, b"9" * 60_000)):
        with pytest.raises(Refused):
            read(tag, value)


# --- the file meta information


def file_of(meta: bytes, rest: bytes = b"") -> bytes:
    return b"\0" * 128 + b"DICM" + meta + rest


SYNTAX = write(0x00020010, "UI", JPEG_LS.encode(), EXPLICIT)


def test_the_meta_ends_where_group_2_ends_whatever_its_length_says() -> None:
    # Group 0004 (a DICOMDIR's) and group 0008 are the data set's.
    for following in (write(0x00041130, "CS", b"AB", EXPLICIT), write(0x00080005, "CS", b"", EXPLICIT), b""):
        for length in (len(SYNTAX), 0, 10**6):
            meta = write(0x00020000, "UL", length.to_bytes(4, "little"), EXPLICIT) + SYNTAX
            found = read_meta(file_of(meta, following))
            assert (found.transfer_syntax, found.end) == (JPEG_LS, 132 + len(meta))
    # A data set in Big Endian is not taken for more of it: 0002 would read as 0200.
    big = struct.pack(">HH", 0x0002, 0x0001)
    assert read_meta(file_of(SYNTAX, big + b"OB\0\2..")).end == 132 + len(SYNTAX)


def test_what_is_no_dicom_file() -> None:
    for data in (b"", b"x" * 131, b"x" * 5000, file_of(b""), file_of(write(0x00080005, "CS", b"", EXPLICIT))):
        with pytest.raises(Refused) as refused:
            read_meta(data)
        assert refused.value.code == "dicom-part10"
    for syntax in (b"1.2\r\nSet-Cookie: x", b"1.2;q", b"1." * 40):
        with pytest.raises(Refused):
            read_meta(file_of(write(0x00020010, "UI", syntax, EXPLICIT)))
    with pytest.raises(Refused):
        read_meta(file_of(SYNTAX + SYNTAX))
    with pytest.raises(Refused):
        read_meta(file_of(write(0x00020001, "OB", b"", EXPLICIT) * 10_000 + SYNTAX))


@given(st.binary(max_size=300))
def test_no_meta_does_more_than_be_refused(noise: bytes) -> None:
    for data in (noise, file_of(noise), file_of(SYNTAX + noise), file_of(noise, SYNTAX)):
        with suppress(Refused):
            assert read_meta(data).end <= len(data)


def test_another_label_changes_nothing_else() -> None:
    original = Path(FOLDERS[0], "test_files", "CT_small.dcm").read_bytes()
    meta = read_meta(original)
    change = splice(original, syntax_edits(original, meta, JPEG_LS))
    new = change.head + original[change.rest :]
    again = read_meta(new)
    assert again.transfer_syntax == JPEG_LS
    assert new[again.end :] == original[meta.end :]
    group = number(new, again.elements[0], EXPLICIT)
    assert again.elements[0].end + group == again.end
    assert splice(original, []).size(len(original)) == len(original)


def test_a_data_set_of_pydicom_under_every_layout(tmp_path: Path) -> None:
    dataset = Dataset()
    dataset.PatientID = "X"
    dataset.Rows = 7
    inner = Dataset()
    inner.PatientID = "Y"
    dataset.OtherPatientIDsSequence = [inner, inner]
    for encoding in ENCODINGS:
        path = tmp_path / str(encoding.explicit) / str(encoding.little)
        path.parent.mkdir(exist_ok=True)
        pydicom.dcmwrite(path, dataset, implicit_vr=not encoding.explicit, little_endian=encoding.little)
        data = path.read_bytes()
        # Without a VR, only the undefined length tells a sequence.
        assert everything(data, 0, len(data), encoding, Budget(20)) == (5 if encoding.explicit else 3)
