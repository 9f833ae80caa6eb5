"""The header of an image as DICOM JSON (PS3.18 10.4.1.2, annex F). Runs in a worker process, on strangers' files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from drimbox.foundation.errors import Refused
from drimbox.identity.ins import Ins
from drimbox.images.elements import mapped
from drimbox.images.header import read_meta, with_ins
from drimbox.images.pixels import BETWEEN, read_layout
from drimbox.images.syntaxes import EXPLICIT_LE, NEVER_SENT
from drimbox.images.transcode import transcode

_BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
_MAX_INLINE = 1024
_AVAILABLE_SYNTAX = 0x00083002


def write_metadata(source: Path, target: Path, ins: Ins) -> None:
    """Write the header of ``source``, with the INS of its patient, to ``target`` as one JSON object.

    Pixels and long binary values are left out. Raises ``Refused`` or ``IdentityMismatch`` as ``with_ins`` does.
    """
    with mapped(source) as buffer:
        stored = read_meta(buffer).transfer_syntax
    if stored not in NEVER_SENT:
        _write(source, target, ins)
        return
    between = target.with_name(target.name + BETWEEN)
    try:
        transcode(source, between, EXPLICIT_LE)
        _write(between, target, ins)
    finally:
        between.unlink(missing_ok=True)


def _write(source: Path, target: Path, ins: Ins) -> None:
    with mapped(source) as buffer:
        meta = read_meta(buffer)
        layout = read_layout(buffer, meta)
        end = layout.data.start if layout.data is not None else len(buffer)
        change = with_ins(buffer, ins)
        header = change.head + buffer[change.rest : end]
    try:
        dataset = pydicom.dcmread(io.BytesIO(header), stop_before_pixels=True)
        _lighten(dataset)
        dataset.add_new(_AVAILABLE_SYNTAX, "UI", meta.transfer_syntax)
        described = dataset.to_json_dict(suppress_invalid_tags=True)
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, OSError) as error:
        raise Refused("Image DICOM illisible : en-tête mal formé", code="dicom-syntax") from error
    target.write_text(json.dumps(described, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def _lighten(dataset: Dataset) -> None:
    def visit(parent: Dataset, element: DataElement) -> None:
        long_binary = element.VR in _BINARY and len(element.value or b"") > _MAX_INLINE
        if long_binary or element.tag.element == 0:
            del parent[element.tag]

    dataset.walk(visit)
