"""An archive that nobody vouches for: refused with a reason, never a crash, never more memory than its limits."""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from portability_examples import BCOM, Box, tree

from drimbox.foundation.errors import DrimboxError, Refused
from drimbox.manifest.read import MAX_BYTES
from drimbox.portability import layout
from drimbox.portability.check import check_set
from drimbox.portability.metadata import read_metadata, write_metadata
from drimbox.portability.references import read_references
from drimbox.portability.sources import opened
from drimbox.portability.zip_reader import ZipReader

SET = "KA202401/IHE_XDM/SS000001"
NAMES = ("METADATA.XML", "KOS_1_1.DCM", "SIGN_1.XML", "CR.TXT")
INS = "162018885045327"


class Memory:
    """A set in memory."""

    key = ("KA202401", "IHE_XDM", "SS000001")

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def names(self) -> tuple[str, ...]:
        return tuple(self.files)

    def read(self, name: str, limit: int) -> bytes:
        content = self.files[name]
        if len(content) > limit:
            raise layout.refused("trop", "limits")
        return content


@pytest.fixture(scope="module")
def official(samples: Path) -> dict[str, bytes]:
    return {name: (samples / "xdm" / SET / name).read_bytes() for name in NAMES}


def swap(name: str, old: bytes, new: bytes, count: int = -1) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        assert old in files[name]
        files[name] = files[name].replace(old, new, count)

    return change


def put(name: str, content: bytes | None) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        if content is None:
            del files[name]
        else:
            files[name] = content

    return change


STUDY = b"1.3.6.1.4.1.5962.99.1.3711725607.829148806.1687338938407.3.12"
BOMB = b'<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><a>&c;</a>'


@pytest.mark.requirement("DB.SO.30")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (put("METADATA.XML", None), "archive-file-missing"),
        (put("METADATA.XML", b""), "xml-syntax"),
        (put("METADATA.XML", BOMB), "xml-dtd"),
        (swap("METADATA.XML", b'id="cla10"', b'id="cla10" x:y="1"'), "xml-syntax"),
        (put("METADATA.XML", b"<a/>"), "archive-metadata"),
        (put("METADATA.XML", b"<a>" * 300 + b"</a>" * 300), "xml-depth"),
        (swap("METADATA.XML", b"SubmissionSet01", b""), "metadata-identifier"),
        (put("KOS_1_1.DCM", None), "archive-file-missing"),
        (swap("KOS_1_1.DCM", b"PAT-SIX", b"PAT-SEX"), "archive-hash"),
        (swap("METADATA.XML", b"<Value>5164</Value>", b"<Value>5165</Value>"), "archive-hash"),
        (swap("METADATA.XML", b"<Value>5164</Value>", b""), "archive-hash"),
        (swap("METADATA.XML", b"SS000001/KOS_1_1.DCM", b"../../../etc/passwd"), "archive-file-missing"),
        (put("KOS_1_2.DCM", b"x"), "archive-kos-stranger"),
        (put("cr.txt", b"x"), "archive-duplicate"),
        (swap("METADATA.XML", INS.encode(), b"279035121518989", 3), "archive-patient"),
        (swap("METADATA.XML", INS.encode(), b"279035121518989"), "archive-patient"),
        (
            swap("METADATA.XML", INS.encode() + b"^^^&amp;1.2.250.1.213.1.4.10", b"1^^^&amp;1.2.250.1.213.1.4.10"),
            "ins-format",
        ),
        (swap("METADATA.XML", b"045327^", b"045328^"), "ins-key"),
        (swap("CR.TXT", INS.encode(), b"279035121518989"), "archive-patient"),
        (swap("CR.TXT", b"327;", b"328;"), "ins-key"),
        (swap("CR.TXT", b"1.4.10", b"1.4.8"), "archive-patient"),
        (put("CR.TXT", b""), "archive-report-reference"),
        (put("CR.TXT", b"\xff\xfe;;;"), "archive-report-reference"),
        (put("CR.TXT", b"1.2;" + b"9" * 300 + b";162018885045327;1.2.250.1.213.1.4.10;;"), "archive-report-reference"),
        (put("CR.TXT", b"1.2;a\x00b;162018885045327;1.2.250.1.213.1.4.10;;"), "archive-report-reference"),
        (swap("METADATA.XML", STUDY, STUDY[:-1] + b"3"), "archive-study"),
        (swap("METADATA.XML", b"240116151112.1.1.1", b"240116151112.1.1.9"), "archive-kos-uid"),
        (swap("SIGN_1.XML", b"WkAJzKRF", b"WkAJzKRG"), "archive-signature"),
        (put("SIGN_1.XML", b"nothing"), "xml-syntax"),
        (put("SIGN_1.XML", BOMB), "xml-dtd"),
        (put("METADATA.XML", b" " * (layout.MAX_METADATA + 1)), "archive-limits"),
        (put("KOS_1_1.DCM", b" " * (2 * MAX_BYTES)), "archive-limits"),
        (lambda files: files.update({f"X{n}": b"" for n in range(2000)}), "archive-limits"),
        (
            swap(
                "METADATA.XML",
                b"20240116151112</Value></ValueList></Slot><Name>",
                b"x</Value></ValueList></Slot><Name>",
            ),
            "archive-metadata",
        ),
    ],
)
def test_what_is_not_right_is_refused(
    official: dict[str, bytes], change: Callable[[dict[str, bytes]], None], code: str
) -> None:
    files = dict(official)
    change(files)
    if code == "archive-metadata" and b"creationTime" in files["METADATA.XML"]:
        files["METADATA.XML"] = files["METADATA.XML"].replace(b'name="creationTime"', b'name="urn:x"')
    with pytest.raises(Refused) as refused:
        check_set(Memory(files), ins_range="test")
    assert refused.value.code == code
    assert INS not in refused.value.reason
    assert "PAT-" not in refused.value.reason


def test_test_identities_stay_out_of_a_production_box(official: dict[str, bytes]) -> None:
    with pytest.raises(Refused) as refused:
        check_set(Memory(official), ins_range="production")
    assert refused.value.code == "ins-range"


def test_names_that_are_odd_are_kept(official: dict[str, bytes]) -> None:
    odd = official["METADATA.XML"].replace(b'id="cla10"', 'id="cla10" é="1"'.encode())
    files = official | {"METADATA.XML": odd}
    checked = check_set(Memory(files), ins_range="test")
    # What is kept can be read again.
    assert read_metadata(checked.metadata).metadata == checked.metadata


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_sets_never_crash(official: dict[str, bytes], data: st.DataObject) -> None:
    files = dict(official)
    name = data.draw(st.sampled_from(NAMES))
    octets = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, max(len(octets) - 1, 0)))
        match data.draw(st.integers(0, 2)):
            case 0:
                octets[place : place + 1] = data.draw(st.binary(max_size=3))
            case 1:
                del octets[place : place + data.draw(st.integers(1, 400))]
            case _:
                end = place + data.draw(st.integers(1, 400))
                octets[place:place] = octets[place:end]
    files[name] = bytes(octets)
    try:
        checked = check_set(Memory(files), ins_range="test")
    except Refused:
        return
    assert checked.versions[0].kos == official["KOS_1_1.DCM"]
    assert checked.versions[0].ins.matricule == INS


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_no_octets_crash_the_readers(octets: bytes) -> None:
    for read in (read_references, read_metadata):
        try:
            read(octets)
        except Refused:
            continue


@settings(max_examples=100)
@given(
    extension=st.text(st.characters(min_codepoint=32, exclude_categories=["C", "Z"]), max_size=30),
    ipp=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20),
)
def test_a_reference_is_read_as_it_was_written(extension: str, ipp: str) -> None:
    from drimbox.identity.ins import Ins
    from drimbox.portability.references import ReportReference, write_reference

    ins = Ins.of(INS, "1.2.250.1.213.1.4.10")
    extension = extension.strip()
    document = f"1.2.3^{extension}" if extension else "1.2.3"
    reference = ReportReference(document, ins, ipp, "1.2.9")
    assert read_references(write_reference(reference)) == (reference,)


# --- zips ---------------------------------------------------------------------------------------------------------


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def read_all(path: Path) -> dict[str, bytes]:
    with opened(path) as source:
        return {
            "/".join((*files.key, name)): files.read(name, 2**20)
            for files in source.sets(None)
            for name in files.names()
        }


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_zips_never_crash(tmp_path: Path, official: dict[str, bytes], data: st.DataObject) -> None:
    octets = bytearray(zipped({f"{SET}/{name}": content for name, content in official.items()}))
    end = len(octets)
    start = data.draw(st.sampled_from([0, end - 400, end - 60]))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(start, end - 1))
        octets[place : place + 1] = data.draw(st.binary(max_size=2))
        end = len(octets)
    path = tmp_path / "x.zip"
    path.write_bytes(octets)
    try:
        found = read_all(path)
    except DrimboxError:
        return
    # What could be read is what was there, under whatever name.
    assert set(found.values()) <= set(official.values())


def test_a_path_that_leads_outside_is_ignored_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    evil = ["../METADATA.XML", "/etc/METADATA.XML", "a/../../b/METADATA.XML", "C:\\x\\METADATA.XML", "..\\METADATA.XML"]
    path.write_bytes(zipped(dict.fromkeys([*evil, "ok/METADATA.XML", "a/b/c/d/e/f/g/h/METADATA.XML"], b"<a/>")))
    reader = ZipReader(path)
    assert list(reader.folders()) == ["ok"]
    assert reader.ignored == 6
    reader.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.zip"]


def test_a_zip_and_a_folder_have_one_order(tmp_path: Path) -> None:
    names = [
        "A/B/SS1/METADATA.XML",
        "A'/B/SS1/METADATA.XML",
        "A/B'/METADATA.XML",
        "A/C/METADATA.XML",
        "A.B/METADATA.XML",
    ]
    path, folder = tmp_path / "x.zip", tmp_path / "x"
    path.write_bytes(zipped(dict.fromkeys(names, b"<a/>")))
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"<a/>")
    with opened(path) as zip_source, opened(folder) as folder_source:
        keys = [files.key for files in zip_source.sets(None)]
        assert keys == sorted(keys) == [files.key for files in folder_source.sets(None)]
        for number, key in enumerate(keys):
            # An import that was cut goes on with what it has not done, whichever set was the last.
            assert [files.key for files in zip_source.sets(key)] == keys[number + 1 :]


def test_a_submission_set_stays_the_same_from_its_first_reading_on(official: dict[str, bytes]) -> None:
    told = re.sub(
        rb"<ValueList>\s*<Value>[^<]*<", b"<ValueList><Value><![CDATA[]]><", official["METADATA.XML"], count=1
    )
    assert told != official["METADATA.XML"]
    lot = read_metadata(told)
    assert read_metadata(write_metadata(lot.metadata, lot.filed)).metadata == lot.metadata


@pytest.mark.requirement("DB.SO.30")
async def test_a_value_that_the_database_does_not_take_refuses_its_set_alone(
    box: Box, official: dict[str, bytes], tmp_path: Path
) -> None:
    long = "".join(chr(0x4E00 + n) for n in range(6000)).encode()
    evil = official | {"METADATA.XML": official["METADATA.XML"].replace(b">725229536725002^", b">" + long + b"^")}
    sets = {"SS000001": evil, "SS000002": official}
    files = {f"KA202401/IHE_XDM/{s}/{name}": content for s, found in sets.items() for name, content in found.items()}
    (tmp_path / "x.zip").write_bytes(zipped(files))
    done = await box.import_(tmp_path / "x.zip", targets=[BCOM])
    assert ([d.code for d in done.details], done.imported) == (["archive-values"], 1)


@pytest.mark.requirement("DB.SO.30")
async def test_a_path_that_leads_outside_is_told(box: Box, official: dict[str, bytes], tmp_path: Path) -> None:
    files = {f"{SET}/{name}": content for name, content in official.items()}
    (tmp_path / "x.zip").write_bytes(zipped(files | {"../../evil.txt": b""}))
    done = await box.import_(tmp_path / "x.zip", targets=[BCOM])
    assert dict(done.warnings) == {"signature-hash": 1, "ignored-path": 1}


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(zipped({f"{SET}/CR.TXT": b"\0" * 2**28}))
    assert path.stat().st_size < 2**20
    with opened(path) as source:
        [files] = source.sets(None)
        with pytest.raises(Refused, match="volumineux"):
            files.read("CR.TXT", 2**20)

    # One that lies about its size.
    octets = path.read_bytes().replace(struct.pack("<I", 2**28), struct.pack("<I", 10))
    path.write_bytes(octets)
    with opened(path) as source:
        [files] = source.sets(None)
        with pytest.raises(Refused):
            files.read("CR.TXT", 2**20)


@pytest.mark.parametrize("cut", [1, 21, 22, 100, 5000])
def test_a_zip_that_is_not_whole_is_refused(tmp_path: Path, official: dict[str, bytes], cut: int) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(zipped({f"{SET}/{name}": content for name, content in official.items()})[:-cut])
    with pytest.raises(Refused), opened(path):
        pass


def test_what_is_no_zip_is_refused(tmp_path: Path) -> None:
    for octets in (b"", b"PK", b"PK\x05\x06" + b"\xff" * 18, b"x" * 100_000, b"PK\x05\x06" + b"\0" * 17):
        (tmp_path / "x.zip").write_bytes(octets)
        with pytest.raises(Refused), opened(tmp_path / "x.zip"):
            pass
    with pytest.raises(Refused), opened(tmp_path / "nowhere"):
        pass


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    octets = bytearray(zipped({f"{SET}/CR.TXT": b"secret"}))
    place = octets.index(b"PK\x01\x02") + 8
    octets[place] |= 1
    (tmp_path / "x.zip").write_bytes(octets)
    with opened(tmp_path / "x.zip") as source:
        [files] = source.sets(None)
        with pytest.raises(Refused, match="chiffré"):
            files.read("CR.TXT", 100)


def test_links_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "KA202401" / "IHE_XDM" / "SS000001"
    folder.mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    os.symlink(tmp_path / "secret", folder / "CR.TXT")
    os.symlink(tmp_path, folder / "deeper")
    os.mkfifo(folder / "SIGN_1.XML")
    (folder / "METADATA.XML").write_text("<a/>")
    with opened(tmp_path) as source:
        [files] = source.sets(None)
        assert files.names() == ("METADATA.XML",)
        for name in ("CR.TXT", "SIGN_1.XML"):
            with pytest.raises(DrimboxError):
                files.read(name, 100)


def test_zips_of_more_than_four_gigabytes_are_understood(tmp_path: Path) -> None:
    """A sparse file: the set lies behind a hole of five gigabytes, its place in a zip64 field."""
    name, content = f"{SET}/CR.TXT".encode(), b"1;2"
    place, crc = 5 * 2**30, zlib.crc32(b"1;2")
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 45, 0, 0, 0, 33, crc, 3, 3, len(name), 0) + name + content
    extra = struct.pack("<HHQ", 1, 8, place)
    entry = (
        struct.pack(
            "<IHHHHHHIIIHHHHHII",
            0x02014B50,
            45,
            45,
            0,
            0,
            0,
            33,
            crc,
            3,
            3,
            len(name),
            len(extra),
            0,
            0,
            0,
            0,
            0xFFFFFFFF,
        )
        + name
        + extra
    )
    at = place + len(local)
    end64 = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, 1, 1, len(entry), at)
    locator = struct.pack("<IIQI", 0x07064B50, 0, at + len(entry), 1)
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(entry), 0xFFFFFFFF, 0)
    path = tmp_path / "big.zip"
    with path.open("wb") as file:
        file.seek(place)
        file.write(local + entry + end64 + locator + end)
    assert read_all(path) == {f"{SET}/CR.TXT": content}
    with zipfile.ZipFile(path) as oracle:
        assert oracle.read(name.decode()) == content


@pytest.mark.requirement("DB.SO.30")
async def test_what_is_refused_is_told_once_and_the_rest_goes_on(box: Box, samples: Path, tmp_path: Path) -> None:
    good = tree(samples / "xdm")
    for number in (1, 2, 3, 4):
        for path, content in good.items():
            file = tmp_path / "xdm" / path.replace("SS000001", f"SS00000{number}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    volume = tmp_path / "xdm" / "KA202401" / "IHE_XDM"
    (volume / "SS000001" / "METADATA.XML").unlink()
    kos = volume / "SS000002" / "KOS_1_1.DCM"
    kos.write_bytes(kos.read_bytes() + b"\0")
    (volume / "SS000003" / "METADATA.XML").write_bytes(b"\xff\xfe\x00")
    for _ in range(2):
        done = await box.import_(tmp_path / "xdm", targets=[BCOM])
        assert (done.sets, done.refused) == (4, 3)
        assert [(d.label, d.code) for d in done.details] == [
            ("xdm/KA202401/SS000001", "archive-file-missing"),
            ("xdm/KA202401/SS000002", "archive-hash"),
            ("xdm/KA202401/SS000003", "archive-xml-syntax"),
        ]
        queue = await box.queue()
        assert [i.code for i in queue] == ["archive-file-missing", "archive-hash", "archive-xml-syntax"]
        assert all(len(i.history) == 1 for i in queue)
        for incident in queue:
            assert INS not in str(incident)
            assert "PAT-SIX" not in str(incident)
    assert "3 lots refusés" in done.words()[0]
