"""What an import has on our disk: images that were fetched and checked, with the local identity, not stored yet.

::

    <folder>/<import>/in/         images as they come, being checked
    <folder>/<import>/ready/      images to be stored, whole, named by the SOP Instance UID of the source
    <folder>/<import>/boot        the start of the machine in which they were written

After a loss of power what lies there may not be whole, and is fetched again; after the mere end of a process it is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from drimbox.cache.volume import boot_id
from drimbox.dicom.files import mapped
from drimbox.importing.coercion import Coercion, edited, to_implicit
from drimbox.pacs.dimse.storing import Outgoing
from drimbox.pacs.header import outgoing


@dataclass(frozen=True, slots=True)
class Staging:
    """The folder of one import. Its methods block, and raise ``OSError``."""

    folder: Path

    @property
    def incoming(self) -> Path:
        return self.folder / "in"

    @property
    def ready(self) -> Path:
        return self.folder / "ready"

    def open(self) -> frozenset[str]:
        """Make it usable; the SOP Instance UIDs (of the source) of what is ready to be stored."""
        boot = boot_id()
        mark = self.folder / "boot"
        if self.folder.exists() and (not mark.exists() or not boot or mark.read_text("ascii") != boot):
            shutil.rmtree(self.folder)
        shutil.rmtree(self.incoming, ignore_errors=True)
        for each in (self.folder, self.incoming, self.ready):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.write_text(boot, "ascii")
        found = set()
        for entry in os.scandir(self.ready):
            if entry.name.endswith(".dcm"):
                found.add(entry.name.removesuffix(".dcm"))
            else:
                os.unlink(entry.path)
        return frozenset(found)

    def path_of(self, sop_instance_uid: str) -> Path:
        return self.ready / f"{sop_instance_uid}.dcm"

    def prepare(self, source: Path, sop_class_uid: str, sop_instance_uid: str, coercion: Coercion) -> Outgoing:
        """Give an image the local identity and put it among those that are ready. Raises ``Refused`` also.

        Its identifiers are those that it was checked to have. ``source`` is not changed, and goes.
        """
        target = self.path_of(sop_instance_uid)
        part = target.with_suffix(".part")
        with mapped(source) as buffer:
            made = edited(buffer, coercion)
            size = made.splice.size(len(buffer))
        _write(part, made.splice.head, source, made.splice.rest)
        part.rename(target)
        source.unlink()
        uid = coercion.uid(sop_instance_uid)
        return Outgoing(sop_class_uid, uid, made.transfer_syntax, target, made.start, size - made.start)

    def implicit(self, sop_instance_uid: str) -> Outgoing:
        """An uncompressed image that is ready, as Implicit VR. Raises ``Refused`` also."""
        path = self.path_of(sop_instance_uid)
        part = path.with_suffix(".part")
        with mapped(path) as buffer:
            head, rest = to_implicit(buffer)
        _write(part, head, path, rest)
        part.rename(path)
        return outgoing(path)

    def drop(self, sop_instance_uids: Collection[str]) -> None:
        """These are not needed here any more."""
        for uid in sop_instance_uids:
            self.path_of(uid).unlink(missing_ok=True)

    def remove(self) -> None:
        """All of it goes."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _write(target: Path, head: bytes, source: Path, rest: int) -> None:
    """``head``, then ``source`` from ``rest`` on; copied by the kernel."""
    with target.open("wb", buffering=0) as out, source.open("rb", buffering=0) as original:
        os.chmod(target, 0o600)
        view = memoryview(head)
        while view:
            view = view[out.write(view) or 0 :]
        position, end = rest, os.fstat(original.fileno()).st_size
        while position < end:
            sent = os.sendfile(out.fileno(), original.fileno(), position, end - position)
            if not sent:
                raise OSError("file shorter than it was")
            position += sent
