"""What was found, as a table and as a file."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from drimbox.bench.pixels.comparison import BEFORE, Comparison, Goal, spread
from drimbox.bench.rows import Row, machine
from drimbox.picture.axes import readable

_HEAD = "| what | drimbox | spread | n | beside | floor | aim | reached | limit |"


def table(rows: Iterable[Comparison]) -> str:
    """In Markdown: medians and spread, what stands beside with how many times as good we are, goals, limit."""
    return "\n".join([_HEAD, "|" + "---|" * 9, *map(_line, rows)])


def beside(row: Comparison) -> str:
    """The peers with their medians, and how many times as good ours is."""
    return ", ".join(f"{name} {figure(row, name)}" for name in row.peers)


def figure(row: Comparison, peer: str) -> str:
    """The median of a peer, and how many times as good ours is, where it is a peer and not where we began."""
    text = f"{readable(statistics.median(row.peers[peer]))} {row.unit}"
    return text if peer == BEFORE else f"{text} (× {readable(row.times(peer))})"


def why(row: Comparison) -> str:
    """The limit, and the cores that each side kept busy."""
    cores = ", ".join(f"{side} {share:.2f}" for side, share in row.shares.items())
    return f"{row.limit} ({cores})" if cores else row.limit


def write(path: Path, rows: Sequence[Comparison], others: Iterable[Row] = ()) -> None:
    """Every value, for programs: goals and limit of each row, and the other measurements. Raises ``OSError``."""
    values = {row.what: {"unit": row.unit, "values": row.values} for row in others}
    content = {"machine": machine(), "rows": values, "pixels": [_described(row) for row in rows]}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), "utf-8")


def _line(row: Comparison) -> str:
    least, most = spread(row.ours)
    seen = f"{readable(least)} – {readable(most)}" if len(row.ours) > 1 else ""
    ours = f"{readable(row.median)} {row.unit}"
    goals = (_goal(row, row.floor), _goal(row, row.aim))
    cells = (row.what, ours, seen, str(len(row.ours)), beside(row), *goals, row.verdict, why(row))
    return f"| {' | '.join(cells)} |"


def _goal(row: Comparison, goal: Goal | None) -> str:
    return goal.text(row.unit) if goal is not None else ""


def _described(row: Comparison) -> dict[str, object]:
    return {
        "what": row.what,
        "unit": row.unit,
        "more_is_better": row.more_is_better,
        "drimbox": row.ours,
        "peers": row.peers,
        "floor": _goal(row, row.floor),
        "aim": _goal(row, row.aim),
        "reached": row.verdict,
        "limit": row.limit,
        "cores": dict(row.shares),
    }
