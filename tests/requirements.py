"""``docs/requirements.md``: every requirement, where it is met, and the tests that prove it (their own marks)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

_HEAD = """# Requirements

Every requirement of the minimum set (drafts of early 2023, by number), where it is met, what proves it, and what is
open; then the official exams and the decisions on open points. Written from the marks of the tests by
`./drimbox docs requirements`; what is asked and where it is met stands in `docs/requirements.tsv`.

| requirement | what is asked | where it is met | proved by | open |
|---|---|---|---|---|
"""


def marks(items: Iterable[pytest.Item]) -> dict[str, list[str]]:
    """Requirement -> the test functions that prove it."""
    found: dict[str, set[str]] = {}
    for item in items:
        name = item.nodeid.split("[")[0]
        for mark in item.iter_markers("requirement"):
            for identifier in mark.args:
                found.setdefault(identifier, set()).add(name)
    return {identifier: sorted(names) for identifier, names in found.items()}


def page(proofs: Mapping[str, list[str]], table: Path) -> str:
    """The page, in Markdown. Raises ``ValueError`` for a mark that names no known requirement, exam or decision."""
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    known = {row["id"] for row in rows}
    others = sorted(set(proofs) - known, key=_order)
    strange = [o for o in others if not (o.startswith(("exam:", "INS/")) or (o[0] == "D" and o[1:].isdigit()))]
    if strange:
        raise ValueError(f"marks name unknown requirements: {strange}")
    text = _HEAD
    for row in rows:
        where = f"`{row['where it is met']}`" if row["where it is met"] else ""
        cells = (row["id"], row["what is asked"], where, _tests(proofs, row["id"]), row["what is open"])
        text += f"| {' | '.join(cells)} |\n"
    text += "\n## Official exams, decisions, identity\n\n| what | proved by |\n|---|---|\n"
    for identifier in others:
        text += f"| {identifier} | {_tests(proofs, identifier)} |\n"
    return text


def _tests(proofs: Mapping[str, list[str]], identifier: str) -> str:
    return "<br>".join(f"`{name.removeprefix('tests/')}`" for name in proofs.get(identifier, []))


def _order(identifier: str) -> tuple[str, int, str]:
    digits = identifier[1:]
    return (identifier[:1], int(digits), "") if digits.isdigit() else (identifier[:1].lower() + "~", 0, identifier)
