"""Every target by its name."""

from __future__ import annotations

from fuzz.target import Target
from fuzz.targets import certificates, datasets, dimse, dmp, link, listeners, reports, web, xdm

TARGETS: dict[str, Target] = {
    target.name: target
    for room in (reports, dimse, datasets, web, dmp, xdm, certificates, link, listeners)
    for target in room.TARGETS
}
