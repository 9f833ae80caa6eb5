"""The judge decides by itself: it imports none of the rooms that it judges."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import drimbox.sandbox.dmp

MODULES = sorted(Path(drimbox.sandbox.dmp.__file__).parent.glob("*.py"))
ALLOWED = ("drimbox.foundation", "drimbox.sandbox.dmp")


@pytest.mark.parametrize("module", MODULES, ids=[m.stem for m in MODULES])
def test_module_stands_on_the_foundation_alone(module: Path) -> None:
    imported: list[str] = []
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            imported += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported.append(node.module or "")
    assert [name for name in imported if name.startswith("drimbox") and not name.startswith(ALLOWED)] == []
