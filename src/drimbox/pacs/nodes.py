"""The addresses under which one service of a PACS is reached: the first that answers is used."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_AVOIDED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Node:
    """One DICOM application entity, and where it listens."""

    host: str
    port: int
    ae_title: str


class Nodes:
    """Several of them in order of preference; one that could not be reached is tried last for a while."""

    def __init__(self, nodes: Sequence[Node], now: Callable[[], float] = time.monotonic) -> None:
        if not nodes:
            raise ValueError("no node")
        self._nodes = tuple(nodes)
        self._now = now
        self._lock = threading.Lock()
        self._failed: dict[Node, float] = {}

    def in_order(self) -> list[Node]:
        """All of them, in the order in which they are to be tried now."""
        limit = self._now() - _AVOIDED_SECONDS
        with self._lock:
            avoided = {node for node, at in self._failed.items() if at > limit}
        return [n for n in self._nodes if n not in avoided] + [n for n in self._nodes if n in avoided]

    def failed(self, node: Node) -> None:
        with self._lock:
            self._failed[node] = self._now()

    def worked(self, node: Node) -> None:
        with self._lock:
            self._failed.pop(node, None)
