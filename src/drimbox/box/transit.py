"""Where images lie in clear on their way through a source, each for as long as one request needs it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from drimbox.box.settings import Settings

_log = logging.getLogger(__name__)
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def spool_of(settings: Settings) -> Path:
    """The folder of what comes from a PACS (``pacs.inbox``, which empties it and locks it)."""
    return _folder(settings) / "spool"


def fresh_scratch(settings: Settings) -> Path:
    """The folder of what is being transcoded, emptied of what an earlier process left."""
    folder = _folder(settings) / "scratch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    section = settings.source
    if section is not None and section.cache.encrypted and not _in_memory(folder):
        _log.info("images in transit lie in clear in %s; see source.transit_dir", folder.parent)
    return folder


def _folder(settings: Settings) -> Path:
    chosen = settings.source.transit_dir if settings.source is not None else None
    return chosen or settings.box.state_dir


def _in_memory(folder: Path) -> bool:
    """Is it in a memory file system? Of the mounts of one path, the last one holds."""
    path, kind, longest = folder.resolve(), "", -1
    try:
        lines = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    for fields in (line.split() for line in lines):
        point = Path(fields[1].replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= longest:
            kind, longest = fields[2], len(point.parts)
    return kind in _IN_MEMORY
