"""Where the inputs of a target come from, and where what failed is kept."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from fuzz.loop import Finding, Input
from fuzz.target import Target

ROOT = Path(__file__).parents[2]
SEEDS = Path(__file__).parent / "seeds"
STATE = ROOT / "var" / "fuzz"
_LARGEST_SEED = 64 * 1024


def seeds(name: str) -> list[Path]:
    """The inputs that once failed."""
    folder = SEEDS / name
    return sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []


def starting(target: Target, *, official: bool, learned: bool) -> list[Input]:
    """What a run begins with: made samples, kept seeds; if asked, official samples and what earlier runs learned."""
    found = [Input(data) for data in target.samples()] + [Input(path.read_bytes()) for path in seeds(target.name)]
    if official:
        found += [Input(data, official=True) for data in _official(target)]
    if learned:
        found += list(_learned(target.name))
    return list(dict.fromkeys(found))


def _official(target: Target) -> Iterator[bytes]:
    folder = Path(os.environ.get("DRIMBOX_SHARED", ROOT.parent / "shared")) / "data"
    for pattern in target.official:
        for path in sorted(folder.glob(pattern)) if folder.is_dir() else ():
            if path.is_file() and path.stat().st_size < 4 * 2**20:
                yield target.official_form(path)


def _learned(name: str) -> Iterator[Input]:
    folder = STATE / "corpus" / name
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        yield Input(path.read_bytes(), official=path.name.startswith("official-"))


def learn(name: str, found: list[Input]) -> None:
    """Remember inputs for the next run; they stay out of the repository."""
    folder = STATE / "corpus" / name
    folder.mkdir(parents=True, exist_ok=True)
    for given in found:
        (folder / f"{'official-' if given.official else ''}{_digest(given.data)}").write_bytes(given.data)


def keep(name: str, finding: Finding) -> Path:
    """Keep an input that failed: as a seed of the repository, or out of it when official data went into it."""
    ours = not finding.input.official and len(finding.input.data) <= _LARGEST_SEED
    folder = SEEDS / name if ours else STATE / "findings" / name
    folder.mkdir(parents=True, exist_ok=True)
    words = re.sub(r"[^a-z0-9]+", "-", finding.signature.lower()).strip("-")[:60]
    path = folder / f"{words}-{_digest(finding.input.data)[:8]}"
    path.write_bytes(finding.input.data)
    return path


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
