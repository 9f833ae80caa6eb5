"""C-STORE, in and out: the same senders and receivers, one side ours, one theirs."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from drimbox.bench.pixels import peers
from drimbox.bench.pixels.comparison import Comparison, Goal
from drimbox.bench.pixels.images import Batch
from drimbox.bench.pixels.load import US, Load, ended_children, ourselves, watched
from drimbox.foundation.errors import Unavailable
from drimbox.pacs.dimse.storing import Outgoing
from drimbox.pacs.header import outgoing
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.pacs.store import PacsStore

_TITLES = {US: "DRIMBOX", "storescp": "STORESCP", "pynetdicom": "PYNETDICOM"}


def stored_in(folder: Path, batch: Batch, rounds: Mapping[str, int], *, nagle: bool, images: bool) -> Comparison:
    """storescu to each receiver; in images a second, or in MB a second.

    Timed by the files themselves, from when the first was whole to when the last was: what programs take to start and
    to look through their folders is nobody's transfer.
    """
    sender = "default storescu" if nagle else "storescu without Nagle"
    unit = "img/s" if images else "MB/s"
    row = Comparison(f"C-STORE in, to disk: {len(batch.files):,} {batch.name}, {sender}", unit, True)
    for number in range(max(rounds.values())):
        for side in (side for side, count in rounds.items() if number < count):
            place = folder / f"{side}-{number}"
            load = _received(place, side, batch, nagle=nagle)
            value = _rate(place, images=images)
            shutil.rmtree(place)
            if side == US:
                row.ours.append(value)
                row.limit, row.shares = load.limit("storescu"), load.cores
            else:
                row.peers.setdefault(side, []).append(value)
    return row


def _received(place: Path, side: str, batch: Batch, *, nagle: bool) -> Load:
    port, title = peers.free_port(), _TITLES[side]
    place.mkdir(parents=True)
    awaited = place / "awaited.json"
    awaited.write_text(
        json.dumps({"study": batch.study_uid, "series": batch.series_uid, "instances": batch.instances}), "utf-8"
    )
    command = {
        US: peers.ours("receiver", port, title, place / "in", awaited),
        "storescp": peers.storescp(port, place / "in"),
        "pynetdicom": peers.ours("pynet", port, title, place / "in"),
    }[side]
    with peers.running(command, port, place / "log") as receiver:
        with peers.storing(port, title, batch.files[0].parent, nagle=nagle) as sender:
            before = ended_children()
            with watched({side: [receiver]}) as load:
                sender.wait()
            used = ended_children() - before
        # While it runs: what a retrieve has received goes with it.
        found = _written(place / "in")
    (place / "times.json").write_text(json.dumps(found))
    # What the sender did before it sent is in the time of the block, but not in that of the transfer.
    transfer = max(found[-1][0] - found[0][0], 1e-3) if found else load.seconds
    load.cores = {side: min(load.cores[side] * load.seconds / transfer, 1.0), "storescu": min(used / transfer, 1.0)}
    if len(found) < len(batch.files):
        reason = f"{side} n'a reçu que {len(found)} images sur {len(batch.files)} (voir {place / 'log'})."
        raise Unavailable(reason, code="bench-incomplete")
    return load


def _written(folder: Path) -> list[tuple[float, int]]:
    """When each file was written last, and its size."""
    found = (path.stat() for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return sorted((one.st_mtime, one.st_size) for one in found)


def _rate(place: Path, *, images: bool) -> float:
    """Of all files but the first, whose own transfer is not seen."""
    found: list[tuple[float, int]] = json.loads((place / "times.json").read_text())
    seconds = max(found[-1][0] - found[0][0], 1e-3)
    return (len(found) - 1) / seconds if images else sum(size for _, size in found[1:]) / 1e6 / seconds


def stored_out(
    pacs: tuple[str, int], batch: Batch, rounds: Mapping[str, int], forget: Callable[[], None], pids: Sequence[int]
) -> Comparison:
    """Into a default Orthanc: ours by one association and by four, storescu by its one."""
    row = Comparison(f"C-STORE out to a default Orthanc: {batch.name}, {batch.megabytes:.0f} MB", "s", False)
    row.floor, row.aim = Goal(times=3, beside="storescu"), Goal(times=5, beside="storescu")
    for _ in range(rounds["storescu"]):
        forget()
        begun = time.monotonic()
        folder = batch.files[0].parent
        with peers.storing(pacs[1], pacs[0], folder, nagle=True, syntax=_syntax(batch)):
            pass
        row.peers.setdefault("storescu", []).append(time.monotonic() - begun)
    for _ in range(rounds[US]):
        forget()
        with watched({US: ourselves, "Orthanc": pids}) as load:
            row.ours.append(send(pacs, batch.files))
        row.limit, row.shares = load.limit("Orthanc"), load.cores
    return row


def send(pacs: tuple[str, int], files: Sequence[Path], associations: int = 4) -> float:
    """Seconds to store files into a PACS as the box exports them. Raises what a store raises."""
    return asyncio.run(_sent(pacs, files, associations))


async def _sent(pacs: tuple[str, int], files: Sequence[Path], associations: int) -> float:
    link = PacsLink(Pacs("banc", "127.0.0.1", pacs[1], pacs[0]))
    try:
        begun = time.monotonic()
        instances: list[Outgoing] = [outgoing(path) for path in files]
        async with PacsStore(link, associations=associations).sending(instances) as results:
            async for sent in results:
                if not sent.stored:
                    raise Unavailable("Orthanc n'a pas pris une image.", code="bench-refused", peer_code=sent.code)
        return time.monotonic() - begun
    finally:
        link.close()


def _syntax(batch: Batch) -> str:
    return outgoing(batch.files[0]).transfer_syntax_uid
