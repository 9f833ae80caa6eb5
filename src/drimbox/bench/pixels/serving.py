"""The rows of WADO-RS: from the cache, from the PACS, in other syntaxes, the metadata, many slow clients."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from drimbox.bench.pixels import images, peers
from drimbox.bench.pixels.box import Bare, Box, Neighbours
from drimbox.bench.pixels.client import Address, Fetched, as_stored, fetch
from drimbox.bench.pixels.comparison import BEFORE, Comparison, Goal
from drimbox.bench.pixels.images import Batch
from drimbox.bench.pixels.load import CLIENT, US, Load, mean, ourselves, watched
from drimbox.bench.usage import resident
from drimbox.foundation.errors import Unavailable
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.association import Interrupt, Peer
from drimbox.pacs.dimse.client import ClientAssociation
from drimbox.pacs.identifier import Tag, encoder

_JSON = "application/dicom+json"
_ORTHANC, _PROXIED, _BARE = "Orthanc", "Orthanc behind nginx", "bare"
_TLS = {False: "clear", True: "mutual TLS"}
# Name, UID, floor and aim of the goals, in images of 512 x 512 a second.
_SYNTAXES = (
    ("HTJ2K", images.HTJ2K, 200.0, 550.0),
    ("JPEG-LS", images.JPEG_LS, 200.0, 310.0),
    ("JPEG lossless", images.JPEG_LOSSLESS, 200.0, None),
)


def path_of(batch: Batch, rest: str = "") -> str:
    """The series of a batch."""
    return f"/studies/{batch.study_uid}/series/{batch.series_uid}{rest}"


@dataclass(frozen=True, slots=True)
class Servers:
    """What serves the same series beside the box: Orthanc in the clear; the same behind nginx over mutual TLS, for
    Debian's own dies of the first request over TLS (None: nginx is not installed); the bare server of files, which is
    given the same cipher as the box: what can be had at all here."""

    orthanc: Address
    proxied: Address | None
    bare: Bare

    def beside(self, *, tls: bool) -> tuple[str, dict[str, Address]]:
        """The one that the goals are about, and all by name."""
        found = {_ORTHANC: self.orthanc, _BARE: self.bare.address(tls=tls)}
        if tls and self.proxied is not None:
            return _PROXIED, {_PROXIED: self.proxied, **found}
        return _ORTHANC, found


def cached(box: Box, servers: Servers, batch: Batch, rounds: int) -> list[Comparison]:
    """A series that the box has on its disk, in clear and over mutual TLS."""
    rows = []
    _have(box, batch)
    for tls in (False, True):
        row = Comparison(f"WADO-RS, cached: {batch.name}, {batch.megabytes:.0f} MB, {_TLS[tls]}", "MB/s", True)
        address = box.address(batch, tls=tls)
        rival, beside = servers.beside(tls=tls)
        row.floor, row.aim = Goal(times=1.5, beside=rival), Goal(times=2.5, beside=rival)
        for one in (address, *beside.values()):
            fetch(one, path_of(batch), as_stored())
        theirs = {name: partial(_rate, one, batch) for name, one in beside.items()}
        _in_turns(row, box, rounds, partial(_rate, address, batch), theirs)
        rows.append(row)
    clear, secure = rows
    if secure.median < 0.8 * clear.median and secure.limit.startswith("CPU"):
        secure.limit = "TLS"
    return rows


def _have(box: Box, batch: Batch) -> None:
    """Have a series in the box's cache."""
    fetch(box.address(batch, tls=False), path_of(batch), as_stored())
    box.settle()


def _rate(address: Address, batch: Batch) -> float:
    return fetch(address, path_of(batch), as_stored()).rate


def _in_turns(
    row: Comparison, box: Box, rounds: int, ours: Callable[[], float], theirs: Mapping[str, Callable[[], float]]
) -> None:
    """Ours and theirs one after the other, each round: what else the machine has to do meets both."""
    shares: list[Load] = []
    for _ in range(rounds):
        with watched({US: box.pids, CLIENT: ourselves}) as load:
            row.ours.append(ours())
        shares.append(load)
        for name, measure in theirs.items():
            row.peers.setdefault(name, []).append(measure())
    whole = mean(shares)
    row.limit, row.shares = whole.limit(), whole.cores


def uncached(box: Box, near: Neighbours, batch: Batch, folder: Path, rounds: int) -> list[Comparison]:
    """A series that must come by C-MOVE first, beside the same move to storescp and to a bare receiver."""
    whole = Comparison(f"WADO-RS, not cached, by C-MOVE from a default Orthanc: {batch.name}", "s", False)
    whole.floor, whole.aim = Goal(times=15, beside="storescp"), Goal(times=30, beside="storescp")
    first = Comparison(f"WADO-RS, not cached, first byte: {batch.name}", "s", False)
    first.floor, first.aim = Goal(plus=0.05, beside="bare C-MOVE"), Goal(plus=0.01, beside="bare C-MOVE")
    with peers.running(peers.storescp(near.storescp_port, folder / "storescp"), near.storescp_port, folder / "log"):
        whole.peers["storescp"] = [peers.moved(near.dimse, "STORESCP", batch.study_uid)]
    place = folder / "bare"
    with peers.running(peers.ours("bare", near.bare_port, place), near.bare_port, folder / "log"):
        for _ in range(rounds):
            seconds, began = _moved(near, batch, place)
            whole.peers.setdefault("bare C-MOVE", []).append(seconds)
            first.peers.setdefault("bare C-MOVE", []).append(began)
    address = box.address(batch, tls=True)
    # What a box does at its very first request, once in its life, is not what is measured.
    fetch(address, path_of(batch), as_stored())
    for _ in range(rounds):
        box.forget(batch)
        with watched({US: box.pids, _ORTHANC: lambda: near.pids, CLIENT: ourselves}) as load:
            fetched = fetch(address, path_of(batch), as_stored())
        whole.ours.append(fetched.seconds)
        first.ours.append(fetched.first)
        whole.limit, whole.shares = load.limit(_ORTHANC), load.cores
    began = statistics.median(first.peers["bare C-MOVE"])
    first.limit = "PACS" if began >= first.median / 2 else "CPU"
    return [whole, first]


def _moved(near: Neighbours, batch: Batch, place: Path) -> tuple[float, float]:
    """Seconds until a move to the bare receiver was over, and until its first image was whole."""
    title, port = near.dimse
    begun = time.monotonic()
    with ClientAssociation(
        Peer("banc", "127.0.0.1", port, title, "MOVESCU"), (uids.STUDY_ROOT_MOVE,), Interrupt()
    ) as one:
        key = {Tag.STUDY_UID: batch.study_uid, Tag.SERIES_UID: batch.series_uid}
        for answer in one.move(
            uids.STUDY_ROOT_MOVE, "BARE", encoder("SERIES", key), message_id=1, alive=time.monotonic
        ):
            last = answer.response.status
        seconds = time.monotonic() - begun
    if last:
        raise Unavailable("Orthanc n'a pas tout envoyé au récepteur nu.", code="bench-incomplete")
    return seconds, float((place / "first").read_text()) - begun


def transcoded(box: Box, near: Neighbours, batch: Batch, rounds: int, *, goals: bool) -> list[Comparison]:
    """A cached series asked for in other syntaxes, on all cores, beside Orthanc where it can.

    ``goals``: it is the series that the goals are about.
    """
    rows = []
    _have(box, batch)
    for name, syntax, floor, aim in _SYNTAXES:
        row = Comparison(f"transcoding to {name}, {len(batch.files):,} {batch.name}", "img/s", True)
        if goals:
            row.floor, row.aim = Goal(value=floor), Goal(value=aim) if aim else None
        address = box.address(batch, tls=False)
        # The workers are started.
        fetch(address, path_of(batch), as_stored(syntax))
        # Debian's Orthanc refuses HTJ2K.
        theirs = {_ORTHANC: partial(_images_a_second, near.dicomweb, batch, syntax)} if syntax != images.HTJ2K else {}
        _in_turns(row, box, rounds, partial(_images_a_second, address, batch, syntax), theirs)
        rows.append(row)
    return rows


def _images_a_second(address: Address, batch: Batch, syntax: str) -> float:
    return len(batch.files) / fetch(address, path_of(batch), as_stored(syntax)).seconds


def metadata(box: Box, near: Neighbours, batch: Batch, rounds: int) -> Comparison:
    """The headers of a series as JSON."""
    row = Comparison(f"/metadata: {batch.name}, {len(batch.files):,} images", "s", False)
    row.floor, row.aim = Goal(times=5, beside=_ORTHANC), Goal(times=20, beside=_ORTHANC)
    address = box.address(batch, tls=False)
    _have(box, batch)
    fetch(address, path_of(batch, "/metadata"), _JSON)

    def seconds(server: Address) -> float:
        return fetch(server, path_of(batch, "/metadata"), _JSON).seconds

    _in_turns(row, box, rounds, partial(seconds, address), {_ORTHANC: partial(seconds, near.dicomweb)})
    return row


def crowd(box: Box, batches: Sequence[Batch], seconds: float) -> Comparison:
    """The box's memory, workers included, while slow clients pull as many different series, none of them cached."""
    row = Comparison(
        f"memory while {len(batches)} clients pull {len(batches)} series of {batches[0].megabytes:.0f} MB slowly",
        "MB",
        False,
    )
    row.floor, row.aim = Goal(value=400), Goal(value=200)
    before = _memory(box)

    def pull(batch: Batch) -> Fetched:
        address: Address = box.address(batch, tls=True)
        return fetch(address, path_of(batch), as_stored(), pace=batch.bytes / seconds)

    most = before
    with ThreadPoolExecutor(len(batches)) as threads, watched({US: box.pids, CLIENT: ourselves}) as load:
        pulls = [threads.submit(pull, batch) for batch in batches]
        while not all(one.done() for one in pulls):
            most = max(most, _memory(box))
            time.sleep(0.1)
        for one in pulls:
            one.result()
    row.ours.append(most)
    row.peers[BEFORE] = [before]
    row.limit, row.shares = load.limit(), load.cores
    row.note = "resident memory of the server and its workers, at its highest"
    return row


def _memory(box: Box) -> float:
    return sum(resident(pid) for pid in box.pids()) / 1e6
