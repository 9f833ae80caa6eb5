"""XDM archives: the zip, its sets, METADATA.XML, CR.TXT."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drimbox.foundation.errors import DrimboxError, Refused
from drimbox.portability.check import check_set
from drimbox.portability.metadata import read_metadata, write_metadata
from drimbox.portability.references import read_references, write_reference
from drimbox.portability.sources import opened
from fuzz.grammars import http, xml, zips
from fuzz.target import Broken, Run, Target, pure
from fuzz.targets.samples import archives, metadata_files


@contextmanager
def _archive() -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="drimbox-fuzz-") as folder:
        path = Path(folder) / "archive.zip"

        def run(data: bytes) -> object:
            path.write_bytes(data)
            with opened(path) as source:
                told: list[object] = [source.count(), source.ignored(), len(list(source.announced()))]
                keys = []
                for files in source.sets(None):
                    keys.append(files.key)
                    try:
                        checked = check_set(files, ins_range="test")
                        told.append((len(checked.versions), checked.warnings))
                    except DrimboxError as error:
                        told.append(error.code)
                if keys != sorted(keys):
                    raise Broken("sets out of their order: an import that was cut would lose some")
                if keys and [f.key for f in source.sets(keys[0])] != keys[1:]:
                    raise Broken("going on after a set gives others than those that followed it")
            return told[:8]

        yield run


def _run_metadata(data: bytes) -> object:
    """What is taken out, put in again and taken out again is the same."""
    lot = read_metadata(data)
    again = read_metadata(write_metadata(lot.metadata, lot.filed))
    if again.metadata != lot.metadata:
        raise Broken("the submission set changes each time that it is filed")
    return len(lot.objects.entries), len(lot.inline), lot.assertion is None


def _run_references(data: bytes) -> object:
    found = read_references(data)
    for one in found:
        again = read_references(write_reference(one))
        if again[0].ins != one.ins:
            raise Broken("a reference changes its patient once it is written")
    return len(found)


def _references() -> Iterator[bytes]:
    yield b"1.2.250.1.213.4.5.1.105;EXT;279035121518989;1.2.250.1.213.1.4.10;IPP101;1.2.250.1.213.4.5.2.4"
    yield b"1.2.3;;279035121518989;1.2.250.1.213.1.4.10;;\r\n1.2.4;a;b;279035121518989;1.2.250.1.213.1.4.10;I;1.2&x"


TARGETS = (
    Target("xdm_zip", _archive, archives, (DrimboxError,), zips.MUTATORS, seconds=5.0, largest=200 * 1024),
    Target(
        "xdm_metadata",
        pure(_run_metadata),
        metadata_files,
        (Refused,),
        xml.MUTATORS,
        ("xdm/**/METADATA.XML",),
        largest=64 * 1024,
    ),
    Target(
        "xdm_references",
        pure(_run_references),
        _references,
        (Refused,),
        http.HEADER,
        ("xdm/**/CR.TXT",),
        largest=8 * 1024,
    ),
)
