"""How much the cache may keep, for how long, and how far a retrieve may run ahead of its readers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds.

    ``max_bytes`` is the size of the cache (0: none is kept, retrieves are still shared), ``max_age`` how long an image
    stays after it came, ``min_free`` what must stay free on its disk. ``ahead_bytes`` and ``ahead_instances`` bound how
    far a retrieve runs ahead of the fastest of its readers. ``whole``: a retrieve goes on when its last reader has
    left. ``confirm_for`` is how long the PACS's list of a study is believed, ``by_notes``: the PACS is not asked, its
    rejection notes are relied on (decision 25).
    """

    max_bytes: int = 50 * 2**30
    max_age: float = 14 * 86400.0
    min_free: int = 2**30
    ahead_bytes: int = 512 * 2**20
    ahead_instances: int = 1000
    whole: bool = True
    confirm_for: float = 60.0
    by_notes: bool = False
    tables_bytes: int = 32 * 2**20
