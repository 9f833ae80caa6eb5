"""What the service says of itself: Retrieve Capabilities and health (PS3.18 8.9; DB.SO.103; decision 20)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from drimbox.dicom.syntaxes import FRAME_MEDIA, FRENCH_PROFILE
from drimbox.foundation.xml import Builder, Element, to_bytes
from drimbox.images.media import KOS_HEADER

_WADL = "http://wadl.dev.java.net/2009/02"
_MULTIPART = 'multipart/related; type="{}"'
_DICOM = (_MULTIPART.format("application/dicom"),)
_INSTANCE = (*_DICOM, "application/dicom")
_FRAMES = (*(_MULTIPART.format(media) for media in FRAME_MEDIA), *FRAME_MEDIA, *_INSTANCE)
_JSON = ("application/dicom+json",)

#: Each resource below the base with the media types of its answer, the default first.
_RESOURCES = {
    "studies/{study}": _DICOM,
    "studies/{study}/metadata": _JSON,
    "studies/{study}/series/{series}": _DICOM,
    "studies/{study}/series/{series}/metadata": _JSON,
    "studies/{study}/series/{series}/instances/{instance}": _INSTANCE,
    "studies/{study}/series/{series}/instances/{instance}/metadata": _JSON,
    "studies/{study}/series/{series}/instances/{instance}/frames/{frames}": _FRAMES,
}


def as_wadl(base_path: str) -> bytes:
    """The capabilities as WADL, the default of PS3.18 8.9.3."""
    wadl = Builder({"wadl": _WADL}, "wadl")
    resources = [_resource(wadl, path, media) for path, media in _RESOURCES.items()]
    return to_bytes(wadl("application", wadl("resources", *resources, base=base_path)))


def as_json(base_path: str, checks: Mapping[str, bool]) -> bytes:
    """The capabilities and the health as JSON."""
    content: dict[str, Any] = {
        "status": "ok" if all(checks.values()) else "unavailable",
        "checks": {name: "ok" if well else "unavailable" for name, well in checks.items()},
        "base": base_path,
        "header": KOS_HEADER,
        "transferSyntaxes": list(FRENCH_PROFILE),
        "resources": [
            {"path": path, "methods": ["GET"], "mediaTypes": list(media)} for path, media in _RESOURCES.items()
        ],
    }
    return json.dumps(content).encode()


def health(checks: Mapping[str, bool]) -> bytes:
    """The health alone as JSON."""
    words = {name: "ok" if well else "unavailable" for name, well in checks.items()}
    return json.dumps({"status": "ok" if all(checks.values()) else "unavailable", "checks": words}).encode()


def _resource(wadl: Builder, path: str, media: Sequence[str]) -> Element:
    header = {"name": KOS_HEADER, "style": "header", "required": "true"}
    return wadl(
        "resource",
        wadl(
            "method",
            wadl(
                "request",
                wadl("param", name="Accept", style="header"),
                wadl("param", name="Authorization", style="header", required="true"),
                wadl("param", **header),
            ),
            wadl("response", *(wadl("representation", mediaType=each) for each in media), status="200"),
            name="GET",
        ),
        path=path,
    )
