"""What a walk found, line by line, as a table that any program reads; nothing in it is health data."""

from __future__ import annotations

from collections.abc import AsyncIterator

from drimbox.foundation.clock import iso_utc
from drimbox.reconciliation.walk import Finding
from drimbox.reconciliation.walks import Walks
from drimbox.reconciliation.words import FINDINGS

HEAD = ("structure", "study_uid", "finding", "detail", "at", "meaning")
_PAGE = 500


async def lines(walks: Walks, walk_id: int, *, kind: str = "") -> AsyncIterator[tuple[str, ...]]:
    """Every line, a page at a time: a walk of a large archive may have found much."""
    after = (0, "")
    while page := await walks.found(walk_id, after=after, kind=kind, limit=_PAGE):
        for found in page:
            yield (
                found.structure,
                found.study_uid,
                found.kind,
                _harmless(found.detail),
                iso_utc(found.at),
                FINDINGS[Finding(found.kind)],
            )
        after = (page[-1].position, page[-1].kind)


def _harmless(text: str) -> str:
    """A cell that a spreadsheet does not take for a formula: a peer's code may be anything."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text
