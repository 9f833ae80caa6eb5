"""The tests of the cache over HTTPS use the certificates and the neighbours of those of the images room."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "images"))
