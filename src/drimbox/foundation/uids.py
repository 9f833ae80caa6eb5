"""The one way to make identifiers: DICOM UIDs, OIDs, XML ids, opaque tokens."""

from __future__ import annotations

import re
import secrets
import uuid

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
UID_MAX = 64


def is_uid(text: str) -> bool:
    """Is this a DICOM UID or an OID: digits and dots, no leading zeros, 64 characters at most (PS3.5 9.1)?"""
    return len(text) <= UID_MAX and _UID.fullmatch(text) is not None


def new_uid(root: str = "") -> str:
    """A fresh UID: ``2.25.<uuid>`` (PS3.5 B.2), or ``root.<random>`` under the site's own root; 64 characters."""
    number = uuid.uuid4().int
    if not root:
        return f"2.25.{number}"
    room = UID_MAX - len(root) - 1
    # At least 20 digits (66 random bits) must fit, or two boxes could meet.
    if room < 20:
        raise ValueError(f"UID root too long to make unique UIDs under it: {root}")
    return f"{root}.{number % 10 ** (room - 1) + 10 ** (room - 1)}"


def new_xml_id() -> str:
    """A fresh xs:ID: an NCName, so it begins with a letter or ``_``."""
    return f"_{uuid.uuid4()}"


def new_uuid_urn() -> str:
    """A fresh ``urn:uuid:…``."""
    return f"urn:uuid:{uuid.uuid4()}"


def new_secret() -> str:
    """A fresh unguessable URL-safe word of 256 bits."""
    return secrets.token_urlsafe(32)
