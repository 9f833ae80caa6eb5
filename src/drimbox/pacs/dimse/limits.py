"""What a peer may make us hold: every reader of this room is given one of these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are in bytes. Anything larger ends the association with A-ABORT, before it is kept."""

    pdu_length: int = 131_072
    """Longest P-DATA-TF that we announce and take (variable field, PS3.8 D.1)."""
    associate_length: int = 262_144
    """Longest A-ASSOCIATE-RQ or -AC: 128 contexts with thirty transfer syntaxes each take about 110 kB."""
    contexts: int = 128
    """Presentation contexts of one association: all the odd numbers of one byte (PS3.8 9.3.2.2)."""
    transfer_syntaxes: int = 64
    """Transfer syntaxes of one presentation context."""
    user_items: int = 512
    """Sub-items of the user information (roles and extended negotiations come one per SOP class)."""
    command_length: int = 16_384
    """Longest DIMSE command set: the longest real one, with an error comment, is under 1 kB."""
    identifier_length: int = 1_048_576
    """Longest data set that is held in memory: a C-FIND answer."""
