"""DIMSE statuses: what each range means (PS3.7 Annex C, PS3.4 B.2.3, C.4.1.1.4, C.4.2.1.5)."""

from __future__ import annotations

from enum import Enum

SUCCESS = 0x0000
PENDING = 0xFF00
PENDING_KEYS_UNSUPPORTED = 0xFF01
CANCELLED = 0xFE00
SUBOPERATIONS_FAILED = 0xB000
"""C-MOVE ended, some sub-operations failed or warned."""

INVALID_INSTANCE = 0x0117
SOP_CLASS_NOT_SUPPORTED = 0x0122
NOT_AUTHORIZED = 0x0124
UNRECOGNIZED_OPERATION = 0x0211
OUT_OF_RESOURCES = 0xA700
CANNOT_COUNT_MATCHES = 0xA701
CANNOT_PERFORM_SUBOPERATIONS = 0xA702
MOVE_DESTINATION_UNKNOWN = 0xA801
DATASET_DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000


class Kind(Enum):
    """What a status says of its operation."""

    SUCCESS = "success"
    PENDING = "pending"
    CANCELLED = "cancelled"
    WARNING = "warning"
    FAILURE = "failure"


def kind(status: int) -> Kind:
    """The kind of a status; what no range names is a failure."""
    if status == SUCCESS:
        return Kind.SUCCESS
    if status in (PENDING, PENDING_KEYS_UNSUPPORTED):
        return Kind.PENDING
    if status == CANCELLED:
        return Kind.CANCELLED
    if status & 0xF000 == 0xB000 or status in (0x0001, 0x0107, 0x0116):
        return Kind.WARNING
    return Kind.FAILURE


def code(status: int) -> str:
    """The status as the conformance statements write it: ``A801H``."""
    return f"{status:04X}H"
