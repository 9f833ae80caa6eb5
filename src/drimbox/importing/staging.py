"""What an import has on our disk: images that were fetched and checked, not stored yet.

::

    <folder>/<import>/in/         images as they come, being checked
    <folder>/<import>/ready/      images to be stored, whole, named by the SOP Instance UID of the source:
                                  ``.dcm`` as they came, ``.made`` with the local identity
    <folder>/<import>/boot        the start of the machine in which they were written

The local identity is put in front of an image while it is sent; a file with it is made only for who needs a file.
After a loss of power what lies there may not be whole, and is fetched again; after the mere end of a process it is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from drimbox.cache.volume import boot_id
from drimbox.dicom.elements import Buffer
from drimbox.dicom.files import mapped
from drimbox.importing.coercion import Coercion, edited, to_implicit
from drimbox.pacs.dimse.storing import Outgoing
from drimbox.pacs.header import outgoing

_RECEIVED, _MADE = ".dcm", ".made"


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
        """Make the folders; the images that are ready there, by their SOP Instance UID at the source."""
        mark, boot = self.folder / "boot", boot_id()
        if self.folder.exists() and (not mark.exists() or not boot or mark.read_text("ascii") != boot):
            shutil.rmtree(self.folder)
        shutil.rmtree(self.incoming, ignore_errors=True)
        for each in (self.folder, self.incoming, self.ready):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.write_text(boot, "ascii")
        found = set()
        for entry in os.scandir(self.ready):
            uid, dot, kind = entry.name.rpartition(".")
            if dot + kind in (_RECEIVED, _MADE):
                found.add(uid)
            else:
                os.unlink(entry.path)
        return frozenset(found)

    def path_of(self, sop_instance_uid: str) -> Path:
        """Where an image lies as it came."""
        return self.ready / f"{sop_instance_uid}{_RECEIVED}"

    def made_of(self, sop_instance_uid: str) -> Path:
        """Where an image lies with the local identity, once ``make`` has written it."""
        return self.ready / f"{sop_instance_uid}{_MADE}"

    def keep(
        self,
        source: Path,
        sop_class_uid: str,
        sop_instance_uid: str,
        coercion: Coercion,
        look: Callable[[Buffer], None] | None = None,
    ) -> Outgoing:
        """Put an image among those that are ready, unless ``look`` raises; what is to be sent of it.

        Its identifiers are those that it was checked to have. ``source`` goes. Raises ``Refused`` also.
        """
        kept = _coerced(source, sop_class_uid, sop_instance_uid, coercion, look)
        target = self.path_of(sop_instance_uid)
        _move(source, target)
        return Outgoing(
            kept.sop_class_uid,
            kept.sop_instance_uid,
            kept.transfer_syntax_uid,
            target,
            kept.start,
            kept.size,
            kept.head,
            kept.rest,
        )

    def outgoing(self, sop_class_uid: str, sop_instance_uid: str, coercion: Coercion) -> Outgoing:
        """What is to be sent of an image that is ready. Raises ``Refused`` also."""
        made = self.made_of(sop_instance_uid)
        if made.exists():
            return outgoing(made)
        return _coerced(self.path_of(sop_instance_uid), sop_class_uid, sop_instance_uid, coercion)

    def make(self, sop_instance_uid: str, image: Outgoing) -> Path:
        """A file of what is to be sent, for who needs one."""
        target = self.made_of(sop_instance_uid)
        if image.path != target:
            written(image, target)
        return target

    def implicit(self, sop_instance_uid: str) -> Outgoing:
        """An uncompressed image that was made, as Implicit VR. Raises ``Refused`` also."""
        path = self.made_of(sop_instance_uid)
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
            self.made_of(uid).unlink(missing_ok=True)

    def remove(self) -> None:
        """All of it goes."""
        shutil.rmtree(self.folder, ignore_errors=True)


def written(image: Outgoing, target: Path) -> None:
    """The file of an image as it is sent. Blocks; raises ``OSError``."""
    part = target.with_suffix(".part")
    part.unlink(missing_ok=True)
    if image.head:
        _write(part, image.head, image.path, image.rest)
    else:
        os.link(image.path, part)
    part.rename(target)


def _coerced(
    path: Path,
    sop_class_uid: str,
    sop_instance_uid: str,
    coercion: Coercion,
    look: Callable[[Buffer], None] | None = None,
) -> Outgoing:
    with mapped(path) as buffer:
        if look is not None:
            look(buffer)
        made = edited(buffer, coercion)
        size = made.splice.size(len(buffer))
    uid = coercion.uid(sop_instance_uid)
    head, rest = made.splice.head, made.splice.rest
    return Outgoing(sop_class_uid, uid, made.transfer_syntax, path, made.start, size - made.start, head, rest)


def _move(source: Path, target: Path) -> None:
    source.replace(target)


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
