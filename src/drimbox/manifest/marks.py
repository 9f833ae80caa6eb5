"""Which instances of a manifest are key images, from the key-image notes of the study (standards.md A.5, KIN).

Only what belongs to the manifest is carried: a note selects instances of other studies, or some that the PACS holds no
longer, and these are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from drimbox.manifest.encoding import one_line
from drimbox.manifest.manifest import KeyMark
from drimbox.pacs.keynotes import Concept, KeyNote

# The text stands under every instance that its note flags: a sentence, not a report.
MAX_TEXT = 1024
_CUT = " (...)"
_CODE_ROOM, _MEANING_ROOM = 16, 64


def key_marks(instances: Iterable[str], notes: Sequence[KeyNote]) -> tuple[KeyMark, ...]:
    """The marks of the instances that a manifest lists (SOP Instance UIDs, in its order).

    Rejections make none, nor does a note without a title that can be written: nobody could tell why it flags.
    """
    found: dict[str, list[KeyMark]] = {uid: [] for uid in instances}
    for note in sorted((n for n in notes if n.flags and n.sop_uid in found), key=lambda n: n.sop_uid):
        title, text = _title(note.title), _text(note.description)
        if title is None:
            continue
        for uid in note.selected & found.keys() - {note.sop_uid}:
            found[uid].append(KeyMark(uid, note.sop_uid, note.series_uid, title, text))
    return tuple(mark for marks in found.values() for mark in marks)


def _title(title: Concept) -> Concept | None:
    """The title as a Code Sequence can hold it; None for one that would have to be cut."""
    codes = (title.code, title.scheme)
    if not all(c and c == one_line(c) and len(c) <= _CODE_ROOM for c in codes):
        return None
    meaning = one_line(one_line(title.meaning)[:_MEANING_ROOM])
    return Concept(title.code, title.scheme, meaning or title.code)


def _text(text: str) -> str:
    lines = "\n".join(map(one_line, re.split(r"\r\n|\r|\n", text))).strip()
    return lines if len(lines) <= MAX_TEXT else lines[: MAX_TEXT - len(_CUT)].rstrip() + _CUT
