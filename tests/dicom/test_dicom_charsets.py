"""Text in the character sets that files name, and in those that they had better not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.dicom.charsets import DEFAULT, codecs_of, decoded


@pytest.mark.parametrize(
    ("named", "value", "text"),
    [
        (b"", b"ABC", "ABC"),
        (b"ISO_IR 100", "Jérôme".encode("latin-1"), "Jérôme"),
        (b"ISO_IR 203 ", "Œuvré".encode("iso8859-15"), "Œuvré"),
        (b"ISO_IR 192", "Łukasz".encode(), "Łukasz"),
        (b"ISO 2022 IR 6\\ISO 2022 IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^", "Yamada^Tarou=山田^"),
        # Of Python, not of DICOM: the default counts.
        (b"unicode_escape", rb"\x41", r"\x41"),
        (b"punycode", b"Zrich-kva", "Zrich-kva"),
        (b"idna", "é".encode("latin-1"), "é"),
        (b"no such set", "é".encode("latin-1"), "é"),
    ],
)
def test_text(named: bytes, value: bytes, text: str) -> None:
    assert decoded(value, codecs_of(named) if named else DEFAULT, b"\\^=") == text


@given(st.binary(max_size=40), st.binary(max_size=60))
def test_nothing_that_a_file_says_is_worse_than_wrong(named: bytes, value: bytes) -> None:
    assert isinstance(decoded(value, codecs_of(named), b"\\^="), str)


@given(st.lists(st.sampled_from(["", "ISO 2022 IR 87", "ISO 2022 IR 149", "ISO_IR 192", "GB18030"]), max_size=20))
def test_any_combination_of_sets_reads_anything(names: list[str]) -> None:
    codecs = codecs_of("\\".join(names).encode())
    for value in (b"\x1b$B;3ED\x1b(B", bytes(range(256)), b"\x1b$)C\xfb\xf3"):
        assert isinstance(decoded(value, codecs), str)
