"""The page of bad days says what the screens say, and names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "bad-days.md").read_text("utf-8")
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
# The rooms that write what the radiologist reads.
SCREENS = ("consumer", "images", "importing", "manifest", "pacs")


def rows() -> list[list[str]]:
    found = [line.strip("|").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in found if row[0] != " what happens"]


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def plain(text: str) -> str:
    """As one line, whatever its line breaks, tags and apostrophes are."""
    # One literal over several lines of Python, then markup.
    text = re.sub(r"\"\s*\n\s*f?\"", "", text)
    text = re.sub(r"<[a-z/][^<>]*>", "", text)
    return re.sub(r"\s+", " ", text.replace("’", "'"))


def test_each_bad_day_has_a_test_and_each_test_is_there() -> None:
    known: dict[str, set[str]] = {}
    assert len(rows()) > 30
    for row in rows():
        assert len(row) == 4, row
        tests = TEST.findall(row[3])
        assert tests, row[0]
        for file, name in tests:
            path = ROOT / "tests" / file
            assert path.is_file(), file
            assert name in known.setdefault(file, functions_of(path)), (file, name)


def test_each_sentence_is_one_of_the_screens() -> None:
    sources = [
        path
        for room in SCREENS
        for path in (ROOT / "src" / "drimbox" / room).rglob("*")
        if path.suffix in {".py", ".html", ".js"}
    ]
    written = plain("\n".join(path.read_text("utf-8") for path in sources))
    said = [sentence for row in rows() for sentence in re.findall(r"« (.+?) »", row[1])]
    assert len(said) > 30
    for sentence in said:
        # How many there are is counted by the screen itself.
        assert plain(re.sub(r"^\d+ ", "", sentence)) in written, sentence
