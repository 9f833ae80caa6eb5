"""Runs the targets in turn, each in a process of its own, watched from outside.

A process that an input killed, or that does not come back from one, is ended here; the input is read from its slate.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from fuzz import corpus
from fuzz.loop import Finding, Input, Slate

SLICE = 60.0
"""Seconds that a target gets before the next one comes."""
_PATIENCE = 300.0
_GRACE = 20.0


@dataclass(slots=True)
class Tally:
    """What all runs of one target did together."""

    executions: int = 0
    seconds: float = 0.0
    lines: int = 0
    slowest: float = 0.0
    findings: dict[str, Path | None] = field(default_factory=dict)
    unstarted: int = 0
    """How often its service or its process did not come up."""


class NotStarted(Exception):
    """The worker of a target ended before its first input."""


@dataclass(frozen=True, slots=True)
class Order:
    """One run of one target. ``seconds`` are the processor's in a burst, the clock's in a campaign."""

    target: str
    seed: str
    seconds: float
    burst: bool


def run(minutes: float, names: Sequence[str], say: Callable[[str], None]) -> int:
    """Fuzz for ``minutes``; the number of different findings, all kept, and of targets that never ran."""
    tallies = {name: Tally() for name in names}
    end = time.monotonic() + minutes * 60
    slice_ = max(1.0, min(SLICE, minutes * 60 / len(names)))
    round_ = 0
    while time.monotonic() < end:
        round_ += 1
        for name in names:
            left = end - time.monotonic()
            if left <= 0:
                break
            seed = f"{time.time_ns()}"
            try:
                told = work(Order(name, seed, min(slice_, left), burst=False))
            except NotStarted as error:
                tallies[name].unstarted += 1
                say(f"{name} : pas démarré\n{error}")
                continue
            _count(tallies[name], told)
            for finding in told.findings:
                if finding.signature not in tallies[name].findings:
                    path = corpus.keep(name, finding)
                    tallies[name].findings[finding.signature] = path
                    say(f"{name} : {finding.signature}\n  gardé dans {path}\n{finding.detail}")
        say(table(tallies))
    never = [name for name, tally in tallies.items() if tally.unstarted and not tally.executions]
    if never:
        say(f"jamais essayé : {', '.join(never)}")
    return sum(len(tally.findings) for tally in tallies.values()) + len(never)


def table(tallies: dict[str, Tally]) -> str:
    """The figures of all targets."""
    rows = [
        f"{'cible':<18}{'essais':>12}{'par s':>9}{'lignes':>8}{'défauts':>9}{'le plus lent':>14}{'non démarré':>13}"
    ]
    for name, t in tallies.items():
        rate = t.executions / t.seconds if t.seconds else 0
        rows.append(
            f"{name:<18}{t.executions:>12}{rate:>9.0f}{t.lines:>8}{len(t.findings):>9}{t.slowest * 1000:>11.1f} ms"
            f"{t.unstarted:>13}"
        )
    total = sum(t.executions for t in tallies.values())
    found = sum(len(t.findings) for t in tallies.values())
    rows.append(f"{'ensemble':<18}{total:>12}{'':>9}{'':>8}{found:>9}")
    return "\n".join(rows)


@dataclass(frozen=True, slots=True)
class Told:
    """What a worker said, or what could still be learned after its end."""

    executions: int
    seconds: float
    lines: int
    slowest: float
    findings: tuple[Finding, ...]


def work(order: Order) -> Told:
    """Run one worker to its end, or end it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="drimbox-fuzz-") as folder:
        slate = Slate(Path(folder, "slate"))
        command = [sys.executable, "-m", "fuzz", "worker", json.dumps(_as_json(order)), str(Path(folder, "slate"))]
        paths = os.pathsep.join(str(corpus.ROOT / part) for part in ("src", "tests"))
        with Path(folder, "errors").open("w+b") as errors:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": paths, "TMPDIR": folder, "PYTHONHASHSEED": "0"},
                cwd=corpus.ROOT,
            )
            hung = _watch(process, slate, order)
            output, _ = process.communicate()
            errors.seek(0)
            stderr = errors.read()[-4000:].decode("utf-8", "replace")
        number, last = slate.number(), slate.read()
        slate.close()
    taken = time.monotonic() - began
    lines = [line for line in output.splitlines() if line.startswith(b"{")]
    if not hung and process.returncode == 0 and lines:
        return _read(json.loads(lines[-1]), taken)
    signature = "hang" if hung else f"died:{process.returncode}"
    if number == 0:
        raise NotStarted(stderr)
    return Told(number, taken, 0, 0.0, (Finding(signature, stderr, last),))


def _watch(process: subprocess.Popen[bytes], slate: Slate, order: Order) -> bool:
    """Wait for the end; True when the process had to be ended because it did not come back from an input."""
    watched = psutil.Process(process.pid)
    number, since, used = -1, time.monotonic(), 0.0
    while True:
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            pass
        else:
            return False
        try:
            times = watched.cpu_times()
        except psutil.Error:
            continue
        now = slate.number()
        if now != number:
            number, since, used = now, time.monotonic(), times.user + times.system
            continue
        # The smaller form of a finding is looked for without a new number.
        busy = times.user + times.system - used
        if busy > 4 * _GRACE or time.monotonic() - since > _PATIENCE:
            process.kill()
            return True


def _as_json(order: Order) -> dict[str, object]:
    return {"target": order.target, "seed": order.seed, "seconds": order.seconds, "burst": order.burst}


def _read(told: dict[str, object], taken: float) -> Told:
    findings = tuple(
        Finding(f["signature"], f["detail"], Input(base64.b64decode(f["data"]), f["official"]))
        for f in told["findings"]  # type: ignore[attr-defined]
    )
    return Told(int(told["executions"]), taken, int(told["lines"]), float(told["slowest"]), findings)  # type: ignore[call-overload,arg-type]


def _count(tally: Tally, told: Told) -> None:
    tally.executions += told.executions
    tally.seconds += told.seconds
    tally.lines = max(tally.lines, told.lines)
    tally.slowest = max(tally.slowest, told.slowest)
