"""Which images a KOS lists: read once, and remembered, since a KOS never changes under its UID."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping

from drimbox.images.gate import Target
from drimbox.images.ports import ArchivedKos, ReadManifest


class Listings:
    """The listings of the KOS asked for last, within ``most`` instances in all. For one event loop."""

    def __init__(self, read_manifest: ReadManifest, most: int = 50_000) -> None:
        self._read_manifest = read_manifest
        self._most = most
        self._known: OrderedDict[str, Mapping[str, frozenset[str]]] = OrderedDict()
        self._count = 0

    async def expected(self, kos: ArchivedKos, target: Target) -> frozenset[str]:
        """The instances that it lists of what is asked for; none at all for what is not in it. Raises ``Refused``."""
        listing = self._known.get(kos.kos_uid)
        if listing is None:
            listing = await asyncio.to_thread(self._read, kos.kos)
            self._remember(kos.kos_uid, listing)
        self._known.move_to_end(kos.kos_uid)
        series = [i for uid, i in listing.items() if target.series_uid in ("", uid)]
        listed = series[0] if len(series) == 1 else frozenset().union(*series)
        return listed & {target.instance_uid} if target.instance_uid else listed

    def _read(self, content: bytes) -> Mapping[str, frozenset[str]]:
        listing: dict[str, frozenset[str]] = {}
        for series in self._read_manifest(content).series:
            known = listing.get(series.series_uid, frozenset())
            listing[series.series_uid] = known | {i.sop_instance_uid for i in series.instances}
        return listing

    def _remember(self, kos_uid: str, listing: Mapping[str, frozenset[str]]) -> None:
        if kos_uid not in self._known:
            self._count += _size(listing)
        self._known[kos_uid] = listing
        while self._count > self._most and len(self._known) > 1:
            self._count -= _size(self._known.popitem(last=False)[1])


def _size(listing: Mapping[str, frozenset[str]]) -> int:
    return sum(map(len, listing.values()))
