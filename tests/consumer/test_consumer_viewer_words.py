"""Every word that OHIF asks its translation for is said in French, by its own resource or by ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from drimbox.consumer.web.statics import PAGES

# What never starts here: other modes, the study list, another generation of widgets.
_ELSEWHERE = re.compile(
    r"node_modules|i18n/src|platform/ui/|\.\./\.\./ui/|WorkList|StudyList|basic-(?:dev|test)-mode|microscopy|preclinical"
)
_MODULE = re.compile(r";// CONCATENATED MODULE: (\S+)|\n\d+\(__?\w+")
_QUOTED = r"""(?:'((?:[^'\\\n]|\\.)*)'|"((?:[^"\\\n]|\\.)*)")"""
_ASKED = re.compile(r"(?<![\w$])(?:t|[\w$]+(?:\.[\w$]+)*\.t)\(\s*" + _QUOTED)
_SPACES = re.compile(r"(?:use|with)Translation[^(]*\)?\(([^)]*)\)")
_OWN = re.compile(r"fr/(\w+)\.json\nvar \w+ = JSON\.parse\('(.*)'\)")
_NAME = re.compile(r"['\"](\w+)['\"]")
_ENGLISH = re.compile(
    r"\b(?:the|of|and|with|this|your|not|click|select|add|delete|show|hide|measurements?|study|viewport|series is|"
    r"untrack\w*|track\w*|settings|length|window|tool|save|cancel|close|loading|error|please|image is)\b",
    re.IGNORECASE,
)

Words = dict[str, dict[str, str]]


def ours() -> Mapping[str, dict[str, dict[str, str]]]:
    text = (PAGES / "ohif-words.js").read_text("utf-8")
    found: dict[str, dict[str, dict[str, str]]] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return found


def french(bundle: str) -> Words:
    """OHIF's own French, ours above it."""
    words: Words = {}
    for name, text in _OWN.findall(bundle):
        words[name] = json.loads(text.replace("\\'", "'").replace("\\\\", "\\"))
    assert len(words) > 20
    for name, more in ours()["namespaces"].items():
        words.setdefault(name, {}).update(more)  # type: ignore[arg-type]
    return words


def modules(folder: Path) -> Iterator[tuple[str, str]]:
    """The modules of OHIF itself, by name, with their text."""
    for path in sorted(folder.glob("*.js")):
        text = path.read_text("utf-8")
        starts = [*((m.start(), m[1] or "") for m in _MODULE.finditer(text)), (len(text), "")]
        for (start, name), (end, _) in pairwise(starts):
            if name.startswith(".") and not _ELSEWHERE.search(name):
                yield name, text[start:end]


@pytest.mark.requirement("DB.VI-CO.41")
def test_what_ohif_asks_for_is_there_in_french(viewer_dir: Path) -> None:
    (bundle,) = viewer_dir.glob("app.bundle.*.js")
    words = french(bundle.read_text("utf-8"))
    asked, missing = 0, set()
    for name, text in modules(viewer_dir):
        spaces = [each for found in _SPACES.findall(text) for each in _NAME.findall(found)] or ["translation"]
        for one, other in _ASKED.findall(text):
            key = (one or other).replace("\\'", "'").replace('\\"', '"')
            space, _, rest = key.partition(":")
            places, wanted = ([space], rest) if rest and space.isalpha() else (spaces, key)
            asked += 1
            if not any(wanted in words.get(place, {}) for place in places):
                missing.add(f"{places[0]}:{wanted} ({name})")
    assert asked > 300
    assert missing == set()


def test_our_words_are_french() -> None:
    said = ours()
    values = [*said["phrases"].values(), *(v for each in said["namespaces"].values() for v in dict(each).values())]
    assert [v for v in values if isinstance(v, str) and _ENGLISH.search(re.sub(r"{{.*?}}", "", v))] == []
