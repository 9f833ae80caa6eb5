"""The technical log: one JSON object per line, and nothing in it that names a patient or opens a door."""

import asyncio
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.identity import ins
from drimbox.record import logs
from drimbox.record.masking import MASK, masked

INS = "279035121518989"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJmOjU1MGRjIn0.c2lnbmF0dXJl"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """The log of this process, for the time of the test."""
    root, stream = logging.getLogger(), io.StringIO()
    level, hook, show = root.level, sys.excepthook, warnings.showwarning
    logs.configure("INFO", stream)
    yield stream
    root.handlers = [h for h in root.handlers if not isinstance(h.formatter, logs.JsonLines)]
    root.setLevel(level)
    sys.excepthook, warnings.showwarning = hook, show


def read(stream: io.StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_who_what_and_for_which_work(lines: io.StringIO) -> None:
    with logs.correlated("call-7"):
        logging.getLogger("drimbox.pacs").warning("PACS %s\nne répond pas", "A")
    logging.getLogger("drimbox.pacs").debug("below the level")
    [line] = read(lines)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "WARNING",
        "logger": "drimbox.pacs",
        "message": "PACS A\nne répond pas",
        "correlation": "call-7",
    }


async def test_tasks_inherit_the_correlation_and_do_not_share_it(lines: io.StringIO) -> None:
    async def work(name: str) -> None:
        with logs.correlated(name):
            await asyncio.sleep(0)
            await asyncio.create_task(say(name))

    async def say(name: str) -> None:
        logging.getLogger("drimbox").info(name)

    await asyncio.gather(work("a"), work("b"))
    assert [(line["correlation"], line["message"]) for line in read(lines)] == [("a", "a"), ("b", "b")]


@pytest.mark.parametrize(
    "text",
    [
        f"patient {INS}",
        f"{INS}^^^&1.2.250.1.213.1.4.10&ISO^NH",
        f"GET /x?patientID={INS}&y=1",
        "INS 123456789012345 à clé fausse",
        "1790351 2A 2 79 03 51 215 189 89",
        f"Authorization: Bearer {TOKEN}",
        "Authorization: bearer abcdefghijkl",
        "Authorization: Basic ZHJpbWJveDpzZWNyZXQ=",
        f"retry with {TOKEN}",
        f'{{"access_token": "{TOKEN[:-9]}", "expires_in": 120}}',
        "grant_type=refresh_token&refresh_token=d4f5e6a7b8c9d0e1",
        "https://box/login?state=1&code=0123456789abcdef",
        "client_secret=0123-4567-89ab-cdef",
    ],
)
def test_what_identifies_a_patient_or_opens_a_door_is_masked(lines: io.StringIO, text: str) -> None:
    logging.getLogger("drimbox").error(text)
    [line] = read(lines)
    assert MASK in line["message"]
    for secret in (INS, "123456789012345", "2 79 03 51 215 189 89", TOKEN[:-9], "abcdefghijkl", "ZHJpbWJveDpzZWNyZXQ"):
        assert secret not in line["message"]
    for secret in ("d4f5e6a7b8c9d0e1", "0123456789abcdef", "0123-4567-89ab-cdef"):
        assert secret not in line["message"]


@pytest.mark.parametrize(
    "text",
    [
        "étude 1.2.250.1.213.4.5.2.1.199 publiée en 2026-01-01T10:11:12.123Z",
        "KOS 2.25.279035121518989279035121518989.279035121518989",
        "CN=Liste Blanche DRIM-M,OU=318751275100020,O=AGENCE DU NUMERIQUE EN SANTE",
        "OU=499700367909006, FINESS 1750803447, RPPS 899700218896",
        "code=pacs-unreachable peer_code=ConnectionRefusedError",
        "token=refusé",
        "1 23 45 67 89 10 11",
    ],
)
def test_what_an_operator_needs_stays(text: str) -> None:
    assert masked(text) == text


@given(
    st.from_regex(r"[1-478][0-9]{2}(0[1-9]|1[0-2])([0-9]{2}|2[AB])[0-9]{6}", fullmatch=True),
    st.text(st.characters(blacklist_categories=["Nd", "Lu", "Ll", "Cs"], blacklist_characters="."), max_size=10),
)
def test_no_ins_with_its_key_ever_passes(thirteen: str, around: str) -> None:
    number = thirteen + ins.key(thirteen)
    assert number not in masked(around + number + around)


@given(st.text())
def test_masking_twice_changes_nothing_more(text: str) -> None:
    assert masked(masked(text)) == masked(text)


def test_a_traceback_is_masked_and_stays_on_its_line(lines: io.StringIO) -> None:
    try:
        raise ValueError(f"Key (ins)=({INS}) already exists")
    except ValueError:
        logging.getLogger("drimbox").exception("échec")
    [line] = read(lines)
    assert "ValueError" in line["error"]
    assert INS not in line["error"]


def test_a_wrong_format_string_loses_no_line() -> None:
    record = logging.LogRecord("drimbox", logging.INFO, __file__, 1, "%d images", ("trois",), None)
    assert "%d images" in json.loads(logs.JsonLines().format(record))["message"]


def test_a_warning_shows_its_place_and_not_its_text(lines: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = logs._log_warning
        warnings.warn("Invalid value for VR PN: 'PAT-TROIS^DOMINIQUE'", UserWarning, stacklevel=1)
    [line] = read(lines)
    assert "PAT-TROIS" not in json.dumps(line)
    assert line["message"].startswith("UserWarning at ")


def test_libraries_that_print_data_elements_stay_quiet(lines: io.StringIO) -> None:
    logs.configure("DEBUG", lines)
    logging.getLogger("pynetdicom.events").debug("(0010,0010) PN [PAT-TROIS^DOMINIQUE]")
    logging.getLogger("pydicom").warning("Invalid value PAT-TROIS")
    assert read(lines) == []


def test_an_uncaught_exception_is_one_masked_line() -> None:
    program = (
        "from drimbox.record import logs\nlogs.configure('INFO')\n"
        "import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start(); t.join()\n"
        f"raise ValueError('{INS}')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    thread, main = (json.loads(line) for line in ended.stderr.splitlines())
    assert "ZeroDivisionError" in thread["error"]
    assert "ValueError" in main["error"]
    assert INS not in ended.stderr


def test_configuring_twice_does_not_double_the_lines(lines: io.StringIO) -> None:
    logs.configure("INFO", lines)
    logging.getLogger("drimbox").info("once")
    assert len(read(lines)) == 1
