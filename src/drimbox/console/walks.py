"""What the pages about walks through the archive stand on (DB.SO.28, DB.SO.31)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drimbox.reconciliation.acts import WalkActs
from drimbox.reconciliation.hours import Range
from drimbox.reconciliation.walks import Walks


@dataclass(frozen=True, slots=True)
class WalkRoom:
    """``rate``, ``address_rate`` and ``mode`` are what the form proposes, ``suspended`` the hours as configured."""

    acts: WalkActs
    walks: Walks
    hours: Sequence[Range] = ()
    suspended: Sequence[str] = ()
    mode: str = "repair"
    rate: int = 30
    address_rate: int = 60
