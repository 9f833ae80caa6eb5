"""What the last queries said of studies: which SOP class each instance has. A help to retrieve, never an answer."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

from drimbox.pacs.study import Study


class Contents:
    """Remembers the studies found last, within ``most`` instances in all."""

    def __init__(self, most: int = 100_000) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._studies: OrderedDict[str, Mapping[str, str]] = OrderedDict()
        self._count = 0

    def note(self, study: Study) -> Mapping[str, str]:
        """Remember a study; gives the SOP class of each of its instances."""
        found = {one.sop_instance_uid: one.sop_class_uid for series in study.series for one in series.instances}
        with self._lock:
            self._count += len(found) - len(self._studies.pop(study.study_uid, ()))
            self._studies[study.study_uid] = found
            while self._count > self._most and len(self._studies) > 1:
                self._count -= len(self._studies.popitem(last=False)[1])
        return found

    def classes(self, study_uid: str) -> Mapping[str, str] | None:
        """The SOP class of each instance that the study had when it was last asked about; None when it is not known."""
        with self._lock:
            return self._studies.get(study_uid)
