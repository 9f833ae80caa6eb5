"""What WADO-RS between DRIMboxes says in headers; media types are read by the foundation."""

from __future__ import annotations

from drimbox.foundation.media_types import MediaType, parse_media_type, split_outside_quotes

__all__ = ["KOS_HEADER", "MediaType", "parse_media_type", "split_outside_quotes"]

#: The request header that carries the SOP Instance UID of the KOS (standards.md C.1).
KOS_HEADER = "KOS-SOPInstanceUID"
