"""The whole of ``drimbox bench pixels``, row after row."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drimbox.bench import rows
from drimbox.bench.pixels import images, peers, serving, storing
from drimbox.bench.pixels import picture as drawn
from drimbox.bench.pixels import report as reports
from drimbox.bench.pixels.box import Keys, Neighbours, bare, box, neighbours
from drimbox.bench.pixels.comparison import Comparison, Goal
from drimbox.bench.pixels.images import Batch, Plan
from drimbox.bench.pixels.load import US
from drimbox.bench.pixels.proxied import secured
from drimbox.bench.rows import Row

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured, and how often: ``slow`` for the peers that take a minute."""

    plan: Plan = field(default_factory=Plan)
    rounds: int = 5
    slow: int = 1
    pynetdicom: int = 3
    """Rows of C-STORE in that it is measured in."""
    clients: int = 8
    crowd_seconds: float = 20.0


QUICK = Options(plan=images.QUICK, rounds=1, slow=1, pynetdicom=1, clients=3, crowd_seconds=1.5)


def measured(
    home: Path, rounds: int, *, quick: bool, picture: Path | None, report: Path | None, others: Sequence[Row] = ()
) -> str:
    """Measure, write what is asked for, and give the table; ``others`` go into the report too.

    Raises ``Misconfigured`` where a peer is not installed, ``Unavailable`` where something fails, ``OSError``.
    """
    options = QUICK if quick else Options(rounds=rounds)
    found = measure(options, images.shared_folder(home), lambda text: print(f"... {text}", file=sys.stderr, flush=True))
    machine = rows.machine()
    if report is not None:
        reports.write(report, found, others)
    if picture is not None:
        drawn.save(picture, found, machine)
    return f"{machine}\n\n{reports.table(found)}\n"


def measure(options: Options, shared: Path | None, say: Say) -> list[Comparison]:
    """Every row. Raises ``Misconfigured`` where a peer is not installed, ``Unavailable`` where something fails."""
    peers.require_dcmtk()
    with tempfile.TemporaryDirectory(prefix="drimbox-bench-") as name:
        folder = Path(name)
        say("making the images")
        batches = _Batches.made(folder / "images", options.plan, shared)
        found = _in(folder, batches, options, say)
        with neighbours(folder / "orthanc") as near:
            found += _out(near, batches, options, say)
            found += _served(folder, near, batches, options, say)
    return found


@dataclass(frozen=True, slots=True)
class _Batches:
    reference: Batch
    ct: Batch
    mr: Batch
    ultrasound: Batch
    mammography: Batch

    @staticmethod
    def made(folder: Path, plan: Plan, shared: Path | None) -> _Batches:
        return _Batches(
            images.reference(folder / "reference", plan, shared),
            images.ct(folder / "ct", plan),
            images.mr(folder / "mr", plan),
            images.ultrasound(folder / "ultrasound", plan),
            images.mammography(folder / "mammography", plan),
        )


def _in(folder: Path, batches: _Batches, options: Options, say: Say) -> list[Comparison]:
    fast, once = options.rounds, options.slow
    each = [{US: fast, "storescp": once} | ({"pynetdicom": once} if n < options.pynetdicom else {}) for n in range(3)]
    say("C-STORE in, without Nagle")
    quick = storing.stored_in(folder / "in", batches.ct, each[0], nagle=False, images=False)
    quick.floor, quick.aim = Goal(value=300), Goal(value=550)
    say("C-STORE in, from a default storescu")
    default = storing.stored_in(folder / "in", batches.ct, each[1], nagle=True, images=False)
    default.floor, default.aim = Goal(value=200), Goal(value=350)
    say("C-STORE in, small MR")
    small = storing.stored_in(folder / "in", batches.mr, each[2], nagle=False, images=True)
    small.floor, small.aim = Goal(value=800), Goal(value=1700)
    return [quick, default, small]


def _out(near: Neighbours, batches: _Batches, options: Options, say: Say) -> list[Comparison]:
    say("C-STORE out to Orthanc")
    batch = batches.reference
    rounds = {US: options.rounds, "storescu": options.slow}
    return [storing.stored_out(near.dimse, batch, rounds, lambda: near.forget(batch), near.pids)]


def _served(folder: Path, near: Neighbours, batches: _Batches, options: Options, say: Say) -> list[Comparison]:
    others = (batches.ct, batches.ultrasound, batches.mammography)
    say("filling Orthanc")
    many = images.crowd(folder / "images" / "crowd", options.plan, options.clients)
    for batch in (*others, *many):
        storing.send(near.dimse, batch.files)
    rounds = options.rounds
    keys = Keys(folder / "pki")
    cached = (batches.reference, *others)
    files = {serving.path_of(batch): batch.files for batch in cached}
    with (
        box(folder / "box", near, keys, cached) as ours,
        bare(folder / "bare-http", keys, files) as least,
        secured(near.dicomweb, keys, folder / "nginx") as proxied,
    ):
        beside = serving.Servers(near.dicomweb, proxied, least)
        say("WADO-RS, not cached")
        rows = serving.uncached(ours, near, batches.reference, folder, rounds)
        say("WADO-RS, cached")
        for batch in cached:
            # An answer of a few milliseconds says little in a few rounds.
            rows += serving.cached(ours, beside, batch, rounds if batch.megabytes > 20 else 5 * rounds)
        say("transcoding")
        rows += serving.transcoded(ours, near, batches.ct, rounds, goals=True)
        rows += serving.transcoded(ours, near, batches.mammography, rounds, goals=False)
        say("metadata")
        rows.append(serving.metadata(ours, near, batches.reference, rounds))
    say("slow clients")
    # In a box of its own: what the other rows left in memory is not this one's.
    with box(folder / "box-crowd", near, keys, many) as ours:
        return [*rows, serving.crowd(ours, many, options.crowd_seconds)]
