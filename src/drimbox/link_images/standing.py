"""Which KOS is in force for a visit, at this moment: asked for at every request (VI-SO.33; decisions 2, 6)."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.link.agreement import hidden_from
from drimbox.link.visit import Visit
from drimbox.link_images.ports import Archive, ArchivedKos, ReadManifest
from drimbox.manifest.manifest import Manifest, ManifestSeries

_REMEMBERED = 64


class Gone(Refused):
    """There is nothing at this address for this visit. One answer for all causes: none is told."""

    def __init__(self) -> None:
        super().__init__("Cette page n'existe pas ou n'est plus disponible", code="gone")


@dataclass(frozen=True, slots=True)
class Standing:
    """The KOS in force and what it says."""

    kos: ArchivedKos
    manifest: Manifest

    @property
    def version(self) -> str:
        """A word that changes when another KOS is in force: a page knows by it that it shows the former one."""
        return hashlib.sha256(self.kos.kos_uid.encode()).hexdigest()[:16]

    def series(self, series_uid: str) -> ManifestSeries:
        """A series of the study. Raises ``Gone`` for any other."""
        found = next((s for s in self.manifest.series if s.series_uid == series_uid), None)
        if found is None:
            raise Gone
        return found


class Register:
    """Looks up what is in force, and remembers what KOS say, since none ever changes under its UID."""

    def __init__(self, archive: Archive, read_manifest: ReadManifest, clock: Clock) -> None:
        self._archive = archive
        self._read_manifest = read_manifest
        self._clock = clock
        self._known: OrderedDict[str, Manifest] = OrderedDict()

    async def of(self, visit: Visit) -> Standing:
        """What the visit may see now. Raises ``Gone`` once it may see nothing: depublished, hidden, another patient."""
        kos = await self._archive.by_kos_uid(visit.kos_uid)
        if kos is not None and kos.state == "replaced" and kos.study_uid == visit.study_uid:
            # A newer version took its place while the visit lasts: it says what is shared now.
            kos = await self._archive.current(visit.study_uid, kos.structure)
        if kos is None or kos.state != "current" or kos.study_uid != visit.study_uid or kos.ins != visit.ins:
            raise Gone
        manifest = await self._manifest(kos)
        # The same rule as at the door: for a minor, what is hidden from the representatives is hidden too.
        if hidden_from(kos.visibility, manifest.birth_date, visit.who.visitor, self._clock.now()):
            raise Gone
        return Standing(kos, manifest)

    async def _manifest(self, kos: ArchivedKos) -> Manifest:
        known = self._known.get(kos.kos_uid)
        if known is None:
            known = self._known[kos.kos_uid] = await asyncio.to_thread(self._read_manifest, kos.kos)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(kos.kos_uid)
        return known
